"""The options of ``[model.crossing]``: one class a block, by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from models.layers.cross import KINDS as DCN_KINDS
from models.layers.group_interaction import INTERACTIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class DCNOptions:
    """Deep and cross network, v2 with ``matrix`` and ``mixed``, v1 with ``vector``; on the whole input of the top.

    Attributes:
        layers: how many.
        type: vector, matrix or mixed.
        experts: low-rank experts, for mixed.
        rank: of each, for mixed.
        dropout: after every layer, while training.

    Raises:
        ValueError: if the type is unknown, a size is not positive, or ``dropout`` is outside [0, 1).
    """

    layers: int = 2
    type: str = "matrix"
    experts: int = 4
    rank: int = 16
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        _check_positive(layers=self.layers, experts=self.experts, rank=self.rank)
        _check_choice("type", self.type, DCN_KINDS)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CINOptions:
    """Compressed interaction network of xDeepFM.

    Attributes:
        layers: maps of each layer.
        activation: of all layers but the last; None is linear.

    Raises:
        ValueError: if there is no layer or one without maps.
    """

    layers: tuple[int, ...] = (32, 32)
    activation: str | None = None

    def __post_init__(self) -> None:
        """Check the layers."""
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers or min(self.layers) < 1:
            raise ValueError(f"layers must name at least one layer of at least one map, got {list(self.layers)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoIntOptions:
    """Self-attention over the fields.

    Attributes:
        layers: how many.

    Raises:
        ValueError: if ``layers`` is not positive.
    """

    layers: int = 2

    def __post_init__(self) -> None:
        """Check the number."""
        _check_positive(layers=self.layers)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeNetOptions:
    """Squeeze and excitation: fields weighed by what all fields look like.

    Attributes:
        reduction: fields for each unit of the hidden layer.

    Raises:
        ValueError: if ``reduction`` is not positive.
    """

    reduction: int = 3

    def __post_init__(self) -> None:
        """Check the number."""
        _check_positive(reduction=self.reduction)


@dataclass(frozen=True, kw_only=True, slots=True)
class BilinearOptions:
    """FiBiNET's bilinear products of all pairs of fields.

    Attributes:
        product: ``multiply``, a vector a pair, or ``dot``, its sum, as in FiBiNet++.

    Raises:
        ValueError: if ``product`` is unknown.
    """

    product: str = "dot"

    def __post_init__(self) -> None:
        """Check the choice."""
        _check_choice("product", self.product, INTERACTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupIntOptions:
    """Products of every field of the user with every field of the candidate.

    Attributes:
        product: ``multiply``, a vector a pair, or ``dot``, its sum.

    Raises:
        ValueError: if ``product`` is unknown.
    """

    product: str = "dot"

    def __post_init__(self) -> None:
        """Check the choice."""
        _check_choice("product", self.product, INTERACTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class AllIntOptions:
    """All pairs of fields through a compression matrix.

    Attributes:
        compressed: columns of the matrix.

    Raises:
        ValueError: if ``compressed`` is not positive.
    """

    compressed: int = 4

    def __post_init__(self) -> None:
        """Check the number."""
        _check_positive(compressed=self.compressed)


@dataclass(frozen=True, kw_only=True, slots=True)
class CDotOptions:
    """All fields through a compression that depends on them.

    Attributes:
        projected: fields that the compression makes of all.
        layers: hidden layers of the network that computes it.

    Raises:
        ValueError: if a size is not positive.
    """

    projected: int = 2
    layers: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        """Check the sizes."""
        object.__setattr__(self, "layers", tuple(self.layers))
        _check_positive(projected=self.projected, **{f"layers.{i}": width for i, width in enumerate(self.layers)})


CROSSINGS: Final[Mapping[str, type[Any]]] = {
    "all_int": AllIntOptions,
    "autoint": AutoIntOptions,
    "bilinear": BilinearOptions,
    "cdot": CDotOptions,
    "cin": CINOptions,
    "dcn": DCNOptions,
    "group_int": GroupIntOptions,
    "senet": SeNetOptions,
}


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {value!r}")

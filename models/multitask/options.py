"""The options of ``[model.top]``: which top, and how it is built."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from models.layers.mmoe import GATE_TYPES
from models.layers.snr import KINDS


@dataclass(frozen=True, kw_only=True, slots=True)
class MLPOptions:
    """One network for all tasks, whose last layer has a column a task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedBottomOptions:
    """Shared hidden layers, then a tower for every task.

    Attributes:
        tower_layers: hidden layers of each tower; none makes it linear.

    Raises:
        ValueError: if a width is not positive.
    """

    tower_layers: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        """Check the widths."""
        _check_layers(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class MMoEOptions:
    """Experts mixed by a gate for every task, then a tower for every task.

    Attributes:
        experts: how many; each has the hidden layers of ``mlp_hidden_layers``, the last one linear.
        gate: softmax, topk or noise_topk.
        top_k: experts that a task keeps, for the last two.
        balance: weight of the experts' uneven load inside the auxiliary loss, for the last two.
        tower_layers: hidden layers of each tower; none makes it linear.

    Raises:
        ValueError: if a choice is unknown, a size is not positive, or ``balance`` is negative.
    """

    experts: int = 4
    gate: str = "softmax"
    top_k: int = 2
    balance: float = 0.01
    tower_layers: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        """Check the values."""
        _check_layers(self)
        if self.experts < 1 or self.top_k < 1:
            raise ValueError(f"experts and top_k must be at least 1, got {self.experts} and {self.top_k}")
        if self.gate not in GATE_TYPES:
            raise ValueError(f"gate must be one of {', '.join(GATE_TYPES)}; got {self.gate!r}")
        if self.balance < 0:
            raise ValueError(f"balance must not be negative, got {self.balance}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SNROptions:
    """Levels of sub-networks with learned routes between them, then a tower for every task.

    Attributes:
        subnets: sub-networks of each level; ``mlp_hidden_layers`` are the levels' widths.
        routing: ``trans``, a matrix on every route, or ``aver``, none; the widths must then be one.
        use_ste: the gradient of a clipped gate is that of an open one.
        l0: weight of the expected number of open routes inside the auxiliary loss.
        tower_layers: hidden layers of each tower; none makes it linear.

    Raises:
        ValueError: if ``routing`` is unknown, a size is not positive, or ``l0`` is negative.
    """

    subnets: int = 4
    routing: str = "trans"
    use_ste: bool = False
    l0: float = 1e-4
    tower_layers: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        """Check the values."""
        _check_layers(self)
        if self.subnets < 1:
            raise ValueError(f"subnets must be at least 1, got {self.subnets}")
        if self.routing not in KINDS:
            raise ValueError(f"routing must be one of {', '.join(KINDS)}; got {self.routing!r}")
        if self.l0 < 0:
            raise ValueError(f"l0 must not be negative, got {self.l0}")


TopOptions = MLPOptions | SharedBottomOptions | MMoEOptions | SNROptions
TOPS: Final[Mapping[str, type[TopOptions]]] = {
    "mlp": MLPOptions,
    "mmoe": MMoEOptions,
    "shared_bottom": SharedBottomOptions,
    "snr": SNROptions,
}


def read_top(given: object) -> TopOptions:
    """The options from plain values: a name, or a mapping with ``kind`` and the options of that kind.

    Raises:
        ValueError: naming the kind or the option that is unknown or unfit.
    """
    if isinstance(given, MLPOptions | SharedBottomOptions | MMoEOptions | SNROptions):
        return given
    values = {"kind": given} if isinstance(given, str) else given
    if not isinstance(values, Mapping):
        raise ValueError(f"top must be a name or a mapping with 'kind', got {given!r}")
    options = dict(values)
    kind = options.pop("kind", "mlp")
    if kind not in TOPS:
        raise ValueError(f"top: {kind!r} is not known; known are {', '.join(TOPS)}")
    try:
        return TOPS[kind](**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"top {kind}: {error}") from error


def top_to_dict(options: TopOptions) -> dict[str, Any]:
    """Plain JSON types; the inverse is ``read_top``."""
    kind = next(name for name, known in TOPS.items() if isinstance(options, known))
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}
    return {"kind": kind, **values}


def _check_layers(options: SharedBottomOptions | MMoEOptions | SNROptions) -> None:
    layers = tuple(options.tower_layers)
    object.__setattr__(options, "tower_layers", layers)
    if any(width < 1 for width in layers):
        raise ValueError(f"tower_layers must be positive, got {list(layers)}")

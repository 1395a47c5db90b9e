"""The search for embedding widths: which of several widths each table gets, learned with the network."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.inputs import Table
from models.layers.nas import MixedNASLayer, NASSelectionLayer

SHARES: Final = ("left", "diff")
SMALLEST: Final = 4  # narrower tables have nothing worth searching for


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingSearch:
    """Options of ``[model.nas]``.

    Attributes:
        sizes: widths that a table may get, by its name, increasing up to its own width; where it is empty every table
            of at least 4 columns may get a quarter, a half or all of them.
        allow_drop: a table may also get no column at all.
        share: ``left``, a narrower width is the first columns of a wider one; ``diff``, it is what the wider one adds.
        gradient: ``discrete``, ``gumbel`` or ``none``, as ``NASSelectionLayer``.
        temperature: of its softmax.

    Raises:
        ValueError: if a choice is unknown, or a width or the temperature is not positive.
    """

    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    allow_drop: bool = False
    share: str = "left"
    gradient: str = "discrete"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the choices; the layer checks the rest."""
        object.__setattr__(self, "sizes", {name: tuple(sizes) for name, sizes in self.sizes.items()})
        if self.share not in SHARES:
            raise ValueError(f"share must be one of {', '.join(SHARES)}; got {self.share!r}")
        # What the layer refuses is refused before a network is built.
        NASSelectionLayer(["any"], [[1]], self.temperature, self.share, self.gradient)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values = asdict(self)
        values["sizes"] = {name: list(sizes) for name, sizes in self.sizes.items()}
        return values

    def choices(self, tables: Sequence[Table]) -> dict[str, list[int]]:
        """The widths of every table that is searched.

        Raises:
            ValueError: if a table is unknown, or its widths do not increase up to its own.
        """
        if not self.sizes:
            return {
                table.name: sorted({table.dim // 4, table.dim // 2, table.dim})
                for table in tables
                if table.dim >= SMALLEST
            }
        dims = {table.name: table.dim for table in tables}
        found: dict[str, list[int]] = {}
        for name, sizes in self.sizes.items():
            if name not in dims:
                raise ValueError(f"nas.sizes: table must be one of {sorted(dims)}, got {name!r}")
            if not sizes or sorted(set(sizes)) != list(sizes) or sizes[-1] != dims[name] or sizes[0] < 1:
                raise ValueError(
                    f"nas.sizes.{name} must increase from at least 1 to the table's width {dims[name]}, "
                    f"got {list(sizes)}"
                )
            found[name] = list(sizes)
        return found


class TableSearch(nn.Module):
    """A scale for every column of every table; 0 or 1 in evaluation, but for gradient ``none``.

    Shapes: takes nothing; returns one (D,) a table. State: layer.* as ``NASSelectionLayer``.

    Args:
        search: the options.
        tables: in the order of the reader's.

    Raises:
        ValueError: as ``EmbeddingSearch.choices``, or if no table is left to be searched.
    """

    starts: list[int]
    dims: list[int]

    def __init__(self, search: EmbeddingSearch, tables: Sequence[Table]) -> None:
        super().__init__()
        choices = search.choices(tables)
        if not choices:
            raise ValueError(f"nas: at least one table must have {SMALLEST} columns or more, got none")
        kind = MixedNASLayer if search.allow_drop else NASSelectionLayer
        self.layer = kind(list(choices), list(choices.values()), search.temperature, search.share, search.gradient)
        self.starts, self.dims = [], [table.dim for table in tables]
        ends: dict[str, int] = {}
        total = 0
        for name, sizes in choices.items():
            ends[name] = total
            total += sizes[-1]
        self.starts = [ends.get(table.name, -1) for table in tables]

    def forward(self) -> list[Tensor]:
        """The scales, drawn anew while training."""
        weights = self.layer.current_weights()
        scales: list[Tensor] = []
        for i, start in enumerate(self.starts):
            if start < 0:
                scales.append(torch.ones([self.dims[i]], dtype=weights.dtype, device=weights.device))
            else:
                scales.append(weights[start : start + self.dims[i]])
        return scales

    def selected_sizes(self) -> dict[str, int]:
        """The width that each searched table has in evaluation."""
        return self.layer.selected_sizes()

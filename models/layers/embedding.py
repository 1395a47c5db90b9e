"""Embedding tables, and reading the fields of a packed id tensor out of them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.inputs import IdField, Table


class FieldEmbedding(nn.Module):
    """Embeddings of the id fields of several sides, fields that name the same table sharing it.

    Row 0 of a table is padding: a zero vector without gradient. A field wider than one column is the mean over its ids
    that are not padding (zero where there are none).

    Shapes: ids (..., F); returns one (..., dim) a field. State: tables.{i}.weight, one ``nn.Embedding`` a table, in the
    order given.

    Args:
        tables: what to make.
        sides: the fields of each side; ``forward`` takes the index of one.
        std: standard deviation of the initial vectors.

    Raises:
        ValueError: if a field names no table.
    """

    fields_of: list[list[list[int]]]
    columns: list[list[int]]
    widths: list[list[int]]

    def __init__(self, tables: Sequence[Table], sides: Sequence[Sequence[IdField]], std: float) -> None:
        super().__init__()
        names = [table.name for table in tables]
        for field in (field for fields in sides for field in fields):
            if field.table not in names:
                raise ValueError(f"field {field.name!r}: table must be one of {names}, got {field.table!r}")
        # For each side and table the positions of its fields: TorchScript can walk the tables, not pick one by number.
        self.fields_of = [
            [[i for i, field in enumerate(fields) if field.table == name] for name in names] for fields in sides
        ]
        self.columns = [[field.column for field in fields] for fields in sides]
        self.widths = [[field.width for field in fields] for fields in sides]
        self.tables = nn.ModuleList(_table(table, std) for table in tables)

    def forward(self, ids: Tensor, side: int) -> list[Tensor]:
        """Embeddings of a side's fields, in their order."""
        found: dict[int, Tensor] = {}
        for index, table in enumerate(self.tables):
            for field in self.fields_of[side][index]:
                column = self.columns[side][field]
                width = self.widths[side][field]
                if width == 1:
                    found[field] = table(ids[..., column])
                else:
                    found[field] = self._mean(table.weight, ids[..., column : column + width])  # type: ignore[arg-type]
        return [found[field] for field in range(len(self.columns[side]))]

    def _mean(self, weight: Tensor, chosen: Tensor) -> Tensor:
        """Mean over the ids (..., W) that are not padding."""
        if self.training:
            # The fused form keeps no (..., W, dim) vectors for the backward pass; it does not export.
            width = chosen.size(-1)
            bags = F.embedding_bag(chosen.reshape(-1, width), weight, mode="mean", padding_idx=0)
            return bags.view(list(chosen.shape[:-1]) + [weight.size(1)])  # noqa: RUF005 - a starred list does not script
        vectors = F.embedding(chosen, weight).sum(-2)
        count = (chosen != 0).sum(-1, keepdim=True).clamp_min(1)
        return vectors / count.to(vectors.dtype)


def _table(table: Table, std: float) -> nn.Embedding:
    module = nn.Embedding(table.rows, table.dim, padding_idx=0)
    with torch.no_grad():
        module.weight.normal_(0.0, std)
        module.weight[0].zero_()
    return module

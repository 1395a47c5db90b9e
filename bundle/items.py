"""The item table of a bundle: encoded candidate columns by item, so that a request may name ids only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bundle.columns import Column
from bundle.errors import FeatureError, FeatureProblem
from bundle.ids import MISSING_ID
from bundle.tables import IdTable

UNKNOWN_ROW = -1
_BITS = 64


@dataclass(frozen=True, slots=True)
class RawItems:
    """Items before encoding: `ids` (I,) sorted and distinct, each column (I,) or (I, W) in that order."""

    ids: NDArray[np.uint64]
    columns: Mapping[str, Column]

    @classmethod
    def sort(cls, ids: NDArray[np.uint64], columns: Mapping[str, Column]) -> "RawItems":
        """Sort items by id.

        Raises:
            FeatureError: if an item is missing, comes twice, or a column has another length.
        """
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        if len(ordered) and ordered[0] == MISSING_ID:
            raise FeatureError([FeatureProblem("/items", "schema", "an item has no id")])
        twice = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(twice):
            row = int(order[twice[0] + 1])
            raise FeatureError([FeatureProblem(f"/items/{row}", "duplicate_item", "the item is listed twice")])
        for name, column in columns.items():
            if len(column) != len(ids):
                message = f"has {len(column)} rows, the item table has {len(ids)}"
                raise FeatureError([FeatureProblem(f"/items/{name}", "schema", message)])
        return cls(ordered, {name: column[order] for name, column in columns.items()})

    def rows(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row of each id64, any shape; `UNKNOWN_ROW` for an item that is not listed."""
        return _rows(self.ids, ids)

    def column(self, name: str, rows: NDArray[np.int64]) -> Column:
        """Values of a raw column at some rows, missing where the item is not listed."""
        values = self.columns[name]
        missing = np.zeros((1, *values.shape[1:]), values.dtype)
        if values.dtype.kind == "f":
            missing[:] = np.nan
        return np.concatenate([values, missing])[rows]


def _rows(known: NDArray[np.uint64], ids: NDArray[np.uint64]) -> NDArray[np.int64]:
    if len(known) == 0:
        return np.full(ids.shape, UNKNOWN_ROW, dtype=np.int64)
    position = known.searchsorted(ids)
    return np.where(known.take(position, mode="clip") == ids, position, UNKNOWN_ROW)


@dataclass(frozen=True, slots=True)
class MatchColumn:
    """Raw ids of a column that history features compare: (I + 1, W) uint64, 0 for no value, last row unknown.

    Compared as id64 and not as encoded ids: unseen values and hash collisions must not count as agreement. With up
    to 64 distinct values (genres, say) a row is also kept as one bit set, so that an overlap is one `&`.
    """

    values: NDArray[np.uint64]
    alphabet: NDArray[np.uint64] = field(init=False)
    bits: NDArray[np.uint64] | None = field(init=False)

    def __post_init__(self) -> None:
        distinct = np.unique(self.values)
        alphabet = distinct[distinct != MISSING_ID]
        object.__setattr__(self, "alphabet", alphabet)
        object.__setattr__(self, "bits", self.bit_sets(self.values) if len(alphabet) <= _BITS else None)

    def bit_sets(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """(..., W) raw ids to (...) bit sets; values outside the alphabet agree with nothing and set no bit."""
        if len(self.alphabet) == 0:
            return np.zeros(values.shape[:-1], dtype=np.uint64)
        position = np.minimum(np.searchsorted(self.alphabet, values), len(self.alphabet) - 1)
        known = self.alphabet[position] == values
        single = np.where(known, np.uint64(1) << position.astype(np.uint64), np.uint64(0))
        return np.asarray(np.bitwise_or.reduce(single, axis=-1), dtype=np.uint64)


def item_key(source: str, table: str) -> str:
    """Name of an encoded id column: one source can be read through several tables. `source` "item" is the id itself."""
    return f"{source}/{table}"


def item_codes(
    table: IdTable, listed: NDArray[np.int64] | None, ids: NDArray[np.uint64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """What `table.lookup(ids)` gives, read from the item table wherever it lists the item.

    Args:
        table: an id table that reads the item's own id.
        listed: its rows for the listed items, (I + 1, 1); None where the item table does not hold them.
        ids: id64, any shape.
        rows: row of each in the item table, same shape. An item may be known to a vocabulary without being listed.
    """
    if listed is None:
        return table.lookup(ids)
    codes = listed[:, 0].take(rows, mode="wrap")
    unlisted = rows == UNKNOWN_ROW
    if np.count_nonzero(unlisted):
        codes[unlisted] = table.lookup(ids[unlisted])
    return codes


@dataclass(frozen=True, slots=True)
class ItemTable:
    """Encoded items.

    Attributes:
        ids: (I,) sorted id64.
        id_columns: by `item_key`, (I + 1, W) int64 encoded ids; the last row is that of an unknown item.
        number_columns: by feature, (I + 1,) float64 raw numbers, NaN for missing (scaling is cheap and the missing
            flag needs the NaN).
        matches: raw ids of the columns that history features compare.
        behaviour_fields: (key, width) of each behaviour id field in column order; key "" where the field is not a
            property of the item (type, buckets of value, age or gap).
    """

    ids: NDArray[np.uint64]
    id_columns: Mapping[str, NDArray[np.int64]]
    number_columns: Mapping[str, NDArray[np.float64]]
    matches: Mapping[str, MatchColumn]
    behaviour_fields: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row of each id64, any shape; `UNKNOWN_ROW` (-1, the last row) for an item that is not listed."""
        return _rows(self.ids, ids)

    def behaviour_columns(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """What `behaviour_ids` would hold if these items (...) had been behaviours; for negative sampling.

        Returns:
            ids (..., Fb) int64, zero in columns that are no property of the item, and (Fb,) True where they are one.
            Take the other columns from the real behaviour.
        """
        total = sum(width for _, width in self.behaviour_fields)
        out = np.zeros((*rows.shape, total), dtype=np.int64)
        of_item = np.zeros(total, dtype=np.bool_)
        column = 0
        for key, width in self.behaviour_fields:
            if key:
                out[..., column : column + width] = self.id_columns[key][rows]
                of_item[column : column + width] = True
            column += width
        return out, of_item

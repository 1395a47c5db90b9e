"""Columns of a file as the types training works with; what does not fit is refused with file, column and row.

Rows are counted from 1 without a header line. Ids become text, numbers and times float64.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from training.errors import DataError

Kind = Literal[
    "id",
    "ids",
    "number",
    "label",
    "outcome",
    "weight",
    "time",
    "text",
    "arm",
    "id_list",
    "text_list",
    "number_list",
    "time_list",
]
TimeUnit = Literal["s", "ms", "us", "ns"]

_PER_SECOND: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_LAST_SECOND: Final = 2.0**32
_ELEMENTS: Final[dict[Kind, Kind]] = {
    "ids": "id",
    "id_list": "id",
    "text_list": "id",
    "number_list": "number",
    "time_list": "time",
}
_WHOLE_FLOAT: Final = r"^-?\d+\.0+$"


@dataclass(frozen=True, slots=True)
class Cells:
    """One column of one file on its way to a type.

    Attributes:
        file: what messages call the file.
        name: of the column.
        sep: splits lists that are stored as text; None where the file has real lists.
        time_unit: of numeric times.
        nullable: whether a cell may be empty.
        row_of: the file's row of each cell, where the cells were taken out of lists.
    """

    file: str
    name: str
    sep: str | None = None
    time_unit: TimeUnit = "s"
    nullable: bool = True
    row_of: NDArray[np.int64] | None = None

    def convert(self, column: pl.Series, kind: Kind) -> pl.Series:
        """The column as its kind asks for.

        Raises:
            DataError: naming the file, the column and the first row that does not fit.
        """
        if kind in ("ids", "id_list", "text_list", "number_list", "time_list"):
            return self._lists(column, kind)
        if kind in ("id", "text"):
            converted = self._ids(column)
        elif kind == "arm":
            converted = self._arms(column)
        elif kind == "time":
            converted = self._times(column)
        else:
            converted = self._numbers(column, booleans=kind == "label")
        if not self.nullable:
            self._refuse(column, converted.is_null(), "is empty")
        if kind in ("label", "weight", "outcome"):
            self._check_value(column, converted, kind)
        return converted.rename(self.name)

    def refuse(self, column: pl.Series, row: int, what: str) -> DataError:
        """An error for one row (counted from 0 here, from 1 in the message)."""
        value = column[row]
        shown = value.to_list() if isinstance(value, pl.Series) else value
        number = (row if self.row_of is None else int(self.row_of[row])) + 1
        return DataError(f"{self.file}, column {self.name!r}, row {number}: {what} (got {shown!r})")

    def _refuse(self, column: pl.Series, wrong: pl.Series, what: str) -> None:
        row = wrong.fill_null(False).arg_true()
        if len(row):
            raise self.refuse(column, int(row[0]), what)

    def _ids(self, column: pl.Series) -> pl.Series:
        kind = column.dtype
        if kind == pl.String:
            filled = column.drop_nulls()
            if len(filled) and filled.str.contains(_WHOLE_FLOAT).all():
                first = int(column.is_not_null().arg_true()[0])
                raise self.refuse(column, first, "every id looks like a float; write whole numbers, 12 and not 12.0")
            return column.replace({"": None})
        if kind.is_integer() or isinstance(kind, (pl.Categorical, pl.Enum)):
            return column.cast(pl.String)
        if kind == pl.Null:
            return column.cast(pl.String)
        row = column.is_not_null().arg_true()
        if not len(row):
            return pl.Series(column.name, [None] * len(column), dtype=pl.String)
        raise self.refuse(column, int(row[0]), f"ids must be text or whole numbers, the column holds {kind}")

    def _numbers(self, column: pl.Series, booleans: bool = False) -> pl.Series:
        kind = column.dtype
        if kind == pl.String:
            column = column.replace({"": None})
            numbers = column.cast(pl.Float64, strict=False)
            self._refuse(column, numbers.is_null() & column.is_not_null(), "is not a number")
        elif kind.is_numeric() or kind == pl.Null or (booleans and kind == pl.Boolean):
            numbers = column.cast(pl.Float64)
        else:
            hint = "; write 0 and 1" if kind == pl.Boolean else ""
            first = column.is_not_null().arg_true()
            raise self.refuse(column, int(first[0]) if len(first) else 0, f"numbers expected, {kind} found{hint}")
        self._refuse(column, numbers.is_infinite(), "must be finite")
        return numbers

    def _times(self, column: pl.Series) -> pl.Series:
        if column.dtype == pl.Date:
            column = column.cast(pl.Datetime("us"))
        if isinstance(column.dtype, pl.Datetime):
            seconds = column.dt.epoch("us").cast(pl.Float64) / 1e6
        else:
            seconds = self._numbers(column) / _PER_SECOND[self.time_unit]
        self._refuse(column, seconds.is_nan(), "is not a time")
        wrong = (seconds < 0) | (seconds >= _LAST_SECOND)
        self._refuse(column, wrong, "must lie in [0, 2^32) seconds; is data.time_unit right?")
        return seconds

    def _arms(self, column: pl.Series) -> pl.Series:
        """Text; flags and whole numbers are written as people write them: true, 1, and 1 also where 1.0 is stored."""
        if column.dtype == pl.Boolean:
            return column.cast(pl.String)
        if not column.dtype.is_float():
            return self._ids(column)
        self._refuse(column, column.is_nan() | (column != column.round()), "an arm must be text or a whole number")
        return column.cast(pl.Int64).cast(pl.String)

    def _check_value(self, column: pl.Series, numbers: pl.Series, kind: Kind) -> None:
        self._refuse(column, numbers.is_nan(), "must not be NaN; leave the cell empty where there is no value")
        if kind == "label":
            self._refuse(column, (numbers != 0) & (numbers != 1), "a label must be 0 or 1")
        elif kind == "weight":
            self._refuse(column, numbers < 0, "a weight must not be negative")

    def _lists(self, column: pl.Series, kind: Kind) -> pl.Series:
        if column.dtype == pl.String and (kind != "ids" or self.sep is not None):
            column = self._split(column, keep_empty=kind != "ids")
        if isinstance(column.dtype, pl.Array):
            column = column.arr.to_list()
        if not isinstance(column.dtype, pl.List):
            if kind == "ids":  # single values are lists of one
                single = self._ids(column)
                return _relist(single.drop_nulls(), single.is_not_null().cast(pl.Int64)).rename(self.name)
            present = column.is_not_null().arg_true()
            first = int(present[0]) if len(present) else 0
            raise self.refuse(column, first, f"lists expected, {column.dtype} found")
        lengths = column.list.len().fill_null(0).cast(pl.Int64)
        values = column.explode(empty_as_null=False, keep_nulls=False)
        inner = Cells(
            self.file,
            self.name,
            time_unit=self.time_unit,
            nullable=kind not in ("id_list", "time_list"),
            row_of=np.repeat(np.arange(len(lengths)), lengths.to_numpy()),
        )
        converted = inner.convert(values, _ELEMENTS[kind])
        return _relist(converted, lengths).rename(self.name)

    def _split(self, column: pl.Series, keep_empty: bool) -> pl.Series:
        lists = column.fill_null("").str.split(self.sep if self.sep is not None else "|")
        if keep_empty:  # "4||5" holds a behaviour without a value; only an empty cell is an empty list
            return pl.select(
                pl.when(column.fill_null("") == "").then(pl.lit([], dtype=pl.List(pl.String))).otherwise(lists)
            ).to_series()
        return lists.list.eval(pl.element().filter(pl.element() != ""))


def _relist(values: pl.Series, lengths: pl.Series) -> pl.Series:
    """Values in one column back to lists of the given lengths."""
    offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy())]).astype(np.int64)
    lists = pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets), values.to_arrow()))
    if not isinstance(lists, pl.Series):
        raise TypeError(f"expected one column of lists, got {type(lists).__name__}")
    return lists

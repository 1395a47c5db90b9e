"""Columns of a file as the encoder takes them: whole columns at once, the first wrong value named by its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bundle.columns import Column, Declared, pad_ragged
from bundle.ids import MISSING_ID, id64_column
from cli.batch.writing import LIST_SEPARATOR
from cli.exits import InputProblem

Int = NDArray[np.int64]
NUMBER: Final = "must be a number"
TEXT: Final = "must be a string"


class WrongValue(Exception):
    """A value cannot be used.

    Attributes:
        place: counted in the column it was found in.
        message: what it must be.
        column: its name, where it is another than the one that was asked for.
    """

    def __init__(self, place: int, message: str, column: str | None = None) -> None:
        super().__init__(message)
        self.place, self.message, self.column = int(place), message, column


@dataclass(slots=True)
class Faults:
    """The wrong value that stands first in the file, of all that were met."""

    row: int | None = None
    column: str = ""
    message: str = ""

    def add(self, row: int, column: str, message: str) -> None:
        """Note a wrong value; of two in one row the one that was met first stays."""
        if self.row is None or row < self.row:
            self.row, self.column, self.message = int(row), column, message

    def check(self, file: Path, offset: int) -> None:
        """Raise InputProblem that names file, column and row, if there is a fault."""
        if self.row is not None:
            raise InputProblem(f"{file}: column {self.column}, row {offset + self.row + 1}: {self.message}")


def feature_column(feature: Declared, series: pl.Series) -> Column:
    """A feature's column of N cells: ids (N,) or (N, W) uint64, numbers (N,) float64; an empty cell is missing.

    Raises:
        WrongValue: for the first cell that does not fit the declaration.
    """
    if feature.kind == "number":
        return numbers(series)
    if feature.max_values == 1:
        return ids(series)
    return _several_ids(series, feature.sep, feature.max_values)


def numbers(series: pl.Series) -> NDArray[np.float64]:
    """Numbers (N,), NaN where the cell is empty.

    Raises:
        WrongValue: for text, truth values and what is not finite.
    """
    if not series.dtype.is_numeric():
        return _nothing(series, NUMBER).astype(np.float64) * np.nan
    values: NDArray[np.float64] = series.cast(pl.Float64).to_numpy()
    wrong = ~np.isfinite(values)
    if wrong.any():
        wrong &= series.is_not_null().to_numpy()
        if wrong.any():
            raise WrongValue(int(wrong.argmax()), "must be finite")
    return values


def ids(series: pl.Series) -> NDArray[np.uint64]:
    """id64 (N,) of text or whole numbers, `MISSING_ID` where the cell is empty.

    Raises:
        WrongValue: for cells of another type.
    """
    if not _spells_ids(series.dtype):
        return _nothing(series, TEXT)
    return hashed(series.cast(pl.String).to_arrow())


def hashed(texts: pa.Array) -> NDArray[np.uint64]:
    """id64 (N,) of texts; each distinct text is hashed once, which is most of the time of a long column."""
    encoded = pc.dictionary_encode(texts)
    of_text = np.append(id64_column(encoded.dictionary.to_pylist()), np.uint64(MISSING_ID))
    return np.asarray(of_text[encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)])


def _spells_ids(dtype: pl.DataType) -> bool:
    return dtype.is_integer() or is_text(dtype)


def is_text(dtype: pl.DataType) -> bool:
    """Whether a column holds texts, however they are kept."""
    return dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)


def _nothing(series: pl.Series, must: str) -> NDArray[np.uint64]:
    """A column of another type can only be used where all its cells are empty."""
    given = series.is_not_null()
    if given.any():
        place = int(given.arg_max() or 0)
        kind = type(series.slice(place, 1).to_list()[0]).__name__
        raise WrongValue(place, f"{must}, got {kind}")
    return np.full(len(series), MISSING_ID, dtype=np.uint64)


def _several_ids(series: pl.Series, sep: str | None, width: int) -> NDArray[np.uint64]:
    if is_text(series.dtype) and sep is not None:
        members = series.cast(pl.String).str.split(sep).list.eval(pl.element().filter(pl.element() != ""))
    elif isinstance(series.dtype, pl.List | pl.Array):
        members = series
    else:
        single = ids(series)
        return pad_ragged(single[single != MISSING_ID], (single != MISSING_ID).astype(np.int64), width)
    ragged = Ragged.of(members)
    return pad_ragged(ragged.ids(), ragged.lengths, width)


@dataclass(frozen=True, slots=True)
class Ragged:
    """A list column: the members of all cells end to end, and how many each of the N cells has, (N,)."""

    members: pl.Series
    lengths: Int

    @classmethod
    def of(cls, series: pl.Series) -> Ragged:
        """Take a column of lists, or of texts joined by `LIST_SEPARATOR`, apart; an empty cell has no members.

        Raises:
            WrongValue: for a column of another type.
        """
        if is_text(series.dtype):
            texts = series.cast(pl.String)
            series = texts.set(texts == "", None).str.split(LIST_SEPARATOR)
        if isinstance(series.dtype, pl.Array):
            series = series.arr.to_list()
        if not isinstance(series.dtype, pl.List):
            return cls(pl.Series([], dtype=pl.Null), _nothing(series, "must be a list").astype(np.int64))
        lengths = series.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        members = pl.Series(values=series.to_arrow().flatten())
        return cls(members.cast(series.dtype.inner), lengths)

    def cell(self, place: int) -> int:
        """The cell that a member belongs to."""
        return int(np.searchsorted(self.lengths.cumsum(), place, side="right"))

    def refuse(self, wrong: NDArray[np.bool_], message: str) -> None:
        """Raise WrongValue for the cell of the first member (M,) that is marked, if one is."""
        if wrong.any():
            raise WrongValue(self.cell(int(wrong.argmax())), message)

    def ids(self) -> NDArray[np.uint64]:
        """id64 (M,) of the members.

        Raises:
            WrongValue: by cell, for members that are neither text nor whole numbers.
        """
        self.refuse(self.members.is_null().to_numpy(), f"{TEXT}, got null")
        return self.optional_ids()

    def optional_ids(self) -> NDArray[np.uint64]:
        """The same, with `MISSING_ID` for null."""
        try:
            return ids(self.members)
        except WrongValue as wrong:
            raise WrongValue(self.cell(wrong.place), wrong.message) from wrong

    def numbers(self) -> NDArray[np.float64]:
        """The members (M,) as numbers, NaN for null and for NaN; texts are read, as a CSV has nothing else.

        Raises:
            WrongValue: by cell, for what is no number.
        """
        members: Any = self.members
        if is_text(members.dtype):
            read = members.cast(pl.Float64, strict=False)
            self.refuse((read.is_null() & members.is_not_null()).to_numpy(), f"{NUMBER}, got str")
            members = read
        elif not (members.dtype.is_numeric() or members.dtype in {pl.Null, pl.Boolean}):
            self.refuse(members.is_not_null().to_numpy(), f"{NUMBER}, found {members.dtype}")
            members = members.to_physical()
        return np.asarray(members.cast(pl.Float64).to_numpy(), dtype=np.float64)

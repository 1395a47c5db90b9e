"""Files as columns, with errors that name the file, the column and the row.

Rows are counted from 1, the first row of data; a CSV's header is not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import polars as pl

from cli.batch.reading import RowFile
from cli.batch.writing import TableWriter
from cli.exits import InputProblem


def read_table(path: Path, text: Collection[str] = ()) -> pl.DataFrame:
    """Read a whole .parquet, .csv or .ndjson file; see `RowFile`, which reads it in parts.

    Raises:
        InputProblem: if the file is absent, of another kind or cannot be read.
    """
    return pl.concat(RowFile(path, text).chunks())


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as the file's ending says, under a temporary name that is renamed at the end.

    Raises:
        InputProblem: if the ending is no known one.
    """
    with TableWriter(path) as writer:
        writer.add(frame)


def require_columns(present: Collection[str], names: Iterable[str], path: Path) -> None:
    """Raises InputProblem that names the first column that is not there."""
    for name in names:
        if name not in present:
            raise InputProblem(f"{path}: column {name} is missing; it has {', '.join(present)}.")


def text_ids(frame: pl.DataFrame, name: str, path: Path, offset: int = 0) -> pl.Series:
    """A column of ids as text; whole numbers become decimal text. In the file `offset` rows stand before the frame's.

    Raises:
        InputProblem: for floats, booleans, missing and empty ids.
    """
    column = frame[name]
    if not (column.dtype.is_integer() or column.dtype in {pl.String, pl.Categorical}):
        raise InputProblem(f"{path}: column {name}: ids are text or whole numbers, found {column.dtype}.")
    column = column.cast(pl.String)
    wrong = (column.is_null() | (column == "")).arg_true()
    if len(wrong):
        raise InputProblem(f"{path}: column {name}, row {offset + wrong[0] + 1}: the id is missing.")
    return column


def seconds(frame: pl.DataFrame, name: str, path: Path, offset: int = 0) -> pl.Series:
    """A column of times as seconds since 1970; date-times are converted. See `text_ids` for `offset`.

    Raises:
        InputProblem: for text, missing, negative or not finite times.
    """
    column = frame[name]
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    if not column.dtype.is_numeric():
        raise InputProblem(f"{path}: column {name}: expected seconds since 1970, found {column.dtype}.")
    column = column.cast(pl.Float64)
    bad = (column.is_null() | ~column.is_finite() | (column < 0)).fill_null(True).arg_true()
    if len(bad):
        raise InputProblem(f"{path}: column {name}, row {offset + bad[0] + 1}: expected seconds since 1970.")
    return column


def optional_numbers(frame: pl.DataFrame, name: str, path: Path) -> list[float | None]:
    """A column of numbers where null means missing.

    Raises:
        InputProblem: for text and infinite numbers.
    """
    column = frame[name]
    if not (column.dtype.is_numeric() or column.dtype == pl.Null):
        raise InputProblem(f"{path}: column {name}: expected numbers, found {column.dtype}.")
    column = column.cast(pl.Float64).fill_nan(None)
    bad = column.is_infinite().fill_null(False).arg_true()
    if len(bad):
        raise InputProblem(f"{path}: column {name}, row {bad[0] + 1}: expected a finite number.")
    return column.to_list()

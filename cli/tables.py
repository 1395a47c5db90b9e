"""Parquet and CSV files as columns, with errors that name the file, the column and the row.

Rows are counted from 1, the first row of data; a CSV's header is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from cli.exits import InputProblem

LIST_SEPARATOR = "|"


def read_table(path: Path, text: Iterable[str] = ()) -> pl.DataFrame:
    """Read a .parquet or .csv file; in a CSV the columns named in `text` stay text, so that 007 is not 7.

    Raises:
        InputProblem: if the file is absent, of another kind or cannot be read.
    """
    if not path.is_file():
        raise InputProblem(f"{path}: no such file.")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        if path.suffix == ".csv":
            present = pl.read_csv(path, n_rows=0).columns
            as_text = {name: pl.String for name in text if name in present}
            # Every row decides a column's type: a letter in the last row must not fail the read half-way.
            return pl.read_csv(path, schema_overrides=as_text, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputProblem(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    raise InputProblem(f"{path}: expected a file that ends in .parquet or .csv.")


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as the file's ending says, under a temporary name that is renamed at the end.

    Raises:
        InputProblem: if the ending is neither .parquet nor .csv.
    """
    if path.suffix not in {".parquet", ".csv"}:
        raise InputProblem(f"{path}: the output's name must end in .parquet or .csv.")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    try:
        if path.suffix == ".parquet":
            frame.write_parquet(draft)
        else:
            _lists_as_text(frame).write_csv(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def require_columns(frame: pl.DataFrame, names: Iterable[str], path: Path) -> None:
    """Raises InputProblem that names the first column that is not there."""
    for name in names:
        if name not in frame.columns:
            raise InputProblem(f"{path}: column {name} is missing; it has {', '.join(frame.columns)}.")


def text_ids(frame: pl.DataFrame, name: str, path: Path) -> list[str]:
    """A column of ids as text; whole numbers become decimal text.

    Raises:
        InputProblem: for floats, booleans, missing and empty ids.
    """
    column = frame[name]
    if not (column.dtype.is_integer() or column.dtype in {pl.String, pl.Categorical}):
        raise InputProblem(f"{path}: column {name}: ids are text or whole numbers, found {column.dtype}.")
    column = column.cast(pl.String)
    wrong = (column.is_null() | (column == "")).arg_true()
    if len(wrong):
        raise InputProblem(f"{path}: column {name}, row {wrong[0] + 1}: the id is missing.")
    return column.to_list()


def seconds(frame: pl.DataFrame, name: str, path: Path) -> list[float]:
    """A column of times as seconds since 1970; date-times are converted.

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
        raise InputProblem(f"{path}: column {name}, row {bad[0] + 1}: expected seconds since 1970.")
    return column.to_list()


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


def as_list(value: Any) -> list[Any]:
    """A cell of a list column: a list, text of a CSV split at '|', or nothing."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return value.split(LIST_SEPARATOR)
    return list(value)


def _lists_as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """CSV has no lists: they go back to text joined by '|'."""
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List | pl.Array)]
    return frame.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(LIST_SEPARATOR) for name in lists)

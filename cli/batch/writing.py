"""A file that is written frame by frame: complete under its name, or not there at all."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import polars as pl
import pyarrow.parquet as pq

from cli.exits import InputProblem

LIST_SEPARATOR: Final = "|"
LINES: Final = frozenset({".ndjson", ".jsonl"})
ENDINGS: Final = frozenset({".parquet", ".csv", *LINES})


class TableWriter:
    """Writes frames with the same columns as .parquet, .csv or .ndjson, as the name's ending says.

    Used as a context: the file gets its name when the context ends well, and vanishes when it does not.

    Raises:
        InputProblem: if the ending is another one.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in ENDINGS:
            raise InputProblem(f"{path}: the output's name must end in .parquet, .csv or .ndjson.")
        self._path = path
        self._draft = path.with_name(f".{path.name}.tmp")
        self._parquet: pq.ParquetWriter | None = None
        self._begun = False

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = self._draft.open("wb")
        return self

    def add(self, frame: pl.DataFrame) -> None:
        """Write the rows of one more frame."""
        if self._path.suffix == ".parquet":
            rows = frame.to_arrow()
            if self._parquet is None:
                # Dictionaries take as long as all the rest, and the compression finds the same repetitions.
                self._parquet = pq.ParquetWriter(self._file, rows.schema, compression="zstd", use_dictionary=False)
            self._parquet.write_table(rows)
        elif self._path.suffix == ".csv":
            _lists_as_text(frame).write_csv(self._file, include_header=not self._begun)
        else:
            frame.write_ndjson(self._file)
        self._begun = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self._parquet is not None:
                self._parquet.close()
            self._file.close()
            if error is None:
                self._draft.replace(self._path)
        finally:
            self._draft.unlink(missing_ok=True)


def _lists_as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """CSV has no lists: they go back to text joined by '|'."""
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List | pl.Array)]
    return frame.with_columns(pl.col(name).cast(pl.List(pl.String)).list.join(LIST_SEPARATOR) for name in lists)

"""Files of rows, read in chunks: nothing needs the whole file in memory.

Text formats are read twice, first for the columns' types: a letter in the last row must not fail the read half-way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cli.batch.writing import LINES
from cli.exits import InputProblem

CHUNK_ROWS: Final = 16_384
PARQUET_BYTES: Final = 64 * 1024**2
TEXT_BYTES: Final = 16 * 1024**2
LONGEST_LINE: Final = 4 * TEXT_BYTES
_FEWEST_ROWS: Final = 64


class RowFile:
    """A .parquet, .csv or .ndjson file; in a CSV the columns named in ``text`` stay text, so that 007 is not 7.

    Attributes:
        path: where it lies.
        schema: its columns.
        rows: how many, None where that would take counting.

    Raises:
        InputProblem: if the file is absent, of another kind or cannot be read.
    """

    def __init__(self, path: Path, text: Collection[str] = ()) -> None:
        self.path = path
        self.rows: int | None = None
        if not path.is_file():
            raise InputProblem(f"{path}: no such file.")
        with _readable(path):
            if path.suffix == ".parquet":
                with pq.ParquetFile(path) as file:
                    self.rows = file.metadata.num_rows
                    self.schema = pl.DataFrame(file.schema_arrow.empty_table()).schema
            elif path.suffix == ".csv":
                present = pl.read_csv(path, n_rows=0).columns
                as_text = {name: pl.String for name in text if name in present}
                self.schema = pl.scan_csv(path, schema_overrides=as_text, infer_schema_length=None).collect_schema()
            elif path.suffix in LINES:
                self.schema = pl.scan_ndjson(path, infer_schema_length=None).collect_schema()
            else:
                raise InputProblem(f"{path}: expected a file that ends in .parquet, .csv or .ndjson.")

    def chunks(self) -> Iterator[pl.DataFrame]:
        """The rows in their order, at least one frame, each of bounded size.

        Raises:
            InputProblem: if the file cannot be read to its end.
        """
        with _readable(self.path):
            frames = self._parquet() if self.path.suffix == ".parquet" else self._text()
            yield next(frames, pl.DataFrame(schema=self.schema))
            yield from frames

    def _parquet(self) -> Iterator[pl.DataFrame]:
        with pq.ParquetFile(self.path) as file:
            facts = file.metadata
            size = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
            most = max(_FEWEST_ROWS, min(CHUNK_ROWS, PARQUET_BYTES * facts.num_rows // max(1, size)))
            for batch in file.iter_batches(most, use_threads=False):
                yield pl.DataFrame(pa.table(batch))

    def _text(self) -> Iterator[pl.DataFrame]:
        header = self.path.suffix == ".csv"
        for lines in _whole_lines(self.path, quotes=header):
            if self.path.suffix == ".csv":
                frame = pl.read_csv(lines, schema=self.schema, has_header=header)
            else:
                frame = pl.read_ndjson(lines, schema=self.schema)
            header = False
            yield from frame.iter_slices(CHUNK_ROWS)


def _whole_lines(path: Path, *, quotes: bool) -> Iterator[bytes]:
    """The file in pieces that end with a line; with ``quotes`` a line break inside of them ends none."""
    rest = b""
    with path.open("rb") as file:
        while read := file.read(TEXT_BYTES):
            rest += read
            end = _end_of_lines(rest, quotes=quotes)
            if end:
                yield rest[:end]
                rest = rest[end:]
            elif len(rest) > LONGEST_LINE:
                raise InputProblem(f"{path}: a line is longer than {LONGEST_LINE} bytes, or a quote is not closed.")
    if rest:
        yield rest


def _end_of_lines(text: bytes, *, quotes: bool) -> int:
    """Where the last whole line of a text ends, 0 if there is none."""
    end = text.rfind(b"\n") + 1
    open_quotes = text.count(b'"', 0, end) if quotes else 0
    while open_quotes % 2 and end:
        before = text.rfind(b"\n", 0, end - 1) + 1
        open_quotes -= text.count(b'"', before, end)
        end = before
    return end


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        raise InputProblem(f"{path}: cannot be read: {' '.join(str(error).split())}") from error

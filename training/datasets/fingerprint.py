"""A SHA-256 over the content of a data set: equal rows give equal fingerprints, whatever file they came from."""

import hashlib
from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bundle.behaviours import Behaviours


def fingerprint(tables: Mapping[str, pl.DataFrame], behaviours: Behaviours, split: NDArray[np.int8]) -> str:
    """Digest of tables (columns by name, rows in order), histories and split.

    Only values enter: neither column order, nor file names, nor the version of a library.
    """
    digest = hashlib.sha256(b"ctrlift data 1")
    for table in sorted(tables):
        frame = tables[table]
        digest.update(f"\0{table}:{len(frame)}".encode())
        for column in sorted(frame.columns):
            digest.update(f"\0{column}".encode())
            _column(digest, frame[column])
    for array in (behaviours.start, behaviours.stop):
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    digest.update(np.ascontiguousarray(behaviours.events).tobytes())
    digest.update(split.tobytes())
    return digest.hexdigest()


def _column(digest: "hashlib._Hash", column: pl.Series) -> None:
    if isinstance(column.dtype, pl.List):
        digest.update(b"lists")
        _column(digest, column.list.len().fill_null(0).cast(pl.Int64))
        _column(digest, column.explode(empty_as_null=False, keep_nulls=False))
        return
    if column.dtype == pl.String:
        lengths = column.str.len_bytes().cast(pl.Int64).fill_null(-1)
        digest.update(b"texts" + lengths.to_numpy().astype("<i8").tobytes())
        digest.update("".join(column.drop_nulls().to_list()).encode())
        return
    digest.update(b"numbers" + column.cast(pl.Float64).to_numpy().astype("<f8").tobytes())

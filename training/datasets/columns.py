"""Polars columns to the raw numpy columns that the bundle encodes. Each distinct text is hashed once."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bundle.columns import Column, raw_column
from bundle.errors import FeatureError
from bundle.ids import id64_column
from bundle.schema import IdFeature, NumberFeature
from training.errors import DataError


def hashed(texts: pl.Series) -> NDArray[np.uint64]:
    """Id64 of a text column (N,); null becomes the missing id."""
    codes, distinct = _factorise(texts)
    return id64_column(distinct)[codes]


def feature_column(feature: IdFeature | NumberFeature, values: pl.Series, file: str) -> Column:
    """A column of a file as the encoder takes it: ids (N,) or (N, W) uint64, numbers (N,) float64.

    Raises:
        DataError: naming the file, the column and the row of a value of another type.
    """
    try:
        if isinstance(feature, NumberFeature):
            return raw_column(feature, values.cast(pl.Float64).to_numpy())
        if isinstance(values.dtype, pl.List):
            return raw_column(feature, values.to_list())
        codes, distinct = _factorise(values)
        return np.asarray(raw_column(feature, distinct)[codes])
    except FeatureError as error:
        problem = error.problems[0]
        raise DataError(f"{file}, column {feature.name!r}: {problem.message} (at {problem.pointer})") from error


def _factorise(texts: pl.Series) -> tuple[NDArray[np.int64], list[Any]]:
    """Codes (N,) into the list of distinct values."""
    if not len(texts):
        return np.zeros(0, dtype=np.int64), []
    frame = texts.cast(pl.String).alias("text").to_frame()
    distinct = frame.unique(maintain_order=True).with_row_index("code")
    joined = frame.join(distinct, on="text", how="left", nulls_equal=True, maintain_order="left")
    return joined["code"].to_numpy().astype(np.int64), distinct["text"].to_list()

"""Ready-made rows of MovieLens-1M: one rating of each user, with up to ten earlier films that the user liked.

The rows were made for a tutorial and are small: 4,832 to train and 1,208 to test, of different users. Histories have
no times; each film is put one second before the next, the last one a second before the row.

`likes` counts the training rows that have the row's film in their history, the row itself left out. It is made of
histories and not of labels, so it tells nothing about the row's own.
"""

from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from bundle.ids import id64_column
from training.config import TrainingConfig
from training.config_text import suggestion
from training.datasets.split import SplitCodes
from training.datasets.study import found, found_csv
from training.datasets.tables import RowLists, Tables, declared_columns
from training.errors import ConfigError, DataError

NAME: Final = "movielens-1m-rows"
_IDS: Final = {"user": "userId", "item": "movieId", "time": "timestamp"}
_COLUMNS: Final = ("gender", "age", "occupation", "zipCode", "genres", "release_year", "decade", "likes")
_LISTS: Final = RowLists(item="history_items", time="history_times", type=None, value=None)
_VALID_IN: Final = 8  # one user of eight validates


def complete(folder: Path) -> bool:
    """Whether a folder holds both files."""
    return all(found(folder, name) is not None for name in ("train.csv", "test.csv"))


def load(folder: Path, config: TrainingConfig) -> Tables:
    """Rows with the columns that the declaration names; one training user of eight, by hash, validates.

    Raises:
        ConfigError: if the declaration names a column that the rows do not have.
        DataError: if a file cannot be read.
    """
    features = config.features
    for role, column in _IDS.items():
        if getattr(features.ids, role) != column:
            raise ConfigError(f"key ids.{role}: {NAME} calls this column {column!r}")
    if list(features.label.values()) != ["label"]:
        raise ConfigError(f"key label: {NAME} has the one label 'label'")
    wanted = declared_columns(features)
    names = [name for place in ("user", "item", "row") for name in wanted[place]]
    for name in names:
        if name not in _COLUMNS:
            raise ConfigError(f"{NAME} has no column {name!r}{suggestion(name, _COLUMNS)}")
    rows, split = read_rows(folder)
    kept = [*_IDS.values(), "label", _LISTS.item, _LISTS.time, *names]
    return Tables(
        name=NAME,
        rows=rows.select(*dict.fromkeys(kept)),
        lists=_LISTS,
        split=split,
        files={"rows": f"{folder} (train.csv and test.csv)"},
    )


def read_rows(folder: Path) -> tuple[pl.DataFrame, SplitCodes]:
    """The rows of both files with everything derived from them, and their split.

    Raises:
        DataError: if a file cannot be read.
    """
    frames = [found_csv(folder, name, NAME) for name in ("train.csv", "test.csv")]
    try:
        rows = pl.concat(
            [frame.with_columns(pl.col("userId", "movieId", "zipCode").cast(pl.String)) for frame in frames]
        )
        rows = rows.with_columns(
            pl.col("timestamp", "label", "age").cast(pl.Float64),
            pl.col("occupation").cast(pl.String),
            pl.col("genres").str.split("|"),
            pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Float64).alias("release_year"),
            pl.col("histHighRatedMovieIds").cast(pl.String).fill_null("").str.split("|")
            .list.eval(pl.element().filter(pl.element() != "")).alias(_LISTS.item),
        )  # fmt: skip
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{folder}: the files are not those of {NAME}: {str(error).splitlines()[0]}") from error
    hashes = id64_column(rows["userId"].to_list())
    held = np.where(hashes % np.uint64(_VALID_IN) == 0, 1, 0)
    split: SplitCodes = np.where(np.arange(len(rows)) < len(frames[0]), held, 2).astype(np.int8)
    histories = rows[_LISTS.item].to_list()
    times = [
        [float(ts - back) for back in range(len(items), 0, -1)]
        for ts, items in zip(rows["timestamp"].to_list(), histories, strict=True)
    ]
    return rows.with_columns(
        pl.Series(_LISTS.time, times, dtype=pl.List(pl.Float64)),
        pl.Series("likes", likes(rows["movieId"].to_list(), histories, split)),
        (pl.col("release_year") // 10 * 10).cast(pl.Int64).cast(pl.String).alias("decade"),
    ), split


def likes(films: list[str], histories: list[list[str]], split: SplitCodes) -> list[float]:
    """For every row, how many other training rows have its film in their history."""
    counts = Counter(
        film for history, code in zip(histories, split.tolist(), strict=True) if code == 0 for film in {*history}
    )
    return [
        float(counts[film] - (code == 0 and film in history))
        for film, history, code in zip(films, histories, split.tolist(), strict=True)
    ]

"""MovieLens-100k as the tables of a declaration: rows of the canonical split, all earlier ratings as behaviours."""

from pathlib import Path
from typing import Final

import polars as pl

from bundle.schema import FeatureSchema
from training.config import TrainingConfig
from training.config_text import suggestion
from training.datasets.movielens import NAME, MovieLens, eligible_rows, read_folder
from training.datasets.tables import Tables, declared_columns
from training.errors import ConfigError

_LABELS: Final = ("liked", "loved")
_LOVED: Final = 5
_IDS = {"user": "user_id", "item": "item_id", "time": "timestamp"}


def load(folder: Path, config: TrainingConfig) -> Tables:
    """Rows and tables with the columns that the declaration names.

    Behaviours are all ratings, each with its rating as value; a declaration that looks at liked films only says so
    with `where = {min_value = 4}`. The rows are the same for both.

    Raises:
        ConfigError: if the declaration names a column that the data set does not have.
        DataError: if the files cannot be read.
    """
    films = read_folder(folder)
    # Of the liked films, those that were loved: the second step of a funnel.
    rows = eligible_rows(films.ratings).with_columns((pl.col("rating") == _LOVED).cast(pl.Int8).alias("loved"))
    _check(config.features, films, rows)
    wanted = declared_columns(config.features)
    row_columns = [*_IDS.values(), *config.features.label.values(), *config.features.weight.values(), *wanted["row"]]
    events = films.ratings.select(
        user="user_id", item="item_id", ts=pl.col("timestamp").cast(pl.Float64), value=pl.col("rating").cast(pl.Float64)
    )
    return Tables(
        name=NAME,
        rows=rows.select(*dict.fromkeys(row_columns)).with_columns(pl.col("timestamp").cast(pl.Float64)),
        items=films.items.select("item_id", *wanted["item"]),
        users=films.users.select("user_id", *wanted["user"]),
        events=events,
        files={table: f"{folder} ({table})" for table in ("rows", "items", "users", "events")},
        notes={"ratings without an earlier liked film, left out": len(films.ratings) - len(rows)},
    )


def _check(features: FeatureSchema, films: MovieLens, rows: pl.DataFrame) -> None:
    for role, column in _IDS.items():
        if getattr(features.ids, role) != column:
            raise ConfigError(f"key ids.{role}: {NAME} calls this column {column!r}")
    wanted = declared_columns(features)
    # The rating of a row is its label spelled otherwise, so it can be neither a feature nor a weight.
    of_row = [name for name in rows.columns if name not in (*_LABELS, "rating")]
    places = (("item", films.items.columns), ("user", films.users.columns), ("row", of_row))
    named = [(name, columns) for place, columns in places for name in wanted[place]]
    named += [(name, of_row) for name in features.weight.values()]
    named += [(name, [*_LABELS]) for name in features.label.values()]
    for name, columns in named:
        if name not in columns:
            raise ConfigError(f"{NAME} has no column {name!r}{suggestion(name, columns)}")

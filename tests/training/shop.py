"""A small shop's log for tests: users with a taste, items with a genre, clicks that follow both."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

TEST_DATA = Path(os.environ.get("CTRLIFT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
ML_100K = TEST_DATA / "ctr" / "ml-100k"

needs_movielens = pytest.mark.skipif(
    not (ML_100K / "ml-100k.inter.gz").exists(), reason="MovieLens-100k is not in CTRLIFT_TEST_DATA"
)

FIRST_SECOND = 1_700_000_000


def shop_log(users: int = 30, rows: int = 600, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Rows, items, users and events; the rows themselves are the events, as in a log of clicks."""
    random = np.random.default_rng(seed)
    user = random.integers(0, users, rows)
    item = random.integers(0, 40, rows)
    genre_of, taste_of = random.integers(0, 4, 40), random.integers(0, 4, users)
    click = random.random(rows) < np.where(genre_of[item] == taste_of[user], 0.7, 0.2)
    frame = pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in user],
            "item_id": item,
            "ts": FIRST_SECOND + np.sort(random.integers(0, 20_000, rows)),
            "click": click.astype(np.int8),
            "buy": np.where(click, random.random(rows) < 0.3, False).astype(np.int8),
            "hour": random.integers(0, 24, rows),
            "price": random.random(rows).round(2),
        }
    )
    return {
        "rows": frame,
        "items": pl.DataFrame({"item_id": range(40), "genre": [f"g{genre}" for genre in genre_of]}),
        "users": pl.DataFrame(
            {"user_id": [f"u{number}" for number in range(users)], "age": random.integers(18, 80, users)}
        ),
        "events": frame.select("user_id", "item_id", "ts", pl.lit("view").alias("kind"), pl.col("price").alias("paid")),
    }


def write_shop(folder: Path, tables: dict[str, pl.DataFrame], suffix: str = "parquet") -> None:
    """The tables as files of one kind."""
    for name, frame in tables.items():
        if suffix == "parquet":
            frame.write_parquet(folder / f"{name}.parquet")
        else:
            frame.write_csv(folder / f"{name}.{suffix}", separator="\t" if suffix == "tsv" else ",")


def shop_mapping(suffix: str = "parquet", **data: Any) -> dict[str, Any]:
    """A configuration for the shop's files, as parsed TOML; `data` replaces keys of [data] (None removes them)."""
    section: dict[str, Any] = {name: f"{name}.{suffix}" for name in ("rows", "items", "users", "events")}
    section |= {"event_type": "kind", "event_value": "paid", **data}
    return {
        "label": {"ctr": "click"},
        "ids": {"user": "user_id", "item": "item_id", "time": "ts", "group": "user_id"},
        "feature": [
            {"name": "age", "kind": "number", "side": "user"},
            {"name": "hour", "kind": "id", "side": "context"},
            {"name": "item_id", "kind": "id", "side": "candidate", "table": "item"},
            {"name": "genre", "kind": "id", "side": "candidate"},
            {"name": "price", "kind": "number", "side": "candidate", "per_row": True},
            {"name": "hist_item", "kind": "sequence", "of": "item_id", "table": "item", "max_len": 10},
            {"name": "hist_genre", "kind": "sequence", "of": "genre", "max_len": 10},
            {"name": "views", "kind": "history", "stat": "count"},
            {"name": "genre_share", "kind": "history", "stat": "share", "match": "genre"},
        ],
        "data": {key: value for key, value in section.items() if value is not None},
        "bundle": {"name": "shop"},
    }

"""A tiny synthetic data set with a field of every kind, and configurations that train on it in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from training.config import TrainingConfig

USERS, ITEMS, ROWS = 48, 30, 900
GENRES = ("action", "comedy", "drama", "horror")
START = 1_600_000_000


def write_tiny_data(folder: Path, seed: int = 5) -> None:
    """Rows, items, users and a behaviour log as Parquet. A click follows the user's taste and the item's quality."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    genres = [sorted(generator.choice(GENRES, size=generator.integers(1, 3), replace=False)) for _ in range(ITEMS)]
    quality = generator.normal(size=ITEMS)
    taste = generator.normal(size=(USERS, len(GENRES)))
    pl.DataFrame(
        {
            "item_id": [f"i{item}" for item in range(ITEMS)],
            "genres": genres,
            "price": np.where(generator.random(ITEMS) < 0.1, np.nan, generator.lognormal(size=ITEMS)),
        }
    ).write_parquet(folder / "items.parquet")
    pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in range(USERS)],
            "age": generator.integers(18, 70, size=USERS).astype(float),
            "city": [str(city) for city in generator.choice(["oslo", "lima", "pune"], size=USERS)],
        }
    ).write_parquet(folder / "users.parquet")
    users, items = generator.integers(0, USERS, size=ROWS), generator.integers(0, ITEMS, size=ROWS)
    times = START + np.sort(generator.integers(0, 30 * 86_400, size=ROWS))
    liking = np.array(
        [taste[u, [GENRES.index(g) for g in genres[i]]].mean() for u, i in zip(users, items, strict=True)]
    )
    logits = 1.5 * liking + quality[items] - 0.3
    click = generator.random(ROWS) < 1 / (1 + np.exp(-logits))
    rows = {
        "user_id": [f"u{user}" for user in users],
        "item_id": [f"i{item}" for item in items],
        "ts": times,
        "hour": (times // 3600 % 24).astype(float),
        "position": generator.integers(0, 5, size=ROWS).astype(float),
        "click": click.astype(int),
    }
    pl.DataFrame(rows).write_parquet(folder / "rows.parquet")
    pl.DataFrame(
        {
            "user_id": rows["user_id"],
            "item_id": rows["item_id"],
            "ts": times,
            "kind": np.where(click, "click", "view"),
            "rating": np.where(generator.random(ROWS) < 0.2, np.nan, np.round(np.clip(3 + logits, 1, 5))),
        }
    ).write_parquet(folder / "events.parquet")


def tiny_mapping(data: Path, network: str = "dien", **train: Any) -> dict[str, Any]:
    """A configuration as TOML would give it; keywords go to [train]."""

    def number(name: str, side: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "kind": "number", "side": side, "encoder": {"type": "standardise"}, **more}

    def sequence(name: str, of: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "kind": "sequence", "of": of, "max_len": 8, **more}

    return {
        "label": {"ctr": "click"},
        "ids": {"user": "user_id", "item": "item_id", "time": "ts"},
        "bundle": {"name": f"tiny-{network}"},
        "feature": [
            number("age", "user"),
            {"name": "city", "kind": "id", "side": "user"},
            number("hour", "context"),
            {"name": "item_id", "kind": "id", "side": "candidate", "table": "item"},
            {"name": "genres", "kind": "id", "side": "candidate", "table": "genre", "max_values": 2},
            number("price", "candidate", missing_flag=True),
            number("position", "candidate", per_row=True),
            sequence("hist_item", "item_id", table="item"),
            sequence("hist_genres", "genres", table="genre"),
            sequence("hist_kind", "type"),
            sequence("hist_rating", "value", encoder={"type": "standardise"}),
            {"name": "seen", "kind": "history", "stat": "count", "encoder": {"type": "log"}},
            {"name": "genre_share", "kind": "history", "stat": "share", "match": "genres"},
        ],
        "group": [
            {
                "name": "items",
                "gru": "AUGRU",
                "pairs": [
                    {"candidate": "item_id", "history": "hist_item"},
                    {"candidate": "genres", "history": "hist_genres"},
                ],
                "extras": ["hist_kind", "hist_rating"],
            }
        ],
        "data": {
            "rows": str(data / "rows.parquet"),
            "items": str(data / "items.parquet"),
            "users": str(data / "users.parquet"),
            "events": str(data / "events.parquet"),
            "event_type": "kind",
            "event_value": "rating",
        },
        "model": {
            "network": network,
            "embedding_size": 4,
            "mlp_hidden_layers": [8],
            "attention": {"hidden_layers": [6]},
        },
        "train": {"epochs": 2, "batch_size": 64, "learning_rate": 0.01, "sequence_dropout": 0.1, **train},
    }


def tiny_config(data: Path, network: str = "dien", **train: Any) -> TrainingConfig:
    """The same, checked."""
    return TrainingConfig.from_mapping(tiny_mapping(data, network, **train))


def changed(mapping: Mapping[str, Any], **sections: Mapping[str, Any]) -> TrainingConfig:
    """A configuration with some keys of some sections replaced."""
    merged = {name: {**mapping.get(name, {}), **values} for name, values in sections.items()}
    return TrainingConfig.from_mapping({**mapping, **merged})

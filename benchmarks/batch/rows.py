"""Rows to score as a team's files have them: users with histories of items, and candidates for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.serving.speed_config import CONTEXT, NOW, item_names
from cli.batch import past

ITEMS: Final = 50_000
STEPS: Final = 50
_MONTH_S: Final = 30 * 86_400


def write_rows(path: Path, users: int, candidates: int, seed: int = 0) -> None:
    """A Parquet file of users with a full history in list columns, each with so many candidates."""
    rng = np.random.default_rng(seed)
    names = np.array(item_names(ITEMS))
    row = np.arange(users).repeat(candidates)
    # Popular items come up more often than others, in histories and among candidates.
    past_items = names[(ITEMS * rng.random((users, STEPS)) ** 3).astype(np.int64)]
    past_times = np.sort(rng.integers(NOW - _MONTH_S, NOW, (users, STEPS)), axis=1)
    columns: dict[str, Any] = {
        "user_id": pl.Series(row).cast(pl.String),
        "item_id": names[(ITEMS * rng.random(len(row)) ** 3).astype(np.int64)].tolist(),
        "ts": np.full(len(row), float(NOW)),
        **{name: rng.normal(size=users)[row] for name in CONTEXT},
        past.ITEM: pl.Series(past_items.tolist()).gather(row),
        past.TIME: pl.Series(past_times.tolist()).gather(row),
    }
    pl.DataFrame(columns).write_parquet(path)


def peer_arrays(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """A network's inputs of U users and C candidates as other libraries take them: every candidate a row of its own."""
    candidates = inputs["candidate_ids"].shape[1]
    ids = inputs["candidate_ids"].reshape(-1, 2)
    past_ids = inputs["behaviour_ids"].repeat(candidates, axis=0)
    return {
        "item": ids[:, 0],
        "category": ids[:, 1],
        "hist_item": np.ascontiguousarray(past_ids[..., 0]),
        "hist_category": np.ascontiguousarray(past_ids[..., 1]),
        "length": inputs["behaviour_mask"][..., 0].sum(axis=1).repeat(candidates),
        "context": inputs["user_numbers"].repeat(candidates, axis=0),
    }

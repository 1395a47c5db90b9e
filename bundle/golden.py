"""Golden rows: raw requests with the logits and scores that training computed, replayed before any traffic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bundle.arrays import read_npz, write_npz
from bundle.request import ScoreQuery

GOLDEN_FILE: Final = "golden.npz"


@dataclass(frozen=True, slots=True)
class GoldenRow:
    """One request that needs no store, and what it must give.

    Attributes:
        logits: (C, K) float64, raw logits of the graph.
        scores: by task, (C,) float64 corrected probabilities.
    """

    query: ScoreQuery
    logits: NDArray[np.float64]
    scores: Mapping[str, NDArray[np.float64]]


def write_golden(path: Path, rows: Sequence[GoldenRow], tasks: Sequence[str]) -> None:
    """Write golden rows; slates of different length are padded with NaN.

    Raises:
        ValueError: if a query leaves its behaviours to the store, or shapes do not fit.
    """
    widest = max((len(row.query.candidates) for row in rows), default=0)
    logits = np.full((len(rows), widest, len(tasks)), np.nan)
    scores = np.full_like(logits, np.nan)
    for place, row in enumerate(rows):
        count = len(row.query.candidates)
        if row.query.behaviours is None:
            raise ValueError("a golden query must carry its behaviours; a store would answer differently later")
        if row.logits.shape != (count, len(tasks)):
            raise ValueError(f"golden logits {row.logits.shape} do not fit {count} candidates x {len(tasks)} tasks")
        logits[place, :count] = row.logits
        scores[place, :count] = np.stack([row.scores[task] for task in tasks], axis=-1)
    requests = [row.query.to_json().encode() for row in rows]
    arrays: dict[str, NDArray[Any]] = {
        "requests": np.array(requests, dtype=f"S{max(map(len, requests), default=1)}"),
        "logits": logits,
        "scores": scores,
    }
    write_npz(path, arrays)


def read_golden(path: Path, tasks: Sequence[str]) -> list[GoldenRow]:
    """Read what `write_golden` wrote.

    Raises:
        ValueError: if the file is damaged or is for other tasks.
    """
    arrays = read_npz(path)
    try:
        requests, logits, scores = arrays["requests"], arrays["logits"], arrays["scores"]
    except KeyError as error:
        raise ValueError(f"{path.name}: lacks {error}") from error
    if requests.dtype.kind != "S" or logits.ndim != 3 or scores.shape != logits.shape:
        raise ValueError(f"{path.name}: has arrays of another shape")
    if logits.shape[0] != len(requests) or logits.shape[2] != len(tasks):
        raise ValueError(f"{path.name}: does not hold {len(tasks)} tasks for each request")
    rows = []
    for place, request in enumerate(requests.tolist()):
        query = ScoreQuery.from_json(request.decode("utf-8"))
        count = len(query.candidates)
        if count > logits.shape[1]:
            raise ValueError(f"{path.name}: a request has more candidates than logits")
        by_task = {task: scores[place, :count, column] for column, task in enumerate(tasks)}
        rows.append(GoldenRow(query, logits[place, :count], by_task))
    return rows

"""Test rows posted to the running service give the logits that training computes offline.

    python -m benchmarks.parity.replay --run demo/run --bundles demo/bundles

A real service process with the embedded Valkey server: all behaviours and user features are posted, then test rows of
every test user with the row's own ``ts``, and requests of users that nobody has seen. The histories come from the
store; an answer that was made without it counts as a failure.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.record import write_record
from benchmarks.serving.process import service_process
from training.datasets import Part, fetch
from training.datasets.movielens import MovieLens, read_folder
from training.encoded import encode_part, predict_logits
from training.evaluate import TrainedRun, open_trained

ROWS = 1000
STRANGERS = 20
BATCH = 1000
USER_FEATURES = ("age", "gender", "occupation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("demo/run"))
    parser.add_argument("--bundles", type=Path, default=Path("demo/bundles"))
    arguments = parser.parse_args()
    opened = open_trained(arguments.run)
    chosen = opened.dataset.part("test").take(spread_over_users(opened.dataset.part("test")))
    strangers = chosen.take(np.arange(STRANGERS)).without_history()
    films = read_folder(fetch("movielens-100k", None))
    with tempfile.TemporaryDirectory(prefix="ctrlift-replay-") as scratch:
        settings = {"models.dir": arguments.bundles.resolve(), "store.url": f"embedded://{scratch}/store"}
        with (
            service_process(Path(scratch), settings) as service,
            httpx.Client(base_url=service.url, timeout=30) as client,
        ):
            fill(client, films)
            known = [post(client, body(chosen, row, str(chosen.user_ids[row]))) for row in range(len(chosen))]
            features = {user["user_id"]: user for user in films.users.iter_rows(named=True)}
            unknown = [post(client, stranger(chosen, row, features)) for row in range(STRANGERS)]
    results = {
        "test_rows": compare(known, offline(opened, chosen)),
        "users": len(set(chosen.user_ids.to_list())),
        "strangers": compare(unknown, offline(opened, strangers)),
    }
    print(results)
    write_record("parity-replay", results)


def spread_over_users(part: Part) -> NDArray[np.int64]:
    """Rows of all users in turn, as many as wanted, in the order of the split."""
    users = part.users
    order = np.argsort(users, kind="stable")
    counts = np.unique(users[order], return_counts=True)[1]
    turn = np.concatenate([np.arange(count) for count in counts])
    return np.sort(order[np.argsort(turn, kind="stable")][:ROWS])


def fill(client: httpx.Client, films: MovieLens) -> None:
    """Every rating as a behaviour, every user's features."""
    ratings = films.ratings.rename({"timestamp": "ts", "rating": "value"}).select("user_id", "item_id", "ts", "value")
    for events in slices(ratings):
        accepted = client.post("/behaviours", json={"events": events}).raise_for_status().json()
        assert accepted["accepted"] + accepted["duplicates"] == len(events)
    users = films.users.select("user_id", pl.struct(USER_FEATURES).alias("features"))
    for some in slices(users):
        client.post("/users", json={"users": some}).raise_for_status()


def slices(frame: pl.DataFrame) -> Iterator[list[dict[str, Any]]]:
    for first in range(0, len(frame), BATCH):
        yield frame.slice(first, BATCH).to_dicts()


def body(part: Part, row: int, user: str) -> dict[str, Any]:
    return {
        "user_id": user,
        "candidates": [str(part.item_ids[row])],
        "ts": int(part.rows.time[row]),
        "raw": True,
    }


def stranger(part: Part, row: int, features: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A user without any history who looks like the row's user."""
    known = features[str(part.user_ids[row])]
    return {
        **body(part, row, f"stranger-{row}"),
        "user_features": {name: known[name] for name in USER_FEATURES},
    }


def post(client: httpx.Client, request: dict[str, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = client.post("/score", json=request).raise_for_status().json()
    return reply


def offline(opened: TrainedRun, part: Part) -> NDArray[np.float64]:
    tasks = opened.config.tasks
    return predict_logits(opened.network, encode_part(opened.encoder, part, tasks, dict.fromkeys(tasks, 1.0)))


def compare(replies: Sequence[dict[str, Any]], expected: NDArray[np.float64]) -> dict[str, Any]:
    got = np.array([reply["logits"]["ctr"][0] for reply in replies])
    return {
        "requests": len(replies),
        "from_store": sum(reply["behaviours"]["source"] == "store" for reply in replies),
        "degraded": sum(bool(reply["degraded"]) for reply in replies),
        "with_history": sum(reply["behaviours"]["length"] > 0 for reply in replies),
        "largest_difference": float(np.abs(got - expected[:, 0]).max()),
    }


if __name__ == "__main__":
    main()

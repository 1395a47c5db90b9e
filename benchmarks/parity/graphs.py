"""Logits of trained weights: eager = TorchScript = ONNX, and a slate = its single candidates = the offline rows.

    python -m benchmarks.parity.graphs --run demo/run --bundles demo/bundles

Every combination of (U, C), history and T is built from real test rows. Histories are cut to 0, 1 or T steps and then
padded to T, so that the padding is part of the question.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import write_record
from bundle.columns import Rows
from bundle.loading import open_bundle
from bundle.store import ModelStore
from training.encoded import encode_part, predict_logits
from training.evaluate import TrainedRun, open_trained
from training.parity import eager_logits, open_graph

Arrays = dict[str, NDArray[Any]]
BLOCKS = ((1, 1), (1, 7), (1, 100), (3, 5))
STEPS = (1, 20, 50)
SLATE = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("demo/run"))
    parser.add_argument("--bundles", type=Path, default=Path("demo/bundles"), help="the newest version is compared")
    arguments = parser.parse_args()
    opened = open_trained(arguments.run)
    bundle = open_bundle(ModelStore(arguments.bundles).resolve(opened.run.index().bundle_name))
    graphs = {kind: open_graph(kind, bundle.graph_path(kind)) for kind in ("onnx", "torchscript")}
    spread = test_spread(opened)
    cases = [case for steps in STEPS for case in cases_of(opened, steps)]
    found = []
    for name, arrays in cases:
        expected = eager_logits(opened.network, arrays)
        differences = {kind: float(np.abs(graph(arrays) - expected).max()) for kind, graph in graphs.items()}
        found.append({"case": name, **differences})
        print(name, *(f"{kind} {value:.2e}" for kind, value in differences.items()))
    slate = slate_differences(opened, graphs["onnx"])
    print(f"standard deviation of the test logits {spread:.3f}; slate {slate}")
    worst = {kind: max(row[kind] for row in found) for kind in graphs}
    print("largest difference:", worst)
    write_record("parity-graphs", {"logit_sd": spread, "largest": worst, "slate": slate, "cases": found})


def test_spread(opened: TrainedRun) -> float:
    """Standard deviation of the logits of the whole test split."""
    tasks = opened.config.tasks
    encoded = encode_part(opened.encoder, opened.dataset.part("test"), tasks, dict.fromkeys(tasks, 1.0))
    return float(predict_logits(opened.network, encoded).std())


def cases_of(opened: TrainedRun, steps: int) -> list[tuple[str, Arrays]]:
    """Blocks with histories of 0, 1 and all of ``steps`` steps, and one where they differ by user."""
    cases = []
    for users, candidates in BLOCKS:
        rows = block(opened, users, candidates)
        for history in sorted({0, 1, steps}):
            lengths = np.full(users, history)
            cases.append((f"U{users} C{candidates} T{steps} history {history}", padded(opened, rows, lengths, steps)))
        if users > 1:
            lengths = np.array([0, 1, steps])[:users]
            cases.append((f"U{users} C{candidates} T{steps} mixed", padded(opened, rows, lengths, steps)))
    return cases


def block(opened: TrainedRun, users: int, candidates: int) -> Rows:
    """Test rows of different users with at least 50 behaviours, each with many candidates."""
    part = opened.dataset.part("test")
    long = np.flatnonzero(part.rows.behaviours.lengths >= max(STEPS))
    _, first = np.unique(part.users[long], return_index=True)
    rows = part.rows.take(long[np.sort(first)][:users])
    items = np.unique(part.rows.items)[: users * candidates].reshape(users, candidates)
    return Rows(time=rows.time, user=rows.user, items=items, candidate={}, behaviours=rows.behaviours)


def padded(opened: TrainedRun, rows: Rows, lengths: NDArray[np.int64], steps: int) -> Arrays:
    """The rows with their newest ``lengths`` behaviours, right padded to ``steps``."""
    behaviours = rows.behaviours
    cut = type(behaviours)(events=behaviours.events, start=behaviours.stop - lengths, stop=behaviours.stop)
    arrays = opened.encoder.encode(
        Rows(time=rows.time, user=rows.user, items=rows.items, candidate={}, behaviours=cut)
    ).take()
    for name in ("behaviour_ids", "behaviour_numbers", "behaviour_mask"):
        missing = steps - arrays[name].shape[1]
        arrays[name] = np.pad(arrays[name], ((0, 0), (0, max(0, missing)), (0, 0)))
    return arrays


def slate_differences(opened: TrainedRun, graph: Any) -> dict[str, float]:
    """One user with a slate against single requests and against the rows of an offline batch."""
    slate = block(opened, 1, SLATE)
    together = graph(opened.encoder.encode(slate).take())[0]
    singles = [
        graph(opened.encoder.encode(with_items(slate, slate.items[:, place : place + 1])).take())[0, 0]
        for place in range(SLATE)
    ]
    repeated = slate.take(np.zeros(SLATE, dtype=np.int64))
    batch = eager_logits(opened.network, opened.encoder.encode(with_items(repeated, slate.items.T)).take())[:, 0]
    return {
        "singles": float(np.abs(np.array(singles) - together).max()),
        "offline_batch": float(np.abs(batch - together).max()),
    }


def with_items(rows: Rows, items: NDArray[np.uint64]) -> Rows:
    return Rows(time=rows.time, user=rows.user, items=items, candidate={}, behaviours=rows.behaviours)


if __name__ == "__main__":
    main()

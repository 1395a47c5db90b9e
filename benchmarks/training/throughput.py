"""Training throughput of the DIEN here against deepctr-torch's DIEN, on the same MovieLens rows.

Only training steps are timed: forward, backward and optimiser step over batches that lie ready in memory. One thread
each; the two sides take turns, so that whatever else the machine does hits both. What is the same: the rows and their
order, the drawn negatives, embeddings of 16, the newest 20 behaviours, AUGRU, the attention's (64, 16) and the top
network's (256, 128), the auxiliary loss with weight 0.5, Adam. What differs is each side's own way to compute it.

The peer needs an environment of its own, because it pins nothing and asks for packages that it does not declare:

    python3.11 -m venv peer && peer/bin/pip install torch==2.13.0 requests deepctr-torch==0.3.0

Run: ``python -m benchmarks.training.throughput --peer-python peer/bin/python``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import write_record
from training.batches import Batch
from training.config import TrainingConfig
from training.job import Job, build_job
from training.objectives.click import total_loss, weighted_bce
from training.preparation import open_run, prepare

HISTORY, WIDTH, ALPHA = 20, 16, 0.5
OUR_BATCH, PEER_BATCHES = 256, (256, 1024, 4096)
ROWS_A_ROUND = 16_384
WORKER = Path(__file__).with_name("deepctr_worker.py")


def config(batch_size: int, data: Path) -> TrainingConfig:
    feature = [
        {"name": "age", "kind": "number", "side": "user", "encoder": {"type": "standardise"}},
        {"name": "gender", "kind": "id", "side": "user"},
        {"name": "occupation", "kind": "id", "side": "user"},
        {"name": "item_id", "kind": "id", "side": "candidate", "table": "item"},
        {"name": "hist_item", "kind": "sequence", "of": "item_id", "table": "item", "max_len": HISTORY},
    ]
    group = {"name": "g", "gru": "AUGRU", "pairs": [{"candidate": "item_id", "history": "hist_item"}]}
    return TrainingConfig.from_mapping(
        {
            "label": {"ctr": "liked"},
            "ids": {"user": "user_id", "item": "item_id", "time": "timestamp"},
            "bundle": {"name": "throughput"},
            "feature": feature,
            "group": [group],
            "data": {"dataset": "movielens-100k", "path": str(data)},
            "model": {
                "network": "dien",
                "embedding_size": WIDTH,
                "mlp_hidden_layers": [256, 128],
                "mlp_activation": "relu",
                "attention": {"hidden_layers": [64, 16], "activation": "relu"},
            },
            "train": {"batch_size": batch_size, "optimizer": "adam", "auxiliary_alpha": ALPHA, "threads": 1},
        }
    )


@dataclass
class Ours:
    """Our side: the network and batches of the real loop."""

    job: Job
    batches: list[Batch]

    @classmethod
    def build(cls, batch_size: int, data: Path, folder: Path) -> Ours:
        """Full batches of one epoch, in the order that the loop would take them."""
        settings = config(batch_size, data)
        run = open_run(settings, folder / f"run-{batch_size}", False, None)
        job = build_job(settings, run, prepare(settings, run))
        job.forward.train()
        order = job.data.batches.order(0)
        # Full batches only, so that both sides see the same number of rows a step.
        full = [rows for rows in order if len(rows) == batch_size][: max(1, ROWS_A_ROUND // batch_size)]
        return cls(job, [job.data.batches.build(rows, 0, number) for number, rows in enumerate(full)])

    @property
    def rows(self) -> int:
        """Rows of one round."""
        return sum(len(batch) for batch in self.batches)

    def round(self) -> dict[str, float]:
        """Train one pass over the batches."""
        losses = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        for batch in self.batches:
            logits, auxiliary = self.job.forward(batch.inputs, batch.negatives)
            task_losses = weighted_bce(logits, batch.labels, batch.weights)
            losses += task_losses.item() * len(batch)
            self.job.accelerator.backward(total_loss(task_losses, self.job.task_weights, auxiliary, ALPHA))
            self.job.optimizer.step()
            self.job.optimizer.zero_grad(set_to_none=True)
        return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "loss": losses}

    def for_peer(self, file: Path) -> dict[str, int]:
        """Write the same batches as the peer takes them; returns the table sizes."""
        arrays: dict[str, Any] = {"count": np.array(len(self.batches))}
        layout = self.job.data.options["layout"]
        columns = {entry["name"]: entry["column"] for entry in layout["user_ids"]}
        for number, batch in enumerate(self.batches):
            user_ids, user_numbers, candidate_ids, _, behaviour_ids, _, mask = (t.numpy() for t in batch.inputs)
            assert batch.negatives is not None
            history = np.zeros((len(batch), HISTORY), dtype=np.int64)
            negatives = np.zeros_like(history)
            history[:, : behaviour_ids.shape[1]] = behaviour_ids[:, :, 0]
            negatives[:, : behaviour_ids.shape[1]] = batch.negatives.numpy()[:, :, 0]
            named = {
                "item_id": candidate_ids[:, 0, 0],
                "gender": user_ids[:, columns["gender"]],
                "occupation": user_ids[:, columns["occupation"]],
                "age": user_numbers[:, 0],
                "hist_item_id": history,
                "neg_hist_item_id": negatives,
                "length": mask[:, :, 0].sum(axis=1),
                "label": batch.labels.numpy()[:, 0],
            }
            arrays |= {f"{number}.{name}": array for name, array in named.items()}
        np.savez(file, **arrays)
        return {table["name"]: table["rows"] for table in layout["tables"]}


class Peer:
    """The other side, in a process of its own interpreter."""

    def __init__(self, python: str) -> None:
        # Its import looks for a newer release on the network in a thread; nothing it says matters here.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [python, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, command: dict[str, Any]) -> dict[str, float]:
        """Send one command and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"the peer ended with code {self.process.wait()}")

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def rates(rounds: list[dict[str, float]], rows: int) -> dict[str, float]:
    return {
        "rows_per_s": rows / statistics.median(r["wall_s"] for r in rounds),
        "rows_per_cpu_s": rows / statistics.median(r["cpu_s"] for r in rounds),
        "mean_loss_first": rounds[0]["loss"] / rows,
        "mean_loss_last": rounds[-1]["loss"] / rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="interpreter that can import deepctr_torch")
    parser.add_argument("--data", type=Path, default=None, help="folder with MovieLens-100k")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    data = options.data or Path(os.environ.get("CTRLIFT_TEST_DATA", "../shared/data")) / "ctr" / "ml-100k"
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        fixed = Ours.build(OUR_BATCH, data, Path(folder))
        for batch_size in PEER_BATCHES:
            found[str(batch_size)] = compare(fixed, batch_size, data, Path(folder), options.peer_python, options.rounds)
            show(batch_size, found[str(batch_size)])
    best = max(found, key=lambda size: found[size]["deepctr-torch"]["rows_per_cpu_s"])
    summary: dict[str, Any] = {"peer_best_batch": int(best)}
    for name, size in (("same_batch", str(OUR_BATCH)), ("to_peer_best", best)):
        ours, theirs = found[size][f"ctrlift at {OUR_BATCH}"], found[size]["deepctr-torch"]
        summary[f"ratio_{name}_wall"] = ours["rows_per_s"] / theirs["rows_per_s"]
        summary[f"ratio_{name}_cpu"] = ours["rows_per_cpu_s"] / theirs["rows_per_cpu_s"]
    for name, value in summary.items():
        print(f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}")
    print(write_record("training-throughput", {"rounds": options.rounds, "batches": found, **summary}))


def compare(fixed: Ours, batch_size: int, data: Path, folder: Path, python: str, rounds: int) -> dict[str, Any]:
    """Rounds of the peer at a batch size, of this project at the same one and at ``OUR_BATCH``, in turn."""
    torch.manual_seed(0)
    ours = fixed if batch_size == OUR_BATCH else Ours.build(batch_size, data, folder)
    sizes = ours.for_peer(folder / f"{batch_size}.npz")
    peer = Peer(python)
    peer.ask({"batches": f"{folder}/{batch_size}.npz", "sizes": sizes, "width": WIDTH, "history": HISTORY})
    series: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds + 1):  # the first one warms up
        series.setdefault(f"ctrlift at {OUR_BATCH}", []).append(fixed.round())
        series.setdefault("deepctr-torch", []).append(peer.ask({"round": True}))
        if ours is not fixed:
            series.setdefault("ctrlift", []).append(ours.round())
    peer.close()
    rows = {"deepctr-torch": ours.rows, "ctrlift": ours.rows, f"ctrlift at {OUR_BATCH}": fixed.rows}
    return {name: rates(done[1:], rows[name]) for name, done in series.items()}


def show(batch_size: int, row: dict[str, Any]) -> None:
    for side, rate in row.items():
        print(
            f"batch {batch_size:>5}  {side:<15} {rate['rows_per_s']:>8,.0f} rows/s "
            f"{rate['rows_per_cpu_s']:>8,.0f} rows/CPU s  "
            f"loss {rate['mean_loss_first']:.3f} -> {rate['mean_loss_last']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

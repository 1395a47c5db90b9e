"""One user and 100 or 500 candidates through ONNX Runtime on one core: our graph against the history-repeated one.

Both graphs hold the same weights. Ours is exported by ``training.graph.onnx``; the other computes everything for every
candidate (``tiled.py``). Their logits are compared first. Then the two take turns, round by round, so that whatever
else the machine does hits both, and the medians of processor time are compared. The slower side is not slow by
accident: its rate of floating-point operations must be a fifth of that of a plain product of matrices in the same
runtime.

Run: ``python -m benchmarks.graph.users_by_candidates``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from benchmarks.graph.rates import multiply_adds, open_graph, plain_product
from benchmarks.graph.tiled import export_tiled
from benchmarks.record import write_record
from benchmarks.serving.speed_config import ATTENTION, CONTEXT, TOP, WIDTH
from models.ctr import DIENConfig, DIENModel
from models.inputs import INPUT_NAMES, IdField, InputLayout, NumberField, Table
from models.layers import AttentionGroup
from training.graph.onnx import export_onnx

ITEMS = 50_000
LARGEST_DIFFERENCE = 1e-5
LEAST_SHARE_OF_PRODUCT_RATE = 0.2
Feed = dict[str, "np.ndarray[Any, Any]"]


def config(activation: str) -> DIENConfig:
    """Item and category of 18 each, H = 36, attention 80-40-1, top network 200-80-1, 16 context numbers."""
    layout = InputLayout(
        tables=(Table(name="item", rows=ITEMS, dim=WIDTH), Table(name="category", rows=500, dim=WIDTH)),
        user_numbers=tuple(NumberField(name=name, column=column) for column, name in enumerate(CONTEXT)),
        candidate_ids=(
            IdField(name="item", table="item", column=0),
            IdField(name="category", table="category", column=1),
        ),
        behaviour_ids=(
            IdField(name="past_item", table="item", column=0),
            IdField(name="past_category", table="category", column=1),
        ),
    )
    pairs = ({"ad": "item", "pos_hist": "past_item"}, {"ad": "category", "pos_hist": "past_category"})
    group = AttentionGroup("history", pairs, ATTENTION, activation)
    return DIENConfig(layout=layout, attention_groups=(group,), mlp_hidden_layers=TOP, embedding_std=1.0)


def example(users: int, candidates: int, steps: int, seed: int) -> tuple[Tensor, ...]:
    """Random inputs with full histories."""
    generator = torch.Generator().manual_seed(seed)

    def ids(*lead: int) -> Tensor:
        items = torch.randint(2, ITEMS, (*lead, 1), generator=generator)
        return torch.cat([items, torch.randint(2, 500, (*lead, 1), generator=generator)], -1)

    return (
        torch.zeros(users, 0, dtype=torch.int64),
        torch.randn(users, len(CONTEXT), generator=generator),
        ids(users, candidates),
        torch.zeros(users, candidates, 0),
        ids(users, steps),
        torch.zeros(users, steps, 0),
        torch.ones(users, steps, 1, dtype=torch.bool),
    )


def repeat_history(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """One user and C candidates as C users with one candidate each."""
    candidates = inputs[2].size(1)
    repeated = [tensor.expand(candidates, *tensor.shape[1:]).contiguous() for tensor in inputs]
    repeated[2], repeated[3] = inputs[2].transpose(0, 1), inputs[3].transpose(0, 1)
    return tuple(repeated)


def runner(session: onnxruntime.InferenceSession, inputs: tuple[Tensor, ...]) -> Callable[[], Any]:
    """A call that runs the graph; inputs that it does not read are left out, as the runtime demands."""
    known = {entry.name for entry in session.get_inputs()}
    feed = {name: tensor.numpy() for name, tensor in zip(INPUT_NAMES, inputs, strict=True) if name in known}
    return lambda: session.run(None, feed)[0]


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of each call, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append((time.process_time() - start) * 1e3)
    return times


class Sides:
    """The two graphs of one activation of the attention, with the network that both hold."""

    def __init__(self, activation: str, steps: int, folder: Path) -> None:
        torch.manual_seed(0)
        self.network = DIENModel(config(activation)).eval()
        self.steps = steps
        shared, tiled = folder / f"{activation}-shared.onnx", folder / f"{activation}-tiled.onnx"
        export_onnx(self.network, shared)
        export_tiled(self.network, tiled, example(3, 1, steps, seed=9))
        self.shared, self.tiled = open_graph(shared), open_graph(tiled)


def measure(sides: Sides, candidates: int, rounds: int) -> dict[str, Any]:
    """One number of candidates: equality, then speed."""
    inputs = example(1, candidates, sides.steps, seed=1)
    ours, other = runner(sides.shared, inputs), runner(sides.tiled, repeat_history(inputs))
    with torch.no_grad():
        expected = sides.network(*inputs)[0].numpy()
    differences = {
        "ours - eager": float(np.abs(ours()[0] - expected).max()),
        "tiled - eager": float(np.abs(other()[:, 0] - expected).max()),
    }
    if max(differences.values()) > LARGEST_DIFFERENCE or expected.std() < 0.1:
        raise RuntimeError(f"the two sides do not give the same logits: {differences}, spread {expected.std():.3f}")
    product, product_size = plain_product(512)
    times = interleaved({"ours": ours, "tiled": other, "product": product}, rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    rate = 2e-6 * multiply_adds(candidates, sides.steps) / medians["tiled"]
    product_rate = 2e-6 * product_size / medians["product"]
    if rate < LEAST_SHARE_OF_PRODUCT_RATE * product_rate:
        raise RuntimeError(
            f"the history-repeated graph must reach a fifth of a product's {product_rate:.0f} GFLOP/s, got {rate:.0f}"
        )
    return {
        "ours_ms": medians["ours"],
        "tiled_ms": medians["tiled"],
        "ratio": medians["tiled"] / medians["ours"],
        "tiled_gflops": rate,
        "product_gflops": product_rate,
        "share_of_product_rate": rate / product_rate,
        "differences": differences,
        "spread_of_logits": float(expected.std()),
    }


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--activations", nargs="+", default=["sigmoid", "prelu", "dice"])
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=200, help="of 100 candidates; fewer with more, in proportion")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for activation in arguments.activations:
            sides = Sides(activation, arguments.steps, Path(folder))
            results[activation] = {
                str(candidates): measure(sides, candidates, max(arguments.rounds * 100 // candidates, 5))
                for candidates in arguments.candidates
            }
    print(f"{'':<16} {'ours ms':>8} {'tiled ms':>9} {'ratio':>6} {'tiled GFLOP/s':>14} {'of product':>11}")
    for activation, by_candidates in results.items():
        for candidates, result in by_candidates.items():
            print(
                f"{activation:<8} x {candidates:<5} {result['ours_ms']:>8.2f} {result['tiled_ms']:>9.2f} "
                f"{result['ratio']:>6.2f} {result['tiled_gflops']:>14.1f} {result['share_of_product_rate']:>11.0%}"
            )
    settings = {"users": 1, "steps": arguments.steps, "rounds": arguments.rounds}
    path = write_record("graph-users-by-candidates", {"settings": settings, "results": results})
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

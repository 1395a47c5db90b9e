"""One user and 100 candidates through ONNX Runtime on one core: our graph against the history-repeated one.

Both graphs hold the same weights. Ours is exported by ``training.graph.onnx``; the other computes everything for every
candidate (``tiled.py``). Their logits are compared first. Then the two take turns, round by round, so that whatever
else the machine does hits both, and the medians are compared. To show that the slower side is not slow by accident,
its rate of floating-point operations is set beside that of a plain product of matrices in the same runtime.

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
import onnx
import onnxruntime
import torch
from torch import Tensor

from benchmarks.graph.tiled import export_tiled
from benchmarks.record import write_record
from models.ctr import DIENConfig, DIENModel
from models.inputs import INPUT_NAMES, IdField, InputLayout, NumberField, Table
from models.layers import AttentionGroup
from training.graph.onnx import export_onnx

WIDTH, CONTEXT_NUMBERS, ITEMS = 18, 16, 50_000
ATTENTION, TOP = (80, 40), (200, 80)
LARGEST_DIFFERENCE = 1e-5
Feed = dict[str, "np.ndarray[Any, Any]"]


def config(activation: str) -> DIENConfig:
    """Item and category of 18 each, H = 36, attention 80-40-1, top network 200-80-1, 16 context numbers."""
    layout = InputLayout(
        tables=(Table(name="item", rows=ITEMS, dim=WIDTH), Table(name="category", rows=500, dim=WIDTH)),
        user_numbers=tuple(NumberField(name=f"context_{i}", column=i) for i in range(CONTEXT_NUMBERS)),
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


def multiply_adds(candidates: int, steps: int) -> int:
    """Of the history-repeated graph: products of matrices only."""
    h = 2 * WIDTH
    attention = 4 * h * ATTENTION[0] + ATTENTION[0] * ATTENTION[1] + ATTENTION[1]
    step = attention + 4 * h * 3 * h  # two GRUs, each an input and a recurrent half
    top = (2 * h + CONTEXT_NUMBERS) * TOP[0] + TOP[0] * TOP[1] + TOP[1]
    return candidates * (steps * step + top)


def example(users: int, candidates: int, steps: int, seed: int) -> tuple[Tensor, ...]:
    """Random inputs with full histories."""
    generator = torch.Generator().manual_seed(seed)

    def ids(*lead: int) -> Tensor:
        items = torch.randint(2, ITEMS, (*lead, 1), generator=generator)
        return torch.cat([items, torch.randint(2, 500, (*lead, 1), generator=generator)], -1)

    return (
        torch.zeros(users, 0, dtype=torch.int64),
        torch.randn(users, CONTEXT_NUMBERS, generator=generator),
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


def open_graph(model: Path | bytes) -> onnxruntime.InferenceSession:
    """A session on one core with every optimisation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options)


def runner(session: onnxruntime.InferenceSession, inputs: tuple[Tensor, ...]) -> Callable[[], Any]:
    """A call that runs the graph; inputs that it does not read are left out, as the runtime demands."""
    known = {entry.name for entry in session.get_inputs()}
    feed = {name: tensor.numpy() for name, tensor in zip(INPUT_NAMES, inputs, strict=True) if name in known}
    return lambda: session.run(None, feed)[0]


def plain_product(size: int) -> tuple[Callable[[], Any], int]:
    """A square product of matrices in the same runtime, and its multiply-adds."""
    left = onnx.helper.make_tensor_value_info("left", onnx.TensorProto.FLOAT, (size, size))
    right = onnx.helper.make_tensor_value_info("right", onnx.TensorProto.FLOAT, (size, size))
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, (size, size))
    node = onnx.helper.make_node("MatMul", ["left", "right"], ["out"])
    made = onnx.helper.make_graph([node], "product", [left, right], [out])
    opsets = [onnx.helper.make_opsetid("", 18)]
    session = open_graph(onnx.helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString())
    feed = {name: np.random.default_rng(0).normal(size=(size, size)).astype(np.float32) for name in ("left", "right")}
    return (lambda: session.run(None, feed)), size**3


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def measure(activation: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One activation of the attention: equality, then speed."""
    torch.manual_seed(0)
    model = DIENModel(config(activation)).eval()
    shared, tiled = folder / f"{activation}-shared.onnx", folder / f"{activation}-tiled.onnx"
    export_onnx(model, shared)
    export_tiled(model, tiled, example(3, 1, arguments.steps, seed=9))
    inputs = example(1, arguments.candidates, arguments.steps, seed=1)
    ours, other = runner(open_graph(shared), inputs), runner(open_graph(tiled), repeat_history(inputs))
    with torch.no_grad():
        expected = model(*inputs)[0].numpy()
    differences = {
        "ours - eager": float(np.abs(ours()[0] - expected).max()),
        "tiled - eager": float(np.abs(other()[:, 0] - expected).max()),
    }
    if max(differences.values()) > LARGEST_DIFFERENCE or expected.std() < 0.1:
        raise RuntimeError(f"the two sides do not give the same logits: {differences}, spread {expected.std():.3f}")
    product, product_size = plain_product(512)
    times = interleaved({"ours": ours, "tiled": other, "product": product}, arguments.rounds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    rate = 2e-6 * multiply_adds(arguments.candidates, arguments.steps) / medians["tiled"]
    product_rate = 2e-6 * product_size / medians["product"]
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
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        results = {name: measure(name, arguments, Path(folder)) for name in arguments.activations}
    header = f"{'activation':<10} {'ours ms':>8} {'tiled ms':>9} {'ratio':>6} {'tiled GFLOP/s':>14} {'of product':>11}"
    print(header)
    for name, result in results.items():
        print(
            f"{name:<10} {result['ours_ms']:>8.2f} {result['tiled_ms']:>9.2f} {result['ratio']:>6.2f} "
            f"{result['tiled_gflops']:>14.1f} {result['share_of_product_rate']:>11.0%}"
        )
    settings = {"users": 1, "candidates": arguments.candidates, "steps": arguments.steps, "rounds": arguments.rounds}
    path = write_record("graph-users-by-candidates", {"settings": settings, "results": results})
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One user and a slate through the graph with compiled operators, beside the whole graph and the history-repeated one.

All hold the same weights, on one thread. Their logits are compared first, then they take turns, round by round, and
what is compared is the processor time of the calling thread. Every instruction set of this processor is measured, and
each stage by itself, which shows where the time goes.

Run: ``python -m benchmarks.graph.kernel``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.graph.rates import open_graph
from benchmarks.graph.tiled import export_tiled
from benchmarks.graph.users_by_candidates import config, example, repeat_history, runner
from benchmarks.record import write_record
from bundle.graph_tables import Graph
from bundle.stages import OPERATORS_FILE, OperatorStage, Stages, parse_parameters
from models.ctr import DIENModel
from models.inputs import INPUT_NAMES
from service.engines.kernel.engine import KernelEngine
from service.engines.kernel.library import instruction_sets, open_library
from training.graph.onnx import export_program, publish
from training.graph.splitting import split

LARGEST_DIFFERENCE = 1e-5
CALLS_A_TURN = 8
_DTYPES = ("int64", "float32", "int64", "float32", "int64", "float32", "bool")


class Sides:
    """The contestants with one set of weights."""

    def __init__(self, activation: str, steps: int, folder: Path) -> None:
        torch.manual_seed(0)
        self.network = DIENModel(config(activation)).eval()
        self.folder = folder
        program = export_program(self.network)
        stages = split(program.model.clone(), folder)
        if stages is None:
            raise RuntimeError("the graph has no operator to cut it around")
        self.stages: Stages = stages
        publish(program, folder / "whole.onnx")
        export_tiled(self.network, folder / "repeated.onnx", example(3, 1, steps, seed=9))
        self.whole, self.repeated = open_graph(folder / "whole.onnx"), open_graph(folder / "repeated.onnx")
        self.engines = {name: self._engine(name) for name in instruction_sets()}

    def _engine(self, instruction_set: str) -> KernelEngine:
        graphs = {file: Graph((self.folder / file).read_bytes()) for file in self.stages.graphs}
        parameters = parse_parameters((self.folder / OPERATORS_FILE).read_bytes(), self.stages)
        declared = dict(zip(INPUT_NAMES, _DTYPES, strict=True))
        return KernelEngine(open_library(None, instruction_set), self.stages, graphs, parameters, declared)

    def calls(self, candidates: int, steps: int) -> dict[str, Callable[[], Any]]:
        """A call of each for the same request, after the logits of all were found to be equal."""
        inputs = example(1, candidates, steps, seed=1)
        arrays = feed(inputs)
        found: dict[str, Callable[[], Any]] = {
            "repeated": runner(self.repeated, repeat_history(inputs)),
            "whole": runner(self.whole, inputs),
            **{name: partial(engine.run, arrays) for name, engine in self.engines.items()},
        }
        with torch.no_grad():
            expected = self.network(*inputs)[0].numpy()
        for name, call in found.items():
            difference = float(np.abs(call().reshape(expected.shape) - expected).max())
            if not difference <= LARGEST_DIFFERENCE or expected.std() < 0.1:
                raise RuntimeError(f"{name} differs from the network by {difference}, spread {expected.std():.3f}")
        return found

    def stage_calls(self, candidates: int, steps: int) -> dict[str, Callable[[], Any]]:
        """A call of each stage of the fastest engine, with what the stages before it made."""
        engine = next(iter(self.engines.values()))
        values: dict[str, NDArray[Any]] = dict(feed(example(1, candidates, steps, seed=1)))
        calls: dict[str, Callable[[], Any]] = {}
        for stage, step in zip(self.stages.stages, engine.steps, strict=True):
            step(values)
            name = stage.operator if isinstance(stage, OperatorStage) else stage.graph
            calls[name] = partial(step, values)
        return calls


def feed(inputs: tuple[torch.Tensor, ...]) -> Mapping[str, NDArray[Any]]:
    """Arrays by input."""
    return {name: tensor.numpy() for name, tensor in zip(INPUT_NAMES, inputs, strict=True)}


def in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median over rounds of a call's milliseconds of processor time.

    A side makes several calls in a turn, as a service does: a single one would mostly find out how long it takes to get
    back what the others pushed out of the caches.
    """
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.thread_time_ns()
            for _ in range(CALLS_A_TURN):
                call()
            spent[name].append((time.thread_time_ns() - start) * 1e-6 / CALLS_A_TURN)
    return {name: statistics.median(values) for name, values in spent.items()}


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--activations", nargs="+", default=["sigmoid", "prelu", "dice"])
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for activation in arguments.activations:
        with tempfile.TemporaryDirectory() as folder:
            sides = Sides(activation, arguments.steps, Path(folder))
            for candidates in arguments.candidates:
                medians = in_turns(sides.calls(candidates, arguments.steps), arguments.rounds)
                stages = in_turns(sides.stage_calls(candidates, arguments.steps), arguments.rounds)
                ratios = {name: medians["repeated"] / value for name, value in medians.items() if name != "repeated"}
                results[f"{activation}-{candidates}"] = {"cpu_ms": medians, "ratios": ratios, "stages_ms": stages}
                shown = "  ".join(f"{name} {medians[name]:.2f} ms ({ratio:.1f}x)" for name, ratio in ratios.items())
                print(f"{activation:<8} {candidates:>4}  repeated {medians['repeated']:.2f} ms  {shown}")
                print(" " * 15 + "  ".join(f"{name} {value:.3f}" for name, value in stages.items()))
    settings = {"users": 1, "steps": arguments.steps, "rounds": arguments.rounds}
    path = write_record("graph-kernel", {"settings": settings, "results": results})
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

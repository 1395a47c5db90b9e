"""The graph of a bundle called without a service around it: the ceiling that serving is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.graph.rates import open_graph
from benchmarks.serving.slates import Slate
from benchmarks.serving.variants import KERNEL, Variant
from bundle.correct import sigmoid
from service.core.version import ServedVersion, load_version
from service.engines.base import Engine
from service.engines.kernel.engine import KernelEngine

Feed = Mapping[str, NDArray[Any]]


class KernelNotUsed(RuntimeError):
    """A bundle that the kernel should run is run without it: its own checks refused it."""


@dataclass(frozen=True, slots=True)
class Direct:
    """An engine with inputs that are ready."""

    version: ServedVersion
    engine: Engine

    def feeds(self, made: Sequence[Slate]) -> list[Feed]:
        """The graph's inputs for some slates."""
        return [dict(self.version.inputs_of(slate.query)) for slate in made]

    def scores(self, feed: Feed) -> NDArray[np.float64]:
        """Probabilities (C,) of the first task, straight from the graph."""
        return sigmoid(self.engine.run(feed)[0, :, 0])

    def calls(self, feeds: Sequence[Feed]) -> Callable[[], object]:
        """A call that runs the next inputs in turn."""
        turns = cycle(feeds)
        return lambda: self.engine.run(next(turns))


def expected(version: ServedVersion, made: Sequence[Slate]) -> list[NDArray[np.float64]]:
    """Scores (C,) of the first task as the scoring core gives them, one a slate."""
    task = version.tasks[0]
    return [version.score(slate.query, None).probabilities[task][0] for slate in made]


def open_direct(bundle: Path, variant: Variant) -> Direct:
    """The bundle's engine on one thread, as the service opens it.

    Raises:
        KernelNotUsed: if the kernel is here and the bundle is served without it.
    """
    version = load_version(bundle, kernel=variant.kernel)
    engine = version._engine
    if (variant == KERNEL) != isinstance(engine, KernelEngine):
        raise KernelNotUsed(f"the compiled kernel is here, but {bundle.name} runs by {type(engine).__name__}")
    return Direct(version, engine)


@dataclass(frozen=True, slots=True)
class Repeated:
    """The history-repeated graph: every candidate a row of its own."""

    session: Any
    names: tuple[str, ...]

    def feed(self, given: Feed) -> dict[str, NDArray[Any]]:
        """One user and C candidates as C users with one candidate each."""
        candidates = given["candidate_ids"].shape[1]
        return {name: repeat(name, given[name], candidates) for name in self.names}

    def scores(self, feed: Feed) -> NDArray[np.float64]:
        """Probabilities (C,)."""
        return sigmoid(self.session.run(None, feed)[0][:, 0, 0])

    def calls(self, feeds: Sequence[Feed]) -> Callable[[], object]:
        """A call that runs the next inputs in turn."""
        turns = cycle(feeds)
        return lambda: self.session.run(None, next(turns))


def open_repeated(path: Path) -> Repeated:
    """A session on one thread with every optimisation."""
    session = open_graph(path)
    return Repeated(session, tuple(given.name for given in session.get_inputs()))


def repeat(name: str, array: NDArray[Any], candidates: int) -> NDArray[Any]:
    """(1, C, ...) as (C, 1, ...) where it is the candidates', else (1, ...) as (C, ...)."""
    if name.startswith("candidate"):
        return np.ascontiguousarray(np.swapaxes(array, 0, 1))
    return np.ascontiguousarray(np.broadcast_to(array, (candidates, *array.shape[1:])))

"""The scores of a chunk, and who computes them: this process or several others beside it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from cli.exits import CheckFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cli.batch.slates import Chunk
    from service.core.version import ServedVersion
    from service.engines.opening import EngineName, KernelChoice


@dataclass(frozen=True)
class Opening:
    """How a process opens the bundle that it scores with."""

    path: Path
    engine: EngineName = "onnx"
    threads: int = 1
    kernel: KernelChoice = "auto"

    def open(self) -> ServedVersion:
        """The verified version.

        Raises:
            bundle.errors.BundleRefused: if the bundle breaks a rule.
        """
        from service.core.version import load_version

        return load_version(self.path, engine=self.engine, threads=self.threads, kernel=self.kernel)


@dataclass(frozen=True)
class Scores:
    """Scores of the N rows of a chunk.

    Attributes:
        columns: p<task> -> (N,) probabilities.
        slates: how many users at a time they belong to.
    """

    columns: dict[str, NDArray[np.float64]]
    slates: int


def score_chunk(version: ServedVersion, chunk: Chunk, *, lost: bool) -> Scores:
    """Score the rows of a chunk, many users at a time.

    Args:
        version: scores and encodes.
        chunk: the rows.
        lost: the store that holds the histories is away; the calibrator for that case applies.

    Raises:
        InputProblem: naming file, column and row.
    """
    import numpy as np

    from cli.batch.slates import longest_history, slates_of

    schema = version.bundle.fitted.schema
    slates = slates_of(chunk, schema)
    columns = {f"p{task}": np.empty(len(chunk.frame)) for task in tasks_of(version)}
    for rows, block in slates.blocks(longest_history(schema)):
        for task, probabilities in version.score_rows(block, without_history=lost).probabilities.items():
            columns[f"p{task}"][rows] = probabilities
    return Scores(columns, slates.runs)


def tasks_of(version: ServedVersion) -> list[str]:
    """The tasks that an answer has: the network's, and clicks that convert where it has both halves."""
    both = ["ctcvr"] if {"ctr", "cvr"} <= set(version.tasks) else []
    return list(dict.fromkeys([*version.tasks, *both]))


def scored(
    chunks: Iterable[Chunk], version: ServedVersion, opening: Opening, *, lost: bool, workers: int
) -> Iterator[tuple[Chunk, Scores]]:
    """Every chunk with its scores, in order; a single chunk is scored here, more of them by worker processes.

    Raises:
        InputProblem: naming file, column and row.
        CheckFailed: if a worker process dies.
    """
    source = iter(chunks)
    first = list(islice(source, 2))
    if workers == 1 or len(first) == 1:
        for chunk in chain(first, source):
            yield chunk, score_chunk(version, chunk, lost=lost)
        return
    # Started anew and not forked: the libraries here have threads, which a fork would leave behind with their locks.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_worker)
    waiting: deque[tuple[Chunk, Future[Scores]]] = deque()
    try:
        for chunk in chain(first, source):
            waiting.append((chunk, pool.submit(_score, opening, chunk, lost)))
            if len(waiting) > 2 * workers:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    except BrokenProcessPool as error:
        raise CheckFailed(
            "a worker process died in the middle of its rows; fewer --workers need less memory."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _next(waiting: deque[tuple[Chunk, Future[Scores]]]) -> tuple[Chunk, Scores]:
    chunk, future = waiting.popleft()
    return chunk, future.result()


@cache
def _opened(opening: Opening) -> ServedVersion:
    return opening.open()


def _score(opening: Opening, chunk: Chunk, lost: bool) -> Scores:
    return score_chunk(_opened(opening), chunk, lost=lost)


def _begin_worker() -> None:
    """One thread a worker, and none that outlives the command."""
    os.environ["POLARS_MAX_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command says that it was interrupted, once
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

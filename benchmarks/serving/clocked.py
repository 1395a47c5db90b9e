"""CPU time of the graph's runs inside a service that is under load, told through a file.

A direct call in another process runs at another time with other caches, so the difference between a request and it is
partly the difference between two moments. Here both are seen in the same requests: what a request costs, and what of it
the run of its graph took.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from service.engines.kernel.engine import KernelEngine
from service.engines.onnx import OnnxEngine

_TOTALS: Final = struct.Struct("<qq")  # nanoseconds of CPU time, runs
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Runs:
    """What a service's graph has taken since it started."""

    cpu_s: float
    count: int


def keep_time(path: str) -> None:
    """Have every engine of this process add its runs' CPU time to a file; one thread may run graphs.

    Args:
        path: of a file that ``new_clock`` has made.
    """
    with Path(path).open("r+b") as file:
        totals = memoryview(mmap.mmap(file.fileno(), _TOTALS.size)).cast("q")
    OnnxEngine.run = _timed(OnnxEngine.run, totals)  # type: ignore[method-assign]
    KernelEngine.run = _timed(KernelEngine.run, totals)  # type: ignore[method-assign]


def new_clock(path: Path) -> Path:
    """A file in which nothing has run yet."""
    path.write_bytes(bytes(_TOTALS.size))
    return path


def read_clock(path: Path) -> Runs:
    """What has run so far."""
    nanoseconds, count = _TOTALS.unpack(path.read_bytes())
    return Runs(nanoseconds / 1e9, count)


def _timed(run: Callable[P, T], totals: memoryview) -> Callable[P, T]:
    def timed(*arguments: P.args, **named: P.kwargs) -> T:
        before = time.thread_time_ns()
        try:
            return run(*arguments, **named)
        finally:
            totals[0] += time.thread_time_ns() - before
            totals[1] += 1

    return timed

"""Sides of a comparison measured in turns, and what their rounds say."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

LEAST_ROUNDS: Final = 5

Measure = Callable[[], float]


def in_turns(sides: Mapping[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Measure each side once a round, so that whatever else the machine does falls on all of them.

    Raises:
        ValueError: for fewer than five rounds: their median would still be that of a disturbance.
    """
    if rounds < LEAST_ROUNDS:
        raise ValueError(f"rounds must be at least {LEAST_ROUNDS}, got {rounds}")
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """One quotient a round.

    Raises:
        ValueError: if the rounds are not equally many.
    """
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


def summary(values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """The median with its rounds."""
    return {"median": round(statistics.median(values), digits), "rounds": [round(value, digits) for value in values]}


def cpu_ms(call: Callable[[], object], slice_s: float) -> Measure:
    """A measure of this process's CPU time a call in ms, from as many calls as fill a slice of time."""
    call()
    started = time.perf_counter()
    call()
    count = max(1, round(slice_s / max(time.perf_counter() - started, 1e-7)))

    def measure() -> float:
        before = time.process_time()
        for _ in range(count):
            call()
        return (time.process_time() - before) / count * 1e3

    return measure

"""Where a fit stands, what is kept of it so that it can go on, and how it went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

State = dict[str, Any]


class Checkpoint(Protocol):
    """Where a fit starts again, and where it leaves its state."""

    def restore(self) -> State | None:
        """What ``save`` was last given, or None for a fresh start."""
        ...

    def save(self, step: int, state: Callable[[], State]) -> None:
        """Told after every epoch and stage; calls ``state`` where it wants to keep it. May raise to end the fit."""
        ...


@runtime_checkable
class RemembersSteps(Protocol):
    """A loss with a state of its own, which a fit that goes on must find again."""

    def state_dict(self) -> State:
        """Tensors and plain values."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Put back what ``state_dict`` gave."""
        ...


@runtime_checkable
class SaysMore(Protocol):
    """A loss that has something to say about its last step."""

    def log_line(self) -> State:
        """Plain values for ``metrics.jsonl``."""
        ...


@dataclass(frozen=True, slots=True)
class StageReport:
    """How one stage went.

    Attributes:
        name: of the stage.
        epochs: that were run.
        best_epoch: whose weights were kept, from 1; the last one where nothing was validated.
        best: their validation loss, or None.
        stopped_early: whether patience ran out.
    """

    name: str
    epochs: int
    best_epoch: int
    best: float | None
    stopped_early: bool


@dataclass(frozen=True, slots=True)
class FitReport:
    """How a plan went: its stages, optimiser steps and seconds."""

    stages: tuple[StageReport, ...]
    steps: int
    seconds: float


@dataclass(slots=True)
class Standing:
    """Where a fit stands. Everything from ``epoch`` to ``rate`` is the stage's own and starts again with each.

    Attributes:
        stage: the stage in progress.
        epoch: its epochs that are over.
        best: lowest validation loss; None before the first validation.
        best_epoch: epochs that were over when it was found.
        stale: validations since then.
        rate: factor on every learning rate.
        step: optimiser steps since the start of the plan.
        seconds: spent so far.
        reports: of the stages that are over.
    """

    stage: int = 0
    epoch: int = 0
    best: float | None = None
    best_epoch: int = 0
    stale: int = 0
    rate: float = 1.0
    step: int = 0
    seconds: float = 0.0
    reports: list[dict[str, Any]] = field(default_factory=list)

"""What a person sees while a network trains: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress(Protocol):
    """Told about every step and every validation."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def step(self, step: int, rows: int, loss: float) -> None:
        """One optimiser step over ``rows`` rows; ``loss`` is the epoch's mean so far."""
        ...

    def validated(self, epoch: int, step: int, loss: float, monitor: str, values: dict[str, float]) -> None:
        """A validation gave these values."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line."""
        ...


class BarProgress:
    """A rich bar with rate, time left, loss and the last monitored value."""

    def __init__(self, console: Console, total_steps: int, start_step: int) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>9}"),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[best]}"),
            console=console,
        )
        self._task = self._bar.add_task("steps", total=total_steps, completed=start_step, rate="", loss=0.0, best="")
        self._rows = 0
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, step: int, rows: int, loss: float) -> None:
        """Advance the bar."""
        self._rows += rows
        seconds = max(time.monotonic() - self._since, 1e-9)
        self._bar.update(self._task, completed=step, rate=f"{self._rows / seconds:,.0f} rows/s", loss=loss)

    def validated(self, epoch: int, step: int, loss: float, monitor: str, values: dict[str, float]) -> None:
        """Print a line above the bar and keep the monitored value in it."""
        self._console.print(validation_line(epoch, step, loss, values))
        self._bar.update(self._task, best=f"{monitor} {values.get(monitor, float('nan')):.4f}")

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text)


class LineProgress:
    """One plain line a validation, and one every ``every_s`` seconds between them."""

    def __init__(self, console: Console, total_steps: int, every_s: float = 10.0) -> None:
        self._console = console
        self._total = total_steps
        self._every_s = every_s
        self._rows = 0
        self._since = self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def step(self, step: int, rows: int, loss: float) -> None:
        """Say where training stands if it has been silent for long."""
        self._rows += rows
        now = time.monotonic()
        if now - self._said >= self._every_s:
            self._said = now
            rate = self._rows / (now - self._since)
            left_s = (self._total - step) * (now - self._since) * rows / max(self._rows, 1)
            self._say(f"step {step}/{self._total} loss {loss:.4f} {rate:,.0f} rows/s, {left_s:.0f} s left")

    def validated(self, epoch: int, step: int, loss: float, monitor: str, values: dict[str, float]) -> None:
        """Say what a validation gave."""
        self._said = time.monotonic()
        self._say(validation_line(epoch, step, loss, values))

    def note(self, text: str) -> None:
        """Say it."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def validation_line(epoch: int, step: int, loss: float, values: dict[str, float]) -> str:
    """One line about one validation."""
    listed = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
    return f"epoch {epoch + 1}  step {step}  loss {loss:.4f}  valid {listed}"


def open_progress(wanted: bool | None, total_steps: int, start_step: int) -> TrainingProgress:
    """The bar where standard error is a terminal (or where ``wanted`` says so), plain lines otherwise."""
    console = Console(stderr=True)
    if console.is_terminal if wanted is None else wanted:
        return BarProgress(console, total_steps, start_step)
    return LineProgress(console, total_steps)

"""What every working route passes: key, drain, deadline, place."""

import asyncio
from collections.abc import Mapping
from time import perf_counter
from types import TracebackType
from typing import Final

from service.api.keys import Keys, Scope
from service.core.admission import Admission
from service.errors import BadHeader, DeadlineExceeded
from service.metrics import Metrics
from service.settings import LimitSettings

DEADLINE_HEADER: Final = "x-request-deadline-ms"


class Gate:
    """Lets a request in, or says why not.

    Args:
        keys: Who may call.
        admission: How many at once.
        limits: The longest deadline.
        metrics: Time spent waiting.
    """

    def __init__(self, keys: Keys, admission: Admission, limits: LimitSettings, metrics: Metrics) -> None:
        self._keys = keys
        self.admission = admission
        self._limits = limits
        self.wait = metrics.stages["wait"]

    @property
    def open(self) -> bool:
        """Whether nobody needs a key."""
        return not self._keys.needed

    def check(self, headers: Mapping[str, str], scope: Scope) -> None:
        """Only the key; for routes that do no work."""
        self._keys.check(headers, scope)

    def enter(self, headers: Mapping[str, str], scope: Scope) -> "Pass":
        """A block that holds a place and ends at the deadline, with 503 or 504.

        Args:
            headers: Of the request, by lower-case name.
            scope: What the caller wants to do.

        Raises:
            ServiceError: 400, 401 or 403.
        """
        self._keys.check(headers, scope)
        return Pass(self, self._deadline_s(headers.get(DEADLINE_HEADER)))

    def _deadline_s(self, given: str | None) -> float:
        if given is None:
            return self._limits.deadline_ms / 1e3
        if not (given.isascii() and given.isdigit()) or len(given) > 9 or int(given) == 0:
            raise BadHeader("X-Request-Deadline-Ms must be a positive whole number of milliseconds.")
        return min(int(given), self._limits.deadline_ms) / 1e3


class Pass:
    """``asyncio.timeout`` and a place in one: a timer, a task to cancel when it rings, and what to say then.

    Args:
        gate: Where the place is.
        seconds: Until the deadline.
    """

    __slots__ = ("_cancelled_before", "_entered", "_gate", "_rang", "_seconds", "_task", "_timer")

    def __init__(self, gate: Gate, seconds: float) -> None:
        self._gate = gate
        self._seconds = seconds
        self._rang = False

    async def __aenter__(self) -> None:
        """Wait for a place.

        Raises:
            ServiceError: 503 or 504.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is served inside a task")
        self._task, self._cancelled_before = task, task.cancelling()
        started = perf_counter()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._ring)
        try:
            await self._gate.admission.enter(self._seconds)
        except BaseException as error:
            self._end_timer(error)
            raise
        self._entered = perf_counter()
        self._gate.wait.observe(self._entered - started)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the place back.

        Raises:
            DeadlineExceeded: The block was ended by the deadline.
        """
        self._gate.admission.leave(perf_counter() - self._entered)
        self._end_timer(error)

    def _ring(self) -> None:
        self._rang = True
        self._task.cancel()

    def _end_timer(self, error: BaseException | None) -> None:
        self._timer.cancel()
        # A cancellation of somebody else's stays one, as with asyncio.timeout.
        if not self._rang or self._task.uncancel() > self._cancelled_before:
            return
        if isinstance(error, asyncio.CancelledError):
            raise DeadlineExceeded(f"The answer was not ready within {self._seconds * 1e3:.0f} ms.") from error

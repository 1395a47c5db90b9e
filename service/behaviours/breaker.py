"""A circuit breaker: after some failures the store is left alone, then one probe finds out whether it is back."""

import random
import time
from collections import deque
from collections.abc import Callable
from enum import Enum

from service.settings import BreakerSettings

_SLICES = 10


class State(Enum):
    """Closed lets every call through, open none, half-open exactly one probe."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


_CLOSED = State.CLOSED  # looking a member up takes an enumeration a while


class _Window:
    """Counts calls and failures of the last seconds in slices of a tenth: its size does not grow with the load."""

    def __init__(self, seconds: float) -> None:
        self._slice_s = seconds / _SLICES
        self._slices: deque[list[int]] = deque()  # number, calls, failures; oldest first
        self.calls = self.failures = 0

    def add(self, now: float, *, failed: bool) -> None:
        number = int(now / self._slice_s)
        slices = self._slices
        if not slices or slices[-1][0] != number:
            slices.append([number, 0, 0])
            while slices[0][0] < number - _SLICES:
                _, calls, failures = slices.popleft()
                self.calls -= calls
                self.failures -= failures
        slices[-1][1] += 1
        slices[-1][2] += failed
        self.calls += 1
        self.failures += failed

    def clear(self) -> None:
        self._slices.clear()
        self.calls = self.failures = 0


class Breaker:
    """Counts outcomes; the caller asks ``allow`` before a call and reports ``success`` or ``failure`` after it.

    Args:
        settings: The limits.
        clock: Seconds that never go back; a test brings its own.
    """

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._window = _Window(settings.window_s)
        self._failures_in_row = 0
        self._retry_at = 0.0
        self.state = State.CLOSED

    def allow(self) -> bool:
        """Whether a call may be made now; in the open state True once per interval, for the probe."""
        if self.state is State.CLOSED:
            return True
        if self._clock() < self._retry_at:
            return False
        self.state = State.HALF_OPEN
        # A probe that never reports (its request was cancelled) must not keep the breaker shut.
        self._retry_at = self._clock() + self._settings.open_s
        return True

    def success(self) -> None:
        """The call was answered; a probe's answer closes the breaker."""
        if self.state is not _CLOSED:
            self.state = _CLOSED
            self._window.clear()
        self._failures_in_row = 0
        self._window.add(self._clock(), failed=False)

    def failure(self) -> None:
        """The call failed; a failed probe, or too many failures, open the breaker."""
        self._failures_in_row += 1
        window, limits = self._window, self._settings
        window.add(self._clock(), failed=True)
        tripped = self._failures_in_row >= limits.failures or (
            window.calls >= limits.min_calls and window.failures >= limits.ratio * window.calls
        )
        if self.state is State.HALF_OPEN:
            self.state = State.OPEN  # the next probe is due as long after this one began as `allow` has set
        elif tripped:
            self.state = State.OPEN
            # Jitter: the processes of a fleet should not all probe in the same moment.
            self._retry_at = self._clock() + limits.open_s * random.uniform(0.9, 1.1)

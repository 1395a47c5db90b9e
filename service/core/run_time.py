"""What the next run of a graph will take."""

from math import inf

# Weight of the newest run in the running mean.
_NEWEST = 0.2


class RunTime:
    """Learns from runs what a candidate takes; what does not depend on their number is spread over them.

    So a slate that is larger than those before it is expected to take longer than it will.
    """

    def __init__(self) -> None:
        self._seconds_each: float | None = None

    def learn(self, candidates: int, seconds: float) -> None:
        """A run of so many candidates has taken so long."""
        if candidates == 0:
            return
        each, before = seconds / candidates, self._seconds_each
        self._seconds_each = each if before is None else before + _NEWEST * (each - before)

    def expect(self, candidates: int) -> float:
        """Seconds; infinite as long as there was no run."""
        return inf if self._seconds_each is None else self._seconds_each * candidates

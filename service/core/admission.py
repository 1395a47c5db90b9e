"""How many requests are worked on at once, how many may wait, and who is sent away at once."""

import asyncio
from collections import deque

from service.errors import Draining, Overloaded
from service.metrics import Metrics
from service.settings import LimitSettings

# Weight of the newest request in the running mean of service times.
_NEWEST = 0.05


class Admission:
    """First come, first served, up to ``limits.concurrency``; then a queue; then 503.

    A request is also sent away when, at the current pace, its turn would come after its deadline: it learns so in a
    millisecond instead of after its whole deadline.

    Args:
        limits: Concurrency and queue.
        metrics: Gauges of both, and a counter of those sent away.
    """

    def __init__(self, limits: LimitSettings, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._mean_s = 0.0
        self.draining = False
        metrics.gather(self)

    def enter_at_once(self) -> bool:
        """Take a place, which ``leave`` must give back; False where ``enter`` has to wait or to refuse."""
        if self.draining or self._active >= self._limits.concurrency:
            return False
        self._active += 1
        return True

    async def enter(self, seconds_left: float) -> None:
        """Take a place, which ``leave`` must give back.

        Raises:
            Draining: The server is stopping.
            Overloaded: The queue is full, or the wait would outlast ``seconds_left``.
        """
        if self.draining:
            self._metrics.shed.labels("draining").inc()
            raise Draining("The server is stopping; send the request to another one.")
        if self._active < self._limits.concurrency:
            self._active += 1
            return
        if len(self._waiting) >= self._limits.queue:
            self._metrics.shed.labels("queue_full").inc()
            raise Overloaded("All places are taken and the queue is full.")
        if (len(self._waiting) + 1) * self._mean_s / self._limits.concurrency > seconds_left:
            self._metrics.shed.labels("deadline").inc()
            raise Overloaded("All places are taken and the wait would outlast the deadline.")
        await self._wait()

    async def _wait(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn  # whoever leaves hands over its place; `_active` stays as it is
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._hand_over()  # the place had come in the same moment as the cancellation
            else:
                self._waiting.remove(turn)
            raise

    def leave(self, seconds: float) -> None:
        """Give a place back after so many seconds of work."""
        self._mean_s += _NEWEST * (seconds - self._mean_s)
        if self._waiting:
            self._hand_over()
        else:
            self._active -= 1

    def _hand_over(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._active -= 1

    def fold(self) -> None:
        """Tell the gauges; see ``Gathered``."""
        self._metrics.in_flight.set(self._active)
        self._metrics.queued.set(len(self._waiting))

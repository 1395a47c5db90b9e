"""Short runs of a graph, done on the event loop itself.

Beside a run of a millisecond, handing it to a thread is dear: two threads take the interpreter, the processor's caches
and often its cores from each other. So a run that is expected to be short happens here, after the others that wait, and
the loop looks at its sockets again after some milliseconds of them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from service.core.engine_threads import EngineThreads
from service.receiving import Receiver, outcome, settle

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# How long runs keep the loop in one turn. Each that follows another finds the graph in the caches.
TURN_S: Final = 0.010

_Waiting = tuple[float, Receiver, Callable[..., Any], tuple[Any, ...]]


class LoopRuns:
    """Does short work in the turns of one event loop, first come, first served, and hands the rest to threads.

    Args:
        threads: For work that is not short.
        most_s: Work that is expected to take longer is not short; 0: none is.

    Attributes:
        kept_s: Seconds for which the loop has been kept so far.
    """

    def __init__(self, threads: EngineThreads, most_s: float) -> None:
        self.kept_s = 0.0
        self._threads = threads
        self._most_s = most_s
        self._waiting: deque[_Waiting] = deque()
        self._due = False  # a turn is

    async def run(self, expected_s: float, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        """The result of ``work(*arguments)``; see ``EngineThreads.run``."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(future, expected_s, work, *arguments)
        return await future

    def submit(
        self, receiver: Receiver, expected_s: float, work: Callable[[Unpack[Ts]], object], *arguments: *Ts
    ) -> None:
        """Have ``work(*arguments)`` done and its outcome handed over, both in a later turn of the running event loop.

        Args:
            receiver: Who waits for it.
            expected_s: What it will take, infinite where that is not known.
            work: What to do.
            *arguments: With what.
        """
        if expected_s > self._most_s:
            self._threads.submit(receiver, work, *arguments)
            return
        self._waiting.append((expected_s, receiver, work, arguments))
        self._schedule()

    def _turn(self) -> None:
        self._due = False
        began = perf_counter()
        try:
            # What follows a run is code of another kind; done for all of them together it is cold but once.
            for receiver, result, error in self._run_until(began + TURN_S):
                _hand_over(receiver, result, error)
        finally:
            self.kept_s += perf_counter() - began
            self._schedule()

    def _run_until(self, ends: float) -> list[tuple[Receiver, Any, Exception | None]]:
        """The outcomes of one run at least, and of no further one that is expected to end later."""
        waiting, outcomes = self._waiting, list[tuple[Receiver, Any, Exception | None]]()
        while waiting and (not outcomes or perf_counter() + waiting[0][0] <= ends):
            _, receiver, work, arguments = waiting.popleft()
            if not receiver.done():
                outcomes.append((receiver, *outcome(work, arguments)))
        return outcomes

    def _schedule(self) -> None:
        if self._waiting and not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def close(self) -> None:
        """End the threads too; work that waits is cancelled, and what still comes is refused as they refuse it."""
        self._most_s = -1.0
        while self._waiting:
            self._waiting.popleft()[1].cancel()
        self._threads.close()


def _hand_over(receiver: Receiver, result: Any, error: Exception | None) -> None:
    try:
        settle(receiver, result, error)
    except Exception as failure:  # noqa: BLE001 - the others still wait for theirs
        told = {"message": "an outcome could not be handed over", "exception": failure}
        asyncio.get_running_loop().call_exception_handler(told)

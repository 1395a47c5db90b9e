"""Threads that runs of a graph happen in, so that the event loop stays free; ``loop_runs`` has the short ones.

Work is handed over through one queue and its outcome through one call of the loop. A future of ``concurrent.futures``
with its lock and its condition costs twice as much, which shows beside a graph of a few milliseconds.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar, TypeVarTuple, Unpack

from service.receiving import Receiver, outcome, settle

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# What to call with what, who waits for it, and on which loop.
_Work = tuple[Callable[..., Any], tuple[Any, ...], Receiver, asyncio.AbstractEventLoop]


class EngineThreads:
    """Does work in a fixed number of threads, first come, first served.

    Args:
        count: Threads; they start with the first work, so that what is made before a fork has none.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._closed = False

    async def run(self, work: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
        """The result of ``work(*arguments)``; what it raises is raised here. Never begun if nobody waits any more."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(future, work, *arguments)
        return await future

    def submit(self, receiver: Receiver, work: Callable[[Unpack[Ts]], object], *arguments: *Ts) -> None:
        """Have ``work(*arguments)`` done, and its outcome handed over on the event loop that runs here."""
        if self._closed:
            raise RuntimeError("the engine's threads have ended")
        if not self._threads:
            self._start()
        self._queue.put((work, arguments, receiver, asyncio.get_running_loop()))

    def _start(self) -> None:
        self._threads = [Thread(target=self._serve, name=f"engine-{n}", daemon=True) for n in range(self._count)]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        while (entry := self._queue.get()) is not None:
            _do(*entry)
            del entry  # an idle thread must not keep a slate's arrays

    def close(self) -> None:
        """End the threads: work under way finishes, work that waits is cancelled."""
        self._closed = True
        with suppress(Empty):
            while (entry := self._queue.get_nowait()) is not None:
                entry[2].cancel()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()


def _do(
    work: Callable[..., Any], arguments: tuple[Any, ...], receiver: Receiver, loop: asyncio.AbstractEventLoop
) -> None:
    if receiver.done():
        return
    result, error = outcome(work, arguments)
    try:
        loop.call_soon_threadsafe(settle, receiver, result, error)
    except RuntimeError:
        return  # the loop has ended, and with it whoever waited

"""Waiting for a task no longer than its time, without blaming it for a busy event loop."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from service.behaviours.base import StoreError

T = TypeVar("T")
TURNS = 4  # of the event loop: one reads the socket, one wakes the reader, one ends the work
LATE = 1.5  # a timer that comes this many times later than asked says that the process got no core


async def finish_within(work: Awaitable[T], seconds: float, what: str) -> T:
    """Wait for ``work`` at most so long.

    Raises:
        StoreError: The time is over; the work was cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        await settle(task, seconds)
        if task.done():
            return task.result()
    except asyncio.CancelledError:
        task.cancel()
        raise
    task.cancel()
    await asyncio.wait({task})
    raise StoreError(f"{what} took longer than {seconds * 1e3:.1f} ms")


async def settle(task: asyncio.Future[Any], seconds: float) -> None:
    """Give a task its time, and not blame it for ours; it may be unfinished afterwards and is never cancelled.

    A busy event loop sees the timer and the reply in the same turn, and ``asyncio.timeout`` would then cancel a reply
    that is already here. So a few more turns follow. A process that got no core for a while waits once more.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    await asyncio.wait({task}, timeout=seconds)
    if not task.done() and loop.time() - started > seconds * LATE:
        await asyncio.wait({task}, timeout=seconds)
    for _ in range(TURNS):
        if task.done():
            return
        await asyncio.sleep(0)

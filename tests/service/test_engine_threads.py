"""Work handed to the engine's threads and back."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from service.core.engine_threads import EngineThreads


def test_results_and_errors_come_back_in_the_loops_thread() -> None:
    async def run() -> None:
        threads = EngineThreads(2)
        assert await threads.run(lambda a, b: a - b, 5, 3) == 2
        assert await threads.run(threading.current_thread) is not threading.current_thread()
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        assert await asyncio.gather(*(threads.run(divmod, n, 7) for n in range(100))) == [
            divmod(n, 7) for n in range(100)
        ]
        threads.close()

    asyncio.run(run())


def test_the_loop_goes_on_while_a_graph_runs() -> None:
    async def run() -> None:
        threads = EngineThreads(1)
        release = threading.Event()
        work = asyncio.ensure_future(threads.run(release.wait, 10))
        await asyncio.sleep(0)
        assert not work.done()
        release.set()
        assert await work
        threads.close()

    asyncio.run(run())


def test_nobody_waits_so_nothing_is_begun() -> None:
    async def run() -> None:
        threads = EngineThreads(1)
        release, begun = threading.Event(), list[str]()
        first = asyncio.ensure_future(threads.run(release.wait, 10))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(threads.run(begun.append, "second"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait({second})
        release.set()
        await first
        await threads.run(begun.append, "third")
        assert begun == ["third"]
        threads.close()

    asyncio.run(run())


def test_closing_ends_what_runs_and_cancels_what_waits() -> None:
    async def run() -> None:
        threads = EngineThreads(1)
        release, entered = threading.Event(), threading.Event()

        def hold() -> str:
            entered.set()
            release.wait(10)
            return "done"

        first = asyncio.ensure_future(threads.run(hold))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(threads.run(str))
        await asyncio.sleep(0)
        assert entered.wait(10)
        threading.Timer(0.05, release.set).start()
        threads.close()
        assert await first == "done"
        with pytest.raises(asyncio.CancelledError):
            await second
        with pytest.raises(RuntimeError, match="ended"):
            await threads.run(str)

    asyncio.run(run())


def test_a_loop_that_has_ended_is_no_error() -> None:
    threads = EngineThreads(1)
    release = threading.Event()

    async def leave() -> None:
        waiting = asyncio.ensure_future(threads.run(release.wait, 10))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(leave())
    release.set()

    async def use(work: Callable[[], str]) -> str:
        return await threads.run(work)

    assert asyncio.run(use(lambda: "again")) == "again"
    threads.close()

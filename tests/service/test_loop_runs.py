"""Which runs happen on the event loop, and that it stays free for others."""

import asyncio
import threading
from collections.abc import Callable
from math import inf

import pytest

from service.core import loop_runs
from service.core.engine_threads import EngineThreads
from service.core.loop_runs import TURN_S, LoopRuns
from service.core.run_time import RunTime

SHORT, LONG = 0.001, 0.1


def runs(most_s: float = 0.002) -> LoopRuns:
    return LoopRuns(EngineThreads(1), most_s)


class Clock:
    """Stands still but for work, which takes as long as it says."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 50.0
        self.happened: list[str] = []
        patch.setattr(loop_runs, "perf_counter", lambda: self.now)

    def work(self, seconds: float, name: str = "run") -> None:
        self.now += seconds
        self.happened.append(name)


def on_the_loop(check: Callable[[], object]) -> None:
    async def inside() -> None:
        waiting = check()
        if asyncio.iscoroutine(waiting):
            await waiting

    asyncio.run(inside())


@pytest.mark.parametrize(
    ("expected_s", "most_s", "here"),
    [(SHORT, 0.002, True), (0.002, 0.002, True), (LONG, 0.002, False), (inf, 0.002, False), (SHORT, 0.0, False)],
)
def test_only_what_is_known_to_be_short_happens_on_the_loop(expected_s: float, most_s: float, here: bool) -> None:
    async def check() -> None:
        made = runs(most_s)
        assert (await made.run(expected_s, threading.current_thread) is threading.current_thread()) == here
        with pytest.raises(ZeroDivisionError):
            await made.run(expected_s, lambda: 1 // 0)
        made.close()

    on_the_loop(check)


def test_first_come_first_served_in_turns_that_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        clock, made = Clock(monkeypatch), runs()
        each = TURN_S / 4
        futures = [asyncio.ensure_future(made.run(0.001, clock.work, each, str(n))) for n in range(10)]
        for _ in range(5):
            await asyncio.sleep(0)
            clock.happened.append("other")
        await asyncio.gather(*futures)
        in_turns = " ".join(clock.happened).split("other")
        assert [one.split() for one in in_turns if one.strip()] == [list("0123"), list("4567"), list("89")]
        assert made.kept_s == pytest.approx(10 * each)
        made.close()

    on_the_loop(check)


def test_outcomes_of_a_turn_are_handed_over_behind_its_last_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        clock, made = Clock(monkeypatch), runs()
        futures = [asyncio.get_running_loop().create_future() for _ in range(2)]

        def work() -> None:
            clock.work(SHORT, f"{[future.done() for future in futures]}")

        for future in futures:
            made.submit(future, SHORT, work)
        await asyncio.wait(futures)
        assert clock.happened == ["[False, False]"] * 2
        made.close()

    on_the_loop(check)


def test_no_run_begins_that_would_outlast_the_turn_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        clock, made = Clock(monkeypatch), runs(most_s=1.0)
        expected = [0.6 * TURN_S, 0.6 * TURN_S, 3 * TURN_S, 0.1 * TURN_S]
        futures = [asyncio.ensure_future(made.run(seconds, clock.work, seconds)) for seconds in expected]
        for _ in range(8):
            await asyncio.sleep(0)
            clock.happened.append("other")
        await asyncio.gather(*futures)
        in_turns = "".join(name[0] for name in clock.happened).replace("o", " ").split()
        assert in_turns == ["r"] * 4
        made.close()

    on_the_loop(check)


def test_nobody_waits_so_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        clock, made = Clock(monkeypatch), runs()
        left = asyncio.ensure_future(made.run(SHORT, clock.work, SHORT, "left"))
        await asyncio.sleep(0)
        left.cancel()
        await made.run(SHORT, clock.work, SHORT, "stayed")
        assert clock.happened == ["stayed"]
        made.close()

    on_the_loop(check)


class Failing:
    """Waits for an outcome and fails when it comes."""

    def done(self) -> bool:
        return False

    def set_result(self, _result: object, /) -> None:
        raise ValueError("the receiver failed")

    set_exception = set_result

    def cancel(self) -> None:
        raise AssertionError


def test_a_receiver_that_fails_does_not_hold_up_the_next() -> None:
    async def check() -> None:
        said = list[str]()
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: said.append(str(context["exception"])))
        made, after = runs(), asyncio.get_running_loop().create_future()
        made.submit(Failing(), SHORT, str)
        made.submit(after, SHORT, int)
        assert await asyncio.wait_for(after, 10) == 0
        assert said == ["the receiver failed"]
        made.close()

    on_the_loop(check)


def test_closing_cancels_what_waits_and_ends_the_threads() -> None:
    async def check() -> None:
        made = runs()
        waiting = [asyncio.get_running_loop().create_future() for _ in range(2)]
        for future in waiting:
            made.submit(future, SHORT, int)
        made.close()
        await asyncio.wait(waiting)
        assert all(future.cancelled() for future in waiting)
        for expected_s in (SHORT, inf):
            with pytest.raises(RuntimeError, match="ended"):
                await made.run(expected_s, int)

    on_the_loop(check)


def test_a_run_takes_as_long_as_those_before_it_candidate_by_candidate() -> None:
    run_time = RunTime()
    run_time.learn(0, 1.0)
    assert run_time.expect(1) == inf
    run_time.learn(100, 0.2)
    assert run_time.expect(100) == pytest.approx(0.2)
    assert run_time.expect(50) == pytest.approx(0.1)
    for _ in range(100):
        run_time.learn(10, 0.001)
    assert run_time.expect(10) == pytest.approx(0.001, rel=1e-6)
    run_time.learn(10, 1.0)
    assert 0.1 < run_time.expect(10) < 0.5  # one that the machine held up is not yet the rule

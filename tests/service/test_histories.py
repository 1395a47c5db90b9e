"""The ladder and its breaker, with a store and a clock that do as they are told."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from bundle.behaviours import pack, records
from service.behaviours.base import Appended, Event, Features, Reading, StoredFeatures, StoreError, UserData
from service.behaviours.breaker import Breaker, State
from service.behaviours.commands import ReplyError
from service.behaviours.histories import Histories, History
from service.core.version import load_version
from service.metrics import Metrics
from service.receiving import Receiver
from service.settings import BreakerSettings, StoreSettings
from tests.service import tiny_bundle


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """Log lines of every level, whatever this process has configured before."""
    before = structlog.get_config()
    structlog.reset_defaults()
    with capture_logs() as captured:
        yield captured
    structlog.configure(**before)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeStore:
    def __init__(self) -> None:
        self.away = False
        self.marker: int | None = 5
        self.user = UserData(records(["1", "2"], [1, 2]))
        self.calls = 0

    async def read(self, user_ids: Sequence[str]) -> Reading:
        self.calls += 1
        if self.away:
            raise StoreError("away")
        return Reading(tuple(self.user for _ in user_ids), self.marker)

    def begin(self, user_id: str, receiver: Receiver) -> bool:
        self.calls += 1
        return True

    async def read_features(self, user_ids: Sequence[str]) -> StoredFeatures:
        raise StoreError("away")

    async def append(self, events: Sequence[Event]) -> Appended:
        raise StoreError("away")

    async def put_users(self, users: Sequence[tuple[str, Features]]) -> int:
        raise StoreError("away")

    async def delete_user(self, user_id: str) -> bool:
        raise StoreError("away")

    async def ensure_marker(self) -> int:
        if self.away:
            raise StoreError("away")
        return self.marker or 6

    async def close(self) -> None: ...


class Ladder:
    def __init__(self, **options: float) -> None:
        self.clock, self.store = Clock(), FakeStore()
        settings = StoreSettings.model_validate({"url": "memory://", **options})
        self.histories = Histories(self.store, settings, Metrics(), self.clock)

    def read(self, user: str = "u") -> History:
        return asyncio.run(self.histories.read(user))


def test_the_rungs_in_order() -> None:
    ladder = Ladder(cache_ttl_s=300)
    assert ladder.read().source == "store"
    ladder.store.away = True
    ladder.clock.now += 10
    stale, unknown = ladder.read(), ladder.read("other")
    assert (stale.source, stale.degraded, stale.lost, stale.age_ms) == ("cache", ("stale_history",), False, 10_000)
    assert (unknown.source, unknown.degraded, unknown.lost) == ("empty", ("no_history",), True)
    ladder.clock.now += 291
    assert ladder.read().source == "empty"


def test_the_breaker_spares_the_store_and_one_call_finds_it_again() -> None:
    ladder = Ladder()
    ladder.store.away = True
    for _ in range(50):
        ladder.read()
    assert ladder.store.calls == 5
    assert ladder.histories.state == "degraded"
    ladder.clock.now += 1.2
    ladder.read()
    ladder.read()
    assert ladder.store.calls == 6
    ladder.store.away = False
    ladder.clock.now += 1.2
    assert [ladder.read().source, ladder.read().source] == ["store", "store"]
    assert ladder.histories.state == "ok"


def test_the_breaker_opens_at_half_of_twenty_calls() -> None:
    clock = Clock()
    breaker = Breaker(BreakerSettings(failures=100), clock)
    for number in range(19):
        breaker.failure() if number % 2 else breaker.success()
    assert breaker.state is State.CLOSED
    breaker.failure()
    assert breaker.state is State.OPEN
    assert not breaker.allow()


def test_old_outcomes_leave_the_window() -> None:
    clock = Clock()
    breaker = Breaker(BreakerSettings(failures=100), clock)
    for _ in range(19):
        breaker.failure()
    clock.now += 6
    for _ in range(19):
        breaker.success()
    breaker.failure()
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize("marker", [None, 4, 9])
def test_a_wiped_store_is_told_from_a_new_user(marker: int | None) -> None:
    ladder = Ladder(wiped_hold_s=60)
    ladder.store.user = UserData()
    assert ladder.read().degraded == ()
    ladder.store.marker = marker
    wiped = ladder.read()
    assert (wiped.source, wiped.degraded, wiped.lost) == ("store", ("store_wiped",), True)
    assert ladder.histories.state == "wiped"
    ladder.store.marker = 9
    ladder.store.user = UserData(records(["1"], [1]))
    assert ladder.read().degraded == ()
    ladder.store.user = UserData()
    ladder.clock.now += 61
    assert ladder.read().degraded == ()


def test_a_corrupt_value_is_said_and_not_remembered() -> None:
    ladder = Ladder()
    ladder.store.user = UserData(corrupt=1)
    found = ladder.read()
    assert (found.source, found.degraded, found.lost) == ("store", ("corrupt_history",), True)
    ladder.store.away = True
    assert ladder.read().source == "empty"


REPLY = [b"5", pack(records(["1", "2"], [1, 2])), b'{"age": 3}']


class Nobody:
    def done(self) -> bool:
        return True

    def set_result(self, result: object, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...

    def cancel(self) -> None: ...


def begin(ladder: Ladder) -> bool:
    return ladder.histories.begin("u", Nobody())


def test_what_was_asked_for_without_waiting_is_remembered_only_when_told_so() -> None:
    ladder = Ladder(cache_ttl_s=300)
    assert begin(ladder)
    found = ladder.histories.came(REPLY, 0.001)
    assert found is not None
    assert (found.sequence, found.features) == (REPLY[1], REPLY[2])
    ladder.store.away = True
    assert ladder.read().source == "empty"
    ladder.histories.keep("u", found)
    copy = ladder.read()
    assert copy.source == "cache"
    assert copy.user is not None
    assert copy.user.behaviours["ts"].tolist() == [1, 2]
    assert copy.user.features == {"age": 3}


@pytest.mark.parametrize("marker", [None, b"4", b"not a number"])
def test_a_store_wiped_meanwhile_is_no_answer_without_waiting(marker: bytes | None) -> None:
    ladder = Ladder(wiped_hold_s=60)
    assert ladder.histories.came(REPLY, 0.001) is not None
    assert ladder.histories.came([marker, None, None], 0.001) is None
    assert not begin(ladder)
    assert ladder.histories.state == "wiped"
    ladder.clock.now += 61
    assert begin(ladder)
    # A store without a marker stays a wiped one until it has a marker again.
    assert (ladder.histories.came([marker, None, None], 0.001) is None) == (marker != b"4")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (StoreError("gone"), "gone"),
        (ReplyError("LOADING the data"), "the store refused MGET: LOADING"),
        ([b"5"], "not a list of three"),
        (None, "not a list of three"),
        (b"5", "not a list of three"),
    ],
)
def test_failures_without_waiting_open_the_breaker_and_say_why(
    lines: list[EventDict], reply: object, said: str
) -> None:
    ladder = Ladder()
    for _ in range(5):
        assert begin(ladder)
        assert ladder.histories.came(reply, 0.001) is None
    assert ladder.histories.state == "degraded"
    assert not begin(ladder)
    assert ladder.store.calls == 5
    assert [said in line["cause"] for line in lines] == [True]


def test_a_lost_history_is_corrected_with_its_own_calibrator(published: Path) -> None:
    version = load_version(published / "movies" / "1.0.0")
    query = tiny_bundle.queries()[0]
    known, lost = version.score(query, None), version.score(query, None, without_history=True)
    assert (known.logits == lost.logits).all()
    settings = version.manifest.correction.tasks["ctr"]
    assert settings.calibrator_without_history is not None
    expected = settings.calibrator_without_history.apply(lost.logits[..., 0])
    assert lost.probabilities["ctr"] == pytest.approx(expected)
    assert known.probabilities["ctr"] != pytest.approx(expected)

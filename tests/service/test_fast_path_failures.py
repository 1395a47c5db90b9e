"""What can go wrong on the fast path: nothing is answered twice, nothing is kept, and the ordinary route says it."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.serving.app import quiet_settings
from benchmarks.serving.process import Service, service_process
from benchmarks.serving.proxy import Fault, Proxy, proxy_to
from bundle.behaviours import pack, records
from service import container
from service.api.accounts import Accounts
from service.api.fast_path import FastPath, Flight
from service.api.hot import Reply
from service.api.keys import Keys
from service.behaviours import EmbeddedServer, StoreError
from service.compiled.build import build
from service.compiled.library import CompiledUnavailable, compiled_module
from service.container import Container
from service.engines.base import EngineError
from service.metrics import Metrics
from tests.service.test_fast_path import asked, body, fast
from tests.service.test_hot_protocol import Line, request

STAGES = ("wait", "behaviours")
STORED = pack(records(["1", "2", "3"], [900, 901, 902]))


@pytest.fixture(scope="module", autouse=True)
def _compiled(compiler: list[str]) -> None:
    try:
        compiled_module()
    except CompiledUnavailable:
        build()


class Caller:
    """A connection that writes down what happens to its request."""

    def __init__(self) -> None:
        self.happened: list[Any] = []

    def answer(self, _flight: Flight, reply: Reply) -> None:
        self.happened.append(reply.status)

    def answer_scores(self, _flight: Flight, _body: bytes) -> None:
        self.happened.append("scores")

    def answer_ordinarily(self, _flight: Flight) -> None:
        self.happened.append("ordinarily")


class Parts:
    """A fast path whose store and engine answer when the test says so."""

    def __init__(self, parts: Container, patch: pytest.MonkeyPatch) -> None:
        self.container = parts
        self.works: list[tuple[Any, Callable[..., Any], tuple[Any, ...]]] = []
        self.asks = True
        patch.setattr(parts.histories.store, "begin", lambda _user, _receiver: self.asks)
        patch.setattr(
            parts.runs, "submit", lambda receiver, _expected, work, *given: self.works.append((receiver, work, given))
        )
        self.path = FastPath(parts, Accounts(parts.settings.limits, parts.metrics, log_requests=False))

    def take(self, caller: Caller) -> Flight | None:
        return self.path.take(caller, request(body()))

    def finish(self) -> None:
        receiver, work, given = self.works.pop()
        receiver.set_result(work(*given))

    def idle(self) -> bool:
        slots = [slot for name in self.container.registry.view.values() for slot in name.slots.values()]
        return self.container.admission._active == 0 and all(slot._holders == 0 for slot in slots)


@asynccontextmanager
async def parts(published: Path, **limits: int) -> AsyncIterator[Parts]:
    settings = quiet_settings(published, "redis://127.0.0.1:1/0", limits=limits)
    metrics = Metrics()
    made = container.build(settings, metrics, Keys(settings.auth))
    made.registry.scan()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(made.runs), "submit", type(made.runs).submit)
        patch.setattr(type(made.histories.store), "begin", type(made.histories.store).begin)
        yield Parts(made, patch)
    await made.registry.close()


def run(published: Path, check: Callable[[Parts], Any], **limits: int) -> None:
    async def inside() -> None:
        async with parts(published, **limits) as made:
            waiting = check(made)
            if waiting is not None:
                await waiting
            assert made.idle()

    asyncio.run(inside())


def test_the_way_of_a_plain_request(published: Path) -> None:
    def check(made: Parts) -> None:
        caller = Caller()
        flight = made.take(caller)
        assert flight is not None
        assert not made.idle()
        flight.set_result([b"1", STORED, None])
        assert caller.happened == []
        made.finish()
        assert caller.happened == ["scores"]
        flight.set_result(None)
        flight.set_exception(StoreError("late"))
        assert caller.happened == ["scores"]

    run(published, check)


def test_time_for_which_others_were_served_is_waiting(published: Path) -> None:
    def check(made: Parts) -> None:
        flight = made.take(Caller())
        assert flight is not None
        made.container.runs.kept_s += 40.0
        flight.asked -= 41.0  # the store took a second and the runs of others 40
        flight.set_result([b"1", STORED, None])
        flight.encoded_at -= 3.0
        made.finish()
        text = made.container.metrics.exposition().decode()
        seconds = {stage: float(re.search(rf'stage_seconds_sum{{stage="{stage}"}} (\S+)', text)[1]) for stage in STAGES}
        assert seconds["behaviours"] == pytest.approx(1, abs=0.5)
        assert seconds["wait"] == pytest.approx(43, abs=0.5)

    run(published, check)


@pytest.mark.parametrize(
    "reply",
    [
        StoreError("gone"),
        RuntimeError("anything"),
        [b"1", STORED],
        None,
        [b"1", b"\x01torn", None],
        [b"1", STORED[:-1] + b"\x7f", b"{"],
        [b"1", None, b'{"age": [[1]]}'],
        [None, 7, None],
    ],
)
def test_a_reply_of_the_store_that_is_no_use(published: Path, reply: Any) -> None:
    def check(made: Parts) -> None:
        caller = Caller()
        flight = made.take(caller)
        assert flight is not None
        flight.set_result(reply) if isinstance(reply, list) else flight.set_exception(reply or ValueError("none"))
        assert caller.happened == ["ordinarily"]
        assert made.works == []

    run(published, check)


def test_an_engine_that_fails(published: Path) -> None:
    def check(made: Parts) -> None:
        caller = Caller()
        flight = made.take(caller)
        assert flight is not None
        flight.set_result([b"1", STORED, None])
        flight.set_exception(EngineError("broken"))
        assert caller.happened == ["ordinarily"]

    run(published, check)


def test_what_fails_after_the_answer_is_no_reason_for_another(published: Path) -> None:
    class Broken(Caller):
        def answer_scores(self, flight: Flight, body: bytes) -> None:
            super().answer_scores(flight, body)
            raise RuntimeError("the connection is in a strange state")

    def check(made: Parts) -> None:
        caller = Broken()
        flight = made.take(caller)
        assert flight is not None
        flight.set_result([b"1", STORED, None])
        made.finish()
        assert caller.happened == ["scores"]

    run(published, check)


def test_a_store_that_is_not_connected_is_no_case_for_the_fast_path(published: Path) -> None:
    def check(made: Parts) -> None:
        made.asks = False
        assert made.take(Caller()) is None

    run(published, check)


def test_a_full_house_is_no_case_for_the_fast_path(published: Path) -> None:
    def check(made: Parts) -> None:
        first = made.take(Caller())
        assert first is not None
        assert made.take(Caller()) is None
        first.set_exception(StoreError("gone"))
        second = made.take(Caller())
        assert second is not None
        second.set_exception(StoreError("gone"))
        made.container.admission.draining = True
        assert made.take(Caller()) is None

    run(published, check, concurrency=1)


def test_late_requests_get_504_and_only_they(published: Path) -> None:
    async def wait(made: Parts) -> None:
        first, second = Caller(), Caller()
        late = made.take(first)
        await asyncio.sleep(0.06)
        early = made.take(second)
        assert late is not None
        assert early is not None
        await asyncio.sleep(0.06)
        assert (first.happened, second.happened) == ([504], [])
        late.set_result([b"1", STORED, None])
        assert made.works == []
        early.set_result([b"1", STORED, None])
        made.finish()
        assert (first.happened, second.happened) == ([504], ["scores"])
        await asyncio.sleep(0.1)  # the timer rings with nobody waiting
        third = Caller()
        assert made.take(third) is not None
        await asyncio.sleep(0.15)
        assert third.happened == [504]

    run(published, wait, deadline_ms=100)


@asynccontextmanager
async def behind_a_proxy(
    published: Path, valkey: EmbeddedServer, folder: Path, **settings: object
) -> AsyncIterator[tuple[Service, Proxy]]:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxy_to(Path(valkey.socket_path)))
        given = {"models.dir": published, "store.url": f"redis://127.0.0.1:{proxy.port}/0", "store.prefix": "failing"}
        given |= {name.replace("__", "."): value for name, value in settings.items()}
        manager = service_process(folder, given)
        service = await asyncio.to_thread(manager.__enter__)
        try:
            async with httpx.AsyncClient(base_url=service.url) as client:
                events = [{"user_id": "known", "item_id": "3", "ts": 900}]
                assert (await client.post("/behaviours", json={"events": events})).is_success
            yield service, proxy
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)


def test_a_store_that_stalls_costs_the_deadline_and_no_more(
    published: Path, valkey: EmbeddedServer, tmp_path: Path
) -> None:
    def ask(service: Service, proxy: Proxy) -> None:
        with Line(service) as line:
            assert asked(line, body()).status == 200
            before = fast(service)
            assert asked(line, body()).body["behaviours"] == {"source": "store", "length": 1}
            assert fast(service) == before + 1
            proxy.switch(Fault.STALL)
            started = time.monotonic()
            late = asked(line, body())
            assert 0.2 < time.monotonic() - started < 1
            assert (late.status, late.body["code"]) == (504, "deadline_exceeded")
            assert late.body["instance"] == late.headers["x-request-id"] == "same"

    async def drill() -> None:
        settings = {"store__timeout_ms": 3000, "limits__deadline_ms": 300, "store__cache_ttl_s": 0}
        async with behind_a_proxy(published, valkey, tmp_path, **settings) as (service, proxy):
            await asyncio.to_thread(ask, service, proxy)

    asyncio.run(drill())


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.STALL])
def test_what_the_fast_path_read_stands_in_while_the_store_is_away(
    published: Path, valkey: EmbeddedServer, tmp_path: Path, fault: Fault
) -> None:
    def ask(service: Service, proxy: Proxy) -> None:
        with Line(service) as line:
            for _ in range(3):
                good = asked(line, body())
            assert fast(service) >= 1
            proxy.switch(fault)
            away = asked(line, body())
        assert away.status == 200
        assert away.body["degraded"] == ["stale_history"]
        assert away.body["behaviours"]["source"] == "cache"
        for task, values in good.body["scores"].items():
            assert away.body["scores"][task] == pytest.approx(values, rel=1e-12)

    async def drill() -> None:
        settings = {"store__timeout_ms": 100, "store__cache_ttl_s": 300}
        async with behind_a_proxy(published, valkey, tmp_path, **settings) as (service, proxy):
            await asyncio.to_thread(ask, service, proxy)

    asyncio.run(drill())

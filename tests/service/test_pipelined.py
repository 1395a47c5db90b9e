"""The pipelined client against real sockets: a scripted server, real ones, and a proxy that breaks what passes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.serving.proxy import Fault, proxy_to
from service.behaviours import EmbeddedServer, Event, StoreError, open_store
from service.behaviours.address import Address, plain_address
from service.behaviours.histories import Histories
from service.behaviours.pipelined import PipelinedCommands
from service.errors import SettingsError
from service.metrics import Metrics
from service.settings import StoreSettings
from tests.service.scripted_server import ScriptedServer, free_port, real_server, scripted

T = TypeVar("T")
PATIENT = {"timeout_ms": 2000, "connect_timeout_ms": 2000, "write_timeout_ms": 5000}
RECOVERY_S = 2.0


LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


def against(
    script: Callable[[list[bytes]], str],
    act: Callable[[ScriptedServer, PipelinedCommands], Awaitable[T]],
    run: Callable[[Coroutine[Any, Any, T]], T] = asyncio.run,
    **options: float,
) -> T:
    async def main() -> T:
        async with scripted(script) as server:
            store = StoreSettings.model_validate({"url": "redis://unused", **PATIENT, **options})
            commands = PipelinedCommands(store, Address("127.0.0.1", server.port))
            try:
                return await act(server, commands)
            finally:
                await commands.close()

    return run(main())


_KINDS = st.sampled_from(["now", "now", "now", "mute", "half", "reset", "garbage"])


@LOOPS
@settings(max_examples=30, deadline=None)
@given(kinds=st.lists(_KINDS, min_size=1, max_size=12), gaps=st.lists(st.booleans(), min_size=12, max_size=12))
def test_every_read_is_its_own_reply_or_a_store_error(run: Any, kinds: list[str], gaps: list[bool]) -> None:
    """And whatever happened, the next read is answered."""
    plan = dict(enumerate(kinds))

    async def act(server: ScriptedServer, commands: PipelinedCommands) -> None:
        reads = []
        for number, gap in zip(plan, gaps, strict=False):
            reads.append(asyncio.ensure_future(commands.mget([f"{number}", f"key {number}"])))
            if gap:
                await asyncio.sleep(0.002)
        for number, found in enumerate(await asyncio.gather(*reads, return_exceptions=True)):
            if isinstance(found, BaseException):
                assert isinstance(found, StoreError)
            else:
                assert found == [b"%d" % number, b"key %d" % number]
        plan.clear()
        server.let_go.set()
        assert await commands.mget(["last"]) == [b"last"]

    def script(words: list[bytes]) -> str:
        return plan.get(int(words[1]), "now") if words[1].isdigit() else "now"

    against(script, act, run, timeout_ms=15)


def test_reads_at_the_same_time_share_one_connection() -> None:
    async def act(server: ScriptedServer, commands: PipelinedCommands) -> None:
        found = await asyncio.gather(*(commands.mget([str(number)]) for number in range(50)))
        assert [values[0] for values in found] == [b"%d" % number for number in range(50)]
        assert server.connections == 1

    against(lambda words: "now", act)


def test_a_large_read_does_not_hold_up_a_small_one() -> None:
    async def act(server: ScriptedServer, commands: PipelinedCommands) -> None:
        keys = [str(number) for number in range(2001)]
        large = asyncio.ensure_future(commands.mget(keys))
        await asyncio.sleep(0.02)
        assert await commands.mget(["a"]) == [b"a"]
        assert not large.done()
        server.let_go.set()
        assert await large == [key.encode() for key in keys]

    against(lambda words: "mute" if len(words) > 100 else "now", act)


@LOOPS
def test_a_busy_loop_does_not_lose_the_reply_that_is_here(valkey: EmbeddedServer, run: Any) -> None:
    async def act() -> None:
        budget_ms = 40.0
        options = StoreSettings(url=valkey.url, timeout_ms=budget_ms, timeout_us_per_key=0, connect_timeout_ms=1000)
        store = open_store(options)
        await store.ensure_marker()
        for _ in range(10):
            reads = [asyncio.ensure_future(store.read([f"u{number}"])) for number in range(5)]
            await asyncio.sleep(0)
            time.sleep(1.2 * budget_ms / 1e3)  # not so long that the lateness itself is forgiven
            assert len(await asyncio.gather(*reads)) == 5
        await store.close()

    run(act())


def test_after_a_silence_the_next_read_goes_over_a_new_connection() -> None:
    async def act(server: ScriptedServer, commands: PipelinedCommands) -> None:
        with pytest.raises(StoreError, match="longer than"):
            await commands.mget(["silent"])
        started = time.perf_counter()
        assert await commands.mget(["a"]) == [b"a"]
        assert time.perf_counter() - started < RECOVERY_S
        assert server.connections == 2

    against(lambda words: "mute" if words[1] == b"silent" else "now", act, timeout_ms=30)


def test_a_lost_connection_is_opened_again_before_anyone_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.behaviours.pipelined._LASTED_S", 0.0)

    async def act(server: ScriptedServer, commands: PipelinedCommands) -> None:
        with pytest.raises(StoreError):
            await commands.mget(["cut"])
        async with asyncio.timeout(RECOVERY_S):
            while server.connections < 2:
                await asyncio.sleep(0.001)
        assert await commands.mget(["a"]) == [b"a"]
        assert server.connections == 2

    against(lambda words: "reset" if words[1] == b"cut" else "now", act)


def test_a_cancelled_read_leaves_the_others_alone() -> None:
    async def act(server: ScriptedServer, commands: PipelinedCommands) -> None:
        first = asyncio.ensure_future(commands.mget(["held"]))
        second = asyncio.ensure_future(commands.mget(["b"]))
        await asyncio.sleep(0.02)
        first.cancel()
        server.let_go.set()
        assert await second == [b"b"]
        assert server.connections == 1

    against(lambda words: "mute" if words[1] == b"held" else "now", act)


def test_closing_ends_reads_under_way_and_connections_being_opened() -> None:
    async def act(server: ScriptedServer, commands: PipelinedCommands) -> None:
        reading = asyncio.ensure_future(commands.mget(["held"]))
        await asyncio.sleep(0.05)
        opening = asyncio.ensure_future(commands.many([("SET", "a", "b")]))
        await asyncio.sleep(0)
        await commands.close()
        for work in (reading, opening):
            with pytest.raises(StoreError):
                await work

    against(lambda words: "mute", act)


async def _append_and_read(url: str, **options: str) -> int:
    store = open_store(StoreSettings.model_validate({"url": url, **PATIENT, **options}))
    try:
        await store.append([Event("u", "1", 5)])
        return len((await store.read(["u"])).users[0].behaviours)
    finally:
        await store.close()


def test_passwords_and_databases_of_a_real_server(tmp_path: Path) -> None:
    port, secret = free_port(), "s3cret/with:signs"
    user = ["--user", "reader", "on", "+@all", "-client", "~*", ">other"]  # it may not even set a name
    with real_server(tmp_path, port, "--requirepass", secret, *user):
        place = f"127.0.0.1:{port}"
        assert asyncio.run(_append_and_read(f"redis://:s3cret%2Fwith%3Asigns@{place}/3")) == 1
        assert asyncio.run(_append_and_read(f"redis://{place}/3?password=s3cret%2Fwith%3Asigns")) == 1
        assert asyncio.run(_append_and_read(f"redis://reader:other@{place}/0", prefix="own")) == 1
        for wrong in (f"redis://{place}/0", f"redis://:wrong@{place}/0", f"redis://reader:wrong@{place}"):
            with pytest.raises(StoreError):
                asyncio.run(_append_and_read(wrong))
        with pytest.raises(StoreError, match="SELECT"):
            asyncio.run(_append_and_read(f"redis://reader:other@{place}/99"))

        with redis.Redis(port=port, password=secret, db=3) as client:
            assert client.exists("ctrlift1:seq:{u}")
            assert client.info("keyspace").keys() == {"db0", "db3"}


def test_the_librarys_path_keeps_the_same_promises(valkey: EmbeddedServer) -> None:
    assert asyncio.run(_append_and_read(f"{valkey.url}?health_check_interval=0", prefix="library")) == 1


def test_a_cluster(tmp_path: Path) -> None:
    port = free_port()
    with real_server(tmp_path, port, "--cluster-enabled", "yes"), redis.Redis(port=port) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        give_up = time.monotonic() + 10
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            assert time.monotonic() < give_up
        assert asyncio.run(_append_and_read(f"redis+cluster://127.0.0.1:{port}")) == 1


def test_the_primary_that_a_sentinel_names(tmp_path: Path) -> None:
    port, watching = free_port(), free_port()
    (tmp_path / "sentinel.conf").write_text(f"sentinel monitor main 127.0.0.1 {port} 1\n")
    with (
        real_server(tmp_path, port),
        real_server(tmp_path, watching, "--sentinel", config=tmp_path / "sentinel.conf"),
    ):
        assert asyncio.run(_append_and_read(f"redis+sentinel://127.0.0.1:{watching}/main")) == 1


def test_connections_carry_a_name_and_are_few(valkey: EmbeddedServer) -> None:
    async def act() -> int:
        store = open_store(StoreSettings.model_validate({"url": valkey.url, **PATIENT}))
        await store.append([Event("u", "1", 5)])
        await asyncio.gather(*(store.read([f"u{number}"]) for number in range(100)))
        await store.read([f"u{number}" for number in range(1000)])
        with redis.Redis.from_url(valkey.url) as client:
            named = sum(one["name"] == "ctrlift" for one in client.client_list())
        await store.close()
        return named

    assert asyncio.run(act()) == 3


def test_a_server_that_was_killed_and_started_again_is_found_within_two_seconds(tmp_path: Path) -> None:
    port = free_port()
    options = StoreSettings.model_validate(
        {"url": f"redis://127.0.0.1:{port}/0", **PATIENT, "cache_ttl_s": 0, "breaker": {"open_s": 0.5}}
    )

    async def until(histories: Histories, source: str) -> float:
        started = time.perf_counter()
        async with asyncio.timeout(10):
            while (await histories.read("u")).source != source:
                await asyncio.sleep(0.01)
        return time.perf_counter() - started

    async def act() -> float:
        histories = Histories(open_store(options), options, Metrics())
        histories.start()
        with real_server(tmp_path, port):
            await until(histories, "store")
        await until(histories, "empty")
        with real_server(tmp_path, port):
            seconds = await until(histories, "store")
        await histories.close()
        return seconds

    assert asyncio.run(act()) < RECOVERY_S


@pytest.mark.parametrize(
    ("fault", "delay_s", "answered"),
    [
        (Fault.SLOW, 0.005, True),
        (Fault.SLOW, 0.05, False),
        (Fault.SLOW, 0.5, False),
        (Fault.STALL, 0, False),
        (Fault.RESET, 0, False),
        (Fault.HALF, 0, False),
    ],
)
@pytest.mark.parametrize(
    ("run", "library"),
    [(asyncio.run, False), (uvloop.run, False), (asyncio.run, True)],
    ids=["own", "own-uvloop", "library"],
)
def test_faults_on_the_way_cost_the_budget_and_no_more(
    valkey: EmbeddedServer, fault: Fault, delay_s: float, answered: bool, run: Any, library: bool
) -> None:
    budget_s = 0.03 if fault is Fault.SLOW and not answered else 0.25

    async def act() -> None:
        async with proxy_to(valkey.socket_path) as proxy:
            # An option that only the library knows sends the address its way.
            url = f"redis://127.0.0.1:{proxy.port}/0" + ("?health_check_interval=0" if library else "")
            store = open_store(
                StoreSettings(url=url, timeout_ms=budget_s * 1e3, connect_timeout_ms=100, pool_wait_ms=1)
            )
            await store.ensure_marker()
            proxy.delay_s = delay_s
            proxy.switch(fault)
            for _ in range(3):
                started = time.perf_counter()
                if answered:
                    assert len((await store.read(["u"])).users) == 1
                else:
                    with pytest.raises(StoreError):
                        await store.read(["u"])
                assert time.perf_counter() - started < 2 * budget_s + 0.5
            proxy.switch(Fault.NONE)
            started = time.perf_counter()
            while True:
                try:
                    await store.ensure_marker()
                    await store.read(["u"])
                    break
                except StoreError:
                    assert time.perf_counter() - started < RECOVERY_S
            await store.close()

    run(act())


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", Address("cache")),
        ("redis://:a%40b@cache:7000/2", Address("cache", 7000, password="a@b", db=2)),
        ("redis://me:pw@[::1]:7000", Address("::1", 7000, username="me", password="pw")),
        ("redis://cache/1?db=4", Address("cache", db=4)),
        ("unix:///run/a%20b.sock?db=3&password=pw", Address(path="/run/a b.sock", password="pw", db=3)),
    ],
)
def test_plain_addresses(url: str, address: Address) -> None:
    assert plain_address(url) == address


@pytest.mark.parametrize(
    "url",
    ["rediss://cache", "redis+sentinel://a:1/main", "redis+cluster://a:1", "redis://cache?health_check_interval=5"],
)
def test_what_only_the_library_speaks(url: str) -> None:
    assert plain_address(url) is None


@pytest.mark.parametrize("url", ["redis://cache/first", "redis://cache?db=x", "redis://cache:port/0"])
def test_a_wrong_address_is_said(url: str) -> None:
    with pytest.raises(SettingsError, match=r"store\.url"):
        plain_address(url)

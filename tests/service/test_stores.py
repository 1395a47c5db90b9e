"""The stores: memory and a real server must agree, whatever is in the keys."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.behaviours import pack, records
from service.behaviours import BehaviourStore, Event, StoreError, open_store
from service.behaviours.codec import decode_user
from service.settings import StoreSettings

T = TypeVar("T")
# A test is no place for 8 ms: other tests share the cores.
PATIENT = {"timeout_ms": 2000, "connect_timeout_ms": 2000, "write_timeout_ms": 5000, "pool_wait_ms": 500}


def use(url: str, act: Callable[[BehaviourStore], Awaitable[T]], **options: Any) -> T:
    async def run() -> T:
        store = open_store(StoreSettings(url=url, **(PATIENT | options)))
        try:
            return await act(store)
        finally:
            await store.close()

    return asyncio.run(run())


def raw(url: str) -> redis.Redis:
    return redis.Redis.from_url(url)


def test_a_user_is_appended_read_and_deleted(real_store_url: str) -> None:
    async def act(store: BehaviourStore) -> None:
        events = [Event("life", "7", 200, "rate", 4.0), Event("life", "5", 100), Event("other", "5", 1)]
        first = await store.append(events)
        assert (first.accepted, first.duplicates) == (3, 0)
        again = await store.append([*events, Event("life", "6", 150)])
        assert (again.accepted, again.duplicates) == (1, 3)
        await store.put_users([("life", {"age": 31, "tags": ["a", "b"]})])
        life, nobody = (await store.read(["life", "nobody"])).users
        assert life.behaviours["ts"].tolist() == [100, 150, 200]
        assert np.isnan(life.behaviours["value"][0])
        assert life.features == {"age": 31, "tags": ["a", "b"]}
        assert (len(nobody.behaviours), nobody.features, nobody.corrupt) == (0, {}, 0)
        assert await store.delete_user("life")
        assert not await store.delete_user("life")

    use(real_store_url, act, prefix="life")


def test_keys_hold_the_documented_bytes_and_expire(real_store_url: str) -> None:
    use(real_store_url, lambda store: store.append([Event("u{1}", "7", 200, "rate", 4.0)]), prefix="bytes")
    with raw(real_store_url) as client:
        key = "bytes:seq:{u{1}}"
        assert client.get(key) == pack(records(["7"], [200], ["rate"], [4.0]))
        assert 29 * 86_400 < client.ttl(key) <= 30 * 86_400


_events = st.lists(
    st.builds(Event, st.just("u"), st.sampled_from("abc"), st.integers(0, 6), st.sampled_from([None, "x"])), max_size=12
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(_events, min_size=1, max_size=4))
def test_the_script_appends_as_the_reference_does(real_store_url: str, batches: list[list[Event]]) -> None:
    async def act(store: BehaviourStore) -> list[Any]:
        await store.delete_user("u")
        counts = [await store.append(batch) for batch in batches]
        (user,) = (await store.read(["u"])).users
        return [counts, user.behaviours.tobytes()]

    options = {"max_events": 7, "prefix": "parity"}
    assert use(real_store_url, act, **options) == use("memory://", act, **options)


DECREASING = b"\x01" + records(["1", "2"], [5, 4]).tobytes()
DAMAGED = [
    (b"", b"[1]"),
    (b"\x02" + b"x" * 20, b"{"),
    (b"\x01" + b"x" * 19, b'{"a": {"b": 1}}'),
    (DECREASING, b"\xff"),
]


@pytest.mark.parametrize(("value", "feature"), DAMAGED)
def test_corrupt_values_read_as_without_history_and_are_replaced(
    real_store_url: str, value: bytes, feature: bytes
) -> None:
    with raw(real_store_url) as client:
        client.set("corrupt:seq:{u}", value)
        client.set("corrupt:feat:{u}", feature)

    async def act(store: BehaviourStore) -> None:
        (user,) = (await store.read(["u"])).users
        assert (len(user.behaviours), user.features) == (0, {})
        assert user.corrupt >= 1
        if value is not DECREASING:  # that one has a right form: only reading it shows the damage
            await store.append([Event("u", "1", 5)])
            (mended,) = (await store.read(["u"])).users
            assert mended.behaviours["ts"].tolist() == [5]

    use(real_store_url, act, prefix="corrupt")


def test_a_key_of_another_type_reads_as_empty_and_is_replaced(real_store_url: str) -> None:
    with raw(real_store_url) as client:
        client.delete("wrong:seq:{u}")
        client.rpush("wrong:seq:{u}", *range(1000))

    async def act(store: BehaviourStore) -> list[int]:
        assert len((await store.read(["u"])).users[0].behaviours) == 0
        await store.append([Event("u", "1", 5)])
        return list((await store.read(["u"])).users[0].behaviours["ts"])

    assert use(real_store_url, act, prefix="wrong") == [5]


@settings(max_examples=1000, deadline=None)
@given(sequence=st.none() | st.binary(max_size=90), features=st.none() | st.binary(max_size=40))
def test_no_bytes_make_the_decoder_raise(sequence: bytes | None, features: bytes | None) -> None:
    user = decode_user(sequence, features, 1000)
    assert len(user.behaviours) <= 4


def test_many_users_in_one_round_trip(real_store_url: str) -> None:
    async def act(store: BehaviourStore) -> list[int]:
        await store.append([Event(f"u{number}", "1", number) for number in range(1000)])
        reading = await store.read([f"u{number}" for number in range(1000)])
        assert reading.marker is None
        marker = await store.ensure_marker()
        assert (await store.read(["u1"])).marker == marker == await store.ensure_marker()
        return [int(user.behaviours["ts"][0]) for user in reading.users]

    assert use(real_store_url, act, prefix="many") == list(range(1000))


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "unix:///nowhere/s.sock", "redis+sentinel://127.0.0.1:1/main"]
)
def test_a_store_that_is_not_there_is_a_store_error(url: str) -> None:
    async def act(store: BehaviourStore) -> None:
        with pytest.raises(StoreError):
            await store.read(["u"])
        with pytest.raises(StoreError):
            await store.append([Event("u", "1", 1)])

    use(url, act)

"""One pipelined connection, byte by byte: whatever is late, lost, cancelled or torn, nobody gets another's reply."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.behaviours.base import StoreError
from service.behaviours.commands import ReplyError
from service.behaviours.connection import _MOST_PLACES, Connection, pack

T = TypeVar("T")
PATIENT_S = 60.0
TURNS = 12  # enough for a deadline to be noticed, given grace, and told


class Wire:
    """Stands for the transport: keeps what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


class Talk:
    """A connection on a wire, both in hand."""

    def __init__(self) -> None:
        self.retired = 0
        self.wire = Wire()
        self.connection = Connection(self._on_retired)
        self.connection.connection_made(cast(asyncio.BaseTransport, self.wire))

    def _on_retired(self, connection: Connection) -> None:
        self.retired += 1

    def send(self, word: str, seconds: float = PATIENT_S) -> asyncio.Future[Any]:
        return self.connection.send(pack(("GET", word)), seconds)

    def hear(self, data: bytes) -> None:
        self.connection.data_received(data)


def run(act: Callable[[Talk], Awaitable[T]]) -> T:
    async def main() -> T:
        talk = Talk()
        try:
            return await act(talk)
        finally:
            talk.connection.abort("the test is over")

    return asyncio.run(main())


async def some_turns(count: int = TURNS) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def bulk(text: str) -> bytes:
    return f"${len(text)}\r\n{text}\r\n".encode()


async def failure(future: asyncio.Future[Any]) -> str:
    with pytest.raises(StoreError) as caught:
        await asyncio.wait_for(future, 1)
    return str(caught.value)


def test_replies_go_to_their_commands_in_order_however_they_are_cut() -> None:
    async def act(talk: Talk) -> None:
        futures = [talk.send(f"k{number}") for number in range(5)]
        for byte in b"".join(bulk(f"v{number}") for number in range(5)):
            talk.hear(bytes([byte]))
        assert [await future for future in futures] == [f"v{number}".encode() for number in range(5)]

    run(act)


def test_a_batch_gets_all_its_replies_and_errors_stand_among_them() -> None:
    async def act(talk: Talk) -> None:
        batch = talk.connection.send_together([pack(("SET", "a", "b")), pack(("EVALSHA", "x", 0))], PATIENT_S)
        after = talk.send("k")
        talk.hear(b"+OK\r\n-NOSCRIPT no such script\r\n$1\r\nv\r\n")
        ok, error = await batch
        assert (ok, error.code) == (b"OK", "NOSCRIPT")
        assert isinstance(error, ReplyError)
        assert await after == b"v"
        assert len(talk.wire.written) == 2

    run(act)


_STEPS = st.lists(
    st.one_of(
        st.sampled_from(["patient", "hasty", "batch", "turns"]),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("bytes"), st.integers(1, 40)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps=_STEPS)
def test_no_interleaving_gives_a_reply_to_somebody_else(steps: list[Any]) -> None:
    async def act(talk: Talk) -> None:
        owed, sent = b"", {}
        for number, step in enumerate(steps):
            if step == "turns":
                await some_turns()
            elif isinstance(step, str):
                if not talk.connection.usable:
                    with pytest.raises(StoreError):
                        talk.send("refused")
                    continue
                seconds = 0.0 if step == "hasty" else PATIENT_S
                count = 3 if step == "batch" else 1
                values = [f"{number}.{part}" for part in range(count)]
                packed = [pack(("GET", value)) for value in values]
                send = talk.connection.send_together(packed, seconds) if count > 1 else talk.send(values[0], seconds)
                sent[send] = [value.encode() for value in values] if count > 1 else values[0].encode()
                owed += b"".join(map(bulk, values))
            elif step[0] == "cancel" and len(sent) > step[1]:
                list(sent)[step[1]].cancel()
            elif step[0] == "bytes" and not talk.wire.aborted:
                talk.hear(owed[: step[1]])
                owed = owed[step[1] :]
        if not talk.wire.aborted:
            talk.hear(owed)
        await some_turns()
        for future, expected in sent.items():
            assert future.done()
            if not future.cancelled() and future.exception() is None:
                assert future.result() == expected
            elif not future.cancelled():
                assert isinstance(future.exception(), StoreError)

    run(act)


def test_a_command_out_of_time_keeps_its_place_and_its_neighbour_its_reply() -> None:
    async def act(talk: Talk) -> None:
        first, second = talk.send("a", 0.01), talk.send("b")
        assert "longer than 10.0 ms" in await failure(first)
        assert (talk.connection.usable, talk.retired, talk.wire.aborted) == (False, 1, False)
        with pytest.raises(StoreError, match="gone"):
            talk.send("c")
        talk.hear(bulk("late a") + bulk("b"))
        assert await second == b"b"

    run(act)


def test_a_retired_connection_closes_when_nobody_waits_any_more() -> None:
    async def act(talk: Talk) -> None:
        first, second = talk.send("a", 0.01), talk.send("b", 0.03)
        await failure(first)
        assert not talk.wire.aborted
        await failure(second)
        assert talk.wire.aborted

    run(act)


def test_a_reply_that_came_while_the_loop_was_busy_is_not_thrown_away() -> None:
    async def act(talk: Talk) -> None:
        future = talk.send("a", 0.02)
        loop = asyncio.get_running_loop()
        time.sleep(0.025)
        # The socket is read in a later turn than the one that sees the timer.
        loop.call_soon(lambda: loop.call_soon(talk.hear, bulk("a")))
        assert await future == b"a"

    run(act)


def test_a_process_that_got_no_core_waits_once_more_and_only_once() -> None:
    async def act(talk: Talk) -> None:
        future = talk.send("a", 0.05)
        time.sleep(0.1)
        await asyncio.sleep(0.02)
        assert not future.done()
        started = time.perf_counter()
        await failure(future)
        assert time.perf_counter() - started < 0.5

    run(act)


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"?!\r\n", "protocol"), (b"$-5x\r\n", "protocol"), (bulk("a") + bulk("b") + bulk("c"), "nobody asked")],
)
def test_what_is_not_an_answer_ends_the_connection(data: bytes, why: str) -> None:
    async def act(talk: Talk) -> None:
        futures = [talk.send("a"), talk.send("b")]
        talk.hear(data)
        assert talk.wire.aborted
        if why == "protocol":
            assert all([why in await failure(future) for future in futures])
        assert not talk.connection.usable

    run(act)


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_a_lost_connection_fails_everyone_at_once_also_after_half_a_reply(error: Exception | None) -> None:
    async def act(talk: Talk) -> None:
        batch = talk.connection.send_together([pack(("GET", "a"))] * 2, PATIENT_S)
        other = talk.send("b")
        talk.hear(bulk("a") + b"$10\r\nhal")
        talk.connection.connection_lost(error)
        talk.connection.connection_lost(error)
        assert "the store" in await failure(batch)
        assert "the store" in await failure(other)
        assert talk.retired == 1

    run(act)


def test_a_write_on_a_connection_that_was_just_reset_is_a_store_error() -> None:
    async def act(talk: Talk) -> None:
        def refuse(data: bytes) -> None:
            raise RuntimeError("the handler is closed")

        talk.wire.write = refuse  # type: ignore[method-assign]
        assert "reset" in await failure(talk.send("a"))

    run(act)


def test_the_queue_is_bounded() -> None:
    async def act(talk: Talk) -> None:
        futures = [talk.send("a") for _ in range(_MOST_PLACES)]
        with pytest.raises(StoreError, match="wait for the store already"):
            talk.send("a")
        talk.hear(bulk("a") * _MOST_PLACES)
        assert await asyncio.gather(*futures) == [b"a"] * _MOST_PLACES
        talk.send("a")

    run(act)

"""The load generators: loopback only, bounded, honest about waiting and about errors."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.serving.load import (
    Closed,
    LoadFailed,
    Open,
    Target,
    generator,
    is_loopback,
    post,
    read_requests,
    target,
)
from benchmarks.serving.load_program import Program
from benchmarks.serving.load_worker import complete, connected, percentile
from tests.benchmarks.answering import Put, serving, talking


@pytest.mark.parametrize("host", ["10.0.0.1", "192.0.2.7", "example.org", "", "0.0.0.0", "127.0.0.1.example.org"])
def test_only_this_machine_is_loaded(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ValueError, match="loopback"):
        Target(host, 80, (b"x",))
    with pytest.raises(RuntimeError, match="loopback"):  # the process looks again: it does not trust who starts it
        connected({"host": host, "port": 80, "plan": {"connections": 1, "requests": 1}})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_names_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Closed(connections=0, requests=1),
        lambda: Closed(connections=1, requests=10_000_000),
        lambda: Closed(connections=10_000, requests=1),
        lambda: Open(rate=0, seconds=1),
        lambda: Open(rate=10, seconds=1000),
    ],
)
def test_every_load_is_bounded(make: Any) -> None:
    with pytest.raises(ValueError, match="must be above 0 and at most"):
        make()


def test_a_closed_loop_sends_exactly_as_many_requests_in_turn(put: Put) -> None:
    bodies = tuple(f'{{"n":{number}}}'.encode() for number in range(5))
    with serving() as (url, server):
        load = put(url, Closed(connections=3, requests=52), bodies)
    assert (load.requests, load.errors, len(server.bodies)) == (52, 0, 52)
    assert {body: server.bodies.count(body) for body in bodies} == dict(zip(bodies, (11, 11, 10, 10, 10), strict=True))
    assert 0 < load.p50_ms <= load.p99_ms
    assert load.per_second == load.requests / load.seconds


def test_more_connections_than_requests(put: Put) -> None:
    with serving() as (url, server):
        assert put(url, Closed(connections=8, requests=3)).requests == 3
    assert len(server.bodies) == 3


def test_requests_of_the_warm_up_are_not_counted(put: Put) -> None:
    with serving() as (url, server):
        assert put(url, Closed(connections=2, requests=10), warm_up=3).requests == 10
    assert len(server.bodies) == 16


def test_the_same_connections_take_the_load_again(program: Program, tmp_path: Path) -> None:
    plan = Closed(connections=2, requests=10)
    with serving() as (url, server):
        where = target(url, "/score", [b"{}"])
        with generator(where, plan, tmp_path, warm_up=1, using=program) as ready:
            loads = [ready.run() for _ in range(3)]
    assert [(load.requests, load.errors) for load in loads] == [(10, 0)] * 3
    assert len(server.bodies) == 32, "each connection was warmed up once"


def test_the_kind_of_body_and_of_the_answer_are_said() -> None:
    head, _, body = post("h:1", "/score", b"[]", "application/x", "application/y").partition(b"\r\n\r\n")
    lines = b"Content-Type: application/x", b"Content-Length: 2", b"Accept: application/y"
    assert (head.split(b"\r\n")[2:], body) == (list(lines), b"[]")
    assert b"Accept" not in post("h:1", "/score", b"[]")


def test_everything_but_a_200_is_an_error(put: Put) -> None:
    with serving(lambda number: 503 if number % 4 == 0 else 200) as (url, _):
        assert put(url, Closed(connections=1, requests=40)).errors == 10


def test_a_server_that_hangs_up_is_told(put: Put) -> None:
    hang_up = talking(lambda connection: connection.recv(1))
    with hang_up as url, pytest.raises(LoadFailed, match=r"closed a connection|reset"):
        put(url, Closed(connections=1, requests=5))


def test_an_open_loop_keeps_its_rate_and_counts_the_wait(put: Put) -> None:
    """The server stands still once: a closed loop hides that in one latency, an open one sees everybody wait."""

    def stand_still(number: int) -> int:
        if number == 1:
            time.sleep(0.3)
        return 200

    with serving(stand_still) as (url, _):
        load = put(url, Open(rate=200, seconds=1.0, connections=1))
    assert abs(load.requests - 200) < 5 * 200**0.5
    assert load.p99_ms > 200
    with serving(stand_still) as (url, _):
        closed = put(url, Closed(connections=1, requests=200))
    assert closed.p99_ms < 100  # one slow request of 200


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=400))
def test_an_answer_is_complete_when_its_last_byte_is_there(body: bytes, cut: int) -> None:
    answer = b"HTTP/1.1 200 OK\r\nA: b\r\ncontent-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    assert complete(answer)
    part = answer[: min(cut, len(answer) - 1)]
    assert not complete(part)
    with pytest.raises(RuntimeError, match="longer than it says"):
        complete(answer + b"!")


def test_an_answer_in_chunks() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert not complete(head + b"2\r\n{}\r\n")
    assert complete(head + b"2\r\n{}\r\n0\r\n\r\n")
    with pytest.raises(RuntimeError, match="neither its length"):
        complete(b"HTTP/1.1 200 OK\r\n\r\n")


@given(requests=st.lists(st.binary(max_size=50), max_size=20))
def test_requests_reach_the_generator_as_they_were(requests: list[bytes], tmp_path_factory: Any) -> None:
    import struct

    path = tmp_path_factory.mktemp("handed") / "requests.bin"
    path.write_bytes(b"".join(struct.pack("<I", len(request)) + request for request in requests))
    assert read_requests(path) == requests


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([1.0], 0.99) == 1.0
    assert percentile([float(value) for value in range(100)], 0.5) == 50.0
    assert percentile([float(value) for value in range(100)], 0.99) == 99.0

"""Hot routes over a real socket: what the shorter way of the connection must not lose of HTTP."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from benchmarks.serving.app import quiet_settings
from benchmarks.serving.process import Service, service_process
from service.app import create_app
from service.hot_protocol import HotProtocol
from service.serving import server_config

ONE = json.dumps({"user_id": "1", "candidates": ["1", "2"], "ts": 1000}).encode()
HEAD = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


class Line:
    """A connection that is written to and read from by hand."""

    def __init__(self, service: Service) -> None:
        host, _, port = service.url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self) -> Got:
        status = int(self._file.readline().split()[1])
        headers: dict[str, str] = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        body = self._file.read(int(headers.get("content-length", 0)))
        return Got(status, headers, json.loads(body) if body else None)

    def ended(self) -> bool:
        return self._file.read(1) == b""


def request(body: bytes = ONE, *headers: bytes, head: bytes = HEAD) -> bytes:
    lines = b"".join(header + b"\r\n" for header in (*headers, b"content-length: %d" % len(body)))
    return head + lines + b"\r\n" + body


@pytest.fixture(scope="module")
def live(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"models.dir": published, "store.url": "memory://", "server.read_timeout_s": 0.5}
    with service_process(tmp_path_factory.mktemp("live"), settings) as service:
        yield service


def test_the_server_uses_the_shorter_way(published: Path) -> None:
    settings = quiet_settings(published, "memory://")
    assert server_config(settings, create_app(settings)).http is HotProtocol


def test_a_connection_answers_again_and_again(live: Service) -> None:
    with Line(live) as line:
        ids = set()
        for _ in range(3):
            line.send(request())
            got = line.read()
            assert got.status == 200
            assert got.body["request_id"] == got.headers["x-request-id"]
            assert {"date", "traceparent", "content-length"} <= got.headers.keys()
            ids.add(got.body["request_id"])
        assert len(ids) == 3


def test_requests_sent_at_once_are_answered_in_their_order(live: Service) -> None:
    with Line(live) as line:
        bad = request(b"{", b"x-request-id: second")
        health = b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: third\r\n\r\n"
        line.send(request(ONE, b"x-request-id: first") + bad + health + request(ONE, b"x-request-id: fourth"))
        got = [line.read() for _ in range(4)]
    assert [(one.status, one.headers["x-request-id"]) for one in got] == [
        (200, "first"),
        (400, "second"),
        (200, "third"),
        (200, "fourth"),
    ]


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_a_request_in_pieces_is_one_request(live: Service, piece: int) -> None:
    whole = request()
    with Line(live) as line:
        for start in range(0, len(whole), piece):
            line.send(whole[start : start + piece])
        assert line.read().status == 200


def test_a_chunked_body_is_put_together(live: Service) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (ONE[:10], ONE[10:11], ONE[11:]))
    with Line(live) as line:
        line.send(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert line.read().status == 200
        line.send(request())
        assert line.read().status == 200


def test_a_client_may_wait_for_the_invitation(live: Service) -> None:
    with Line(live) as line:
        line.send(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(ONE))
        assert line.read().status == 100
        line.send(ONE)
        assert line.read().status == 200


@pytest.mark.parametrize(
    ("head", "closing"),
    [
        (HEAD + b"connection: close\r\n", True),
        (HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"), True),
        (HEAD.replace(b"/score", b"/v1/score"), False),
        (HEAD.replace(b"/score", b"/score?x=1"), False),
        (HEAD.replace(b"/score", b"/sc%6Fre"), False),
    ],
)
def test_unusual_heads_are_answered_too(live: Service, head: bytes, closing: bool) -> None:
    with Line(live) as line:
        line.send(request(head=head))
        got = line.read()
        assert got.status == 200
        assert got.body["scores"]["pctr"]
        if closing:
            assert got.headers.get("connection") == "close"
            assert line.ended()


def test_a_refused_body_leaves_the_connection_usable(live: Service) -> None:
    long = b" " * 300_000
    with Line(live) as line:
        line.send(request(long, head=HEAD.replace(b"application/json", b"text/plain")))
        assert line.read().status == 415
        line.send(request())
        assert line.read().status == 200


def test_a_body_that_does_not_come_is_given_up(live: Service) -> None:
    with Line(live) as line:
        line.send(HEAD + b"content-length: 50\r\n\r\n{")
        assert line.read().status == 400


def test_clients_that_go_away_leave_nothing_behind(live: Service) -> None:
    process = psutil.Process(live.process.pid)
    before = process.num_fds()
    part = HEAD + b"content-length: 50\r\n\r\n{"  # which the fast path holds for a moment, and this one not:
    chunk = HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"
    # That one last: after half a second the time-out of reading would clear away what was left behind.
    for data in (HEAD, part, request(), request() * 20, chunk):
        for _ in range(10):
            with Line(live) as line:
                line.send(data)
    with httpx.Client(base_url=live.url) as client:
        for _ in range(200):
            assert client.post("/score", content=ONE, headers={"content-type": "application/json"}).status_code == 200
            if process.num_fds() <= before + 1:
                break
        metrics = client.get("/metrics").text
    assert process.num_fds() <= before + 1
    assert "ctrlift_in_flight 0.0" in metrics
    assert "request_crashed" not in live.log.read_text()
    assert "Traceback" not in live.log.read_text()

"""The fast path over real sockets and a real store: it answers as the ordinary route does, or hands over to it."""

import json
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.serving.process import Service, service_process
from service.behaviours import EmbeddedServer
from service.compiled.build import build
from service.compiled.library import CompiledUnavailable, compiled_module
from tests.service.test_hot_protocol import Got, Line, request
from tests.service.test_score_body import damaged

ORDINARILY = b"x-request-deadline-ms: 29000"  # a deadline of its own is nothing for the fast path
SENT = {"user_id": "known", "candidates": ["1", "2", "unseen"], "context": {"hour": 20}, "ts": 2000}
EVENTS = [{"user_id": user, "item_id": str(item), "ts": 900 + item} for user in ("known", "196") for item in range(12)]
WRITER = {"age": 31.5, "occupation": "writer"}


@pytest.fixture(scope="module", autouse=True)
def _compiled(compiler: list[str]) -> None:
    """The service is another process: it needs the library where it looks for it, and of the source as it is."""
    try:
        compiled_module()
    except CompiledUnavailable:
        build()


@pytest.fixture(scope="module")
def live(published: Path, valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"models.dir": published, "store.url": valkey.url, "store.prefix": "fast", "log.requests": True}
    settings |= {"limits.candidates": 5, "limits.behaviours": 3, "limits.id_bytes": 40, "limits.deadline_ms": 30_000}
    # A machine that stands still for a moment is not what is looked at here.
    settings |= {"store.timeout_ms": 2000, "store.connect_timeout_ms": 2000}
    folder = tmp_path_factory.mktemp("fast")
    with service_process(folder, settings) as service, httpx.Client(base_url=service.url) as ask:
        assert ask.post("/behaviours", json={"events": [one for one in EVENTS if one["item_id"] != "0"]}).is_success
        assert ask.post("/users", json={"users": [{"user_id": "known", "features": WRITER}]}).is_success
        yield service


def fast(service: Service) -> int:
    """Answers that the fast path has given."""
    text = httpx.get(service.url + "/metrics").text
    return int(float(re.findall(r"^ctrlift_fast_path_total (\S+)", text, re.MULTILINE)[0]))


def asked(line: Line, body: bytes, *headers: bytes) -> Got:
    line.send(request(body, b"x-request-id: same", *headers))
    return line.read()


def same(one: Got, other: Got) -> bool:
    return (one.status, one.body) == (other.status, other.body)


def body(**changed: Any) -> bytes:
    return json.dumps(SENT | changed).encode()


def test_a_plain_request_is_answered_by_the_fast_path_as_by_the_ordinary_route(live: Service) -> None:
    bodies = [
        body(),
        body(raw=True),
        body(candidates=["1"]),
        body(model="movies"),
        body(model="movies@1.0.0"),
        body(user_id="nobody knows"),
        body(user_features={"age": 40}),
        body(context={}),
        body(candidate_features={"price": [1, None, 2.5]}),
        body(ts=905),
    ]
    with Line(live) as line:
        before = fast(live)
        quick = [asked(line, one) for one in bodies]
        assert fast(live) - before == len(bodies)
        slow = [asked(line, one, ORDINARILY) for one in bodies]
        assert fast(live) - before == len(bodies)
    for one, other in zip(quick, slow, strict=True):
        assert one.status == 200
        scores, expected = one.body.pop("scores"), other.body.pop("scores")
        assert scores.keys() == expected.keys()
        for task, values in scores.items():
            assert values == pytest.approx(expected[task], rel=1e-12)
        assert one.body == other.body
        assert one.headers.keys() == other.headers.keys()
    assert {one.body["behaviours"]["length"] for one in quick} > {0, 4}


def test_generated_bodies_get_the_same_answer_either_way(live: Service) -> None:
    rng = random.Random(5)
    before = fast(live)
    with Line(live) as line:
        for _ in range(600):
            raw = damaged(rng)
            if rng.random() < 0.8:
                raw = re.sub(rb',?\s*"behaviours"\s*:\s*\[[^\]]*\]', b"", raw)
            one, other = asked(line, raw), asked(line, raw, ORDINARILY)
            assert same(one, other), raw
    assert fast(live) - before > 30


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (404, body(model="nothing")),
        (422, body(user_id=None)),
        (422, body(context={"hour": "late"})),
        (422, body(candidates=["1"] * 6)),
        (400, body()[:-1]),
    ],
)
def test_what_is_wrong_is_said_by_the_ordinary_route(live: Service, status: int, data: bytes) -> None:
    with Line(live) as line:
        one, other = asked(line, data), asked(line, data, ORDINARILY)
        assert one.status == status
        assert same(one, other)
        assert one.headers["content-type"] == "application/problem+json"


def test_a_damaged_history_is_said(live: Service, valkey: EmbeddedServer) -> None:
    import redis

    with redis.Redis.from_url(valkey.url) as store:
        store.set("fast:seq:{damaged}", b"\x01" + b"x" * 19)
        store.set("fast:feat:{damaged}", b'{"age": [1, {}]}')
    with Line(live) as line:
        one = asked(line, body(user_id="damaged"))
    assert one.status == 200
    assert one.body["degraded"] == ["corrupt_history"]


def test_requests_sent_before_the_reply_are_answered_in_their_order(live: Service) -> None:
    with Line(live) as line:
        line.send(request(body(), b"x-request-id: 1"))
        for number in range(2, 30):
            time.sleep(0.0003)
            headers = [b"x-request-id: %d" % number] + [ORDINARILY] * (number % 3 == 0)
            line.send(request(body(), *headers))
        got = [line.read() for _ in range(29)]
    assert [one.headers["x-request-id"] for one in got] == [str(number) for number in range(1, 30)]
    assert {one.status for one in got} == {200}


def test_the_ordinary_parser_goes_on_where_the_fast_path_left_off(live: Service) -> None:
    whole = request(body())
    with Line(live) as line:
        for _ in range(3):
            assert asked(line, body()).status == 200
            line.send(whole[:40])
            time.sleep(0.01)
            line.send(whole[40:])
            assert line.read().status == 200
            line.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" + whole)
            assert [line.read().status for _ in range(2)] == [200, 200]


def test_a_plain_request_within_an_unfinished_one_is_a_part_of_that(live: Service) -> None:
    before = fast(live)
    with Line(live) as line:
        line.send(b"GET /healthz HTTP/1.1\r\nx-note: ")
        time.sleep(0.05)
        line.send(request(body()))
        got = line.read()
    assert (got.status, "scores" in got.body) == (200, False), got
    assert fast(live) == before


def test_every_answer_has_its_line_in_the_log(live: Service) -> None:
    with Line(live) as line:
        line.send(request(body(), b"x-request-id: look-for-me"))
        line.read()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        lines = [json.loads(text) for text in live.log.read_text().splitlines() if "look-for-me" in text]
        if lines:
            break
    assert [(one["event"], one["route"], one["status"]) for one in lines] == [("request", "/score", 200)]


def test_metrics_count_what_the_fast_path_answers(live: Service) -> None:
    def counts() -> dict[str, float]:
        text = httpx.get(live.url + "/metrics").text
        found = re.findall(r"^(ctrlift_\S+?)(?:_count|_total)(\{\S*\})? (\S+)$", text, re.MULTILINE)
        return {name + labels: float(value) for name, labels, value in found}

    with Line(live) as line:
        asked(line, body())
        before = counts()
        for _ in range(7):
            asked(line, body())
        after = counts()
        for _ in range(7):
            asked(line, body(), ORDINARILY)
        ordinary = counts()
    grown = {name: after[name] - before[name] for name in before if "/metrics" not in name}
    expected = {name: ordinary[name] - after[name] for name in before if "/metrics" not in name}
    assert grown.pop("ctrlift_fast_path") == 7
    assert expected.pop("ctrlift_fast_path") == 0
    assert expected.pop('ctrlift_stage_seconds{stage="correct"}') == 7
    assert grown.pop('ctrlift_stage_seconds{stage="correct"}') == 0  # it is a part of writing the reply
    assert grown == expected
    assert grown['ctrlift_http_requests{method="POST",route="/score",status="200"}'] == 7


def test_a_key_is_asked_for(published: Path, valkey: EmbeddedServer, tmp_path: Path) -> None:
    import hashlib

    key = {"id": "k", "sha256": hashlib.sha256(b"secret").hexdigest(), "scopes": ["score"]}
    settings = {"models.dir": published, "store.url": valkey.url, "auth.keys": json.dumps([key])}
    with service_process(tmp_path, settings) as service, Line(service) as line:
        assert asked(line, body()).status == 401
        assert asked(line, body(), b"authorization: Bearer wrong").status == 401
        assert asked(line, body(), b"authorization: Bearer secret").status == 200
        assert asked(line, body(), b"x-api-key: secret").status == 200


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(
    published: Path, valkey: EmbeddedServer, tmp_path: Path
) -> None:
    settings = {"models.dir": published, "store.url": valkey.url, "server.keep_alive_s": 1}
    with service_process(tmp_path, settings) as service, Line(service) as line:
        line.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert line.read().status == 200
        for _ in range(5):
            time.sleep(0.4)
            assert asked(line, body()).status == 200
        started = time.monotonic()
        assert line.ended()
        assert 0.8 < time.monotonic() - started < 3


def test_a_request_under_way_is_answered_before_the_server_stops(
    published: Path, valkey: EmbeddedServer, tmp_path: Path
) -> None:
    settings = {"models.dir": published, "store.url": valkey.url}
    with service_process(tmp_path, settings) as service, Line(service) as line:
        asked(line, body())
        service.process.send_signal(signal.SIGSTOP)
        line.send(request(body()))
        time.sleep(0.05)
        service.process.send_signal(signal.SIGCONT)
        assert line.read().status == 200
        service.process.send_signal(signal.SIGTERM)
        assert line.ended()
        assert service.process.wait(10) == 0


def test_clients_that_go_away_leave_nothing_behind(live: Service) -> None:
    for _ in range(20):
        with Line(live) as line:
            line.send(request(body()))
    with Line(live) as line:
        assert asked(line, body()).status == 200
    deadline = time.monotonic() + 5
    while "ctrlift_in_flight 0.0" not in httpx.get(live.url + "/metrics").text:
        assert time.monotonic() < deadline
    assert "fast_path_failed" not in live.log.read_text()

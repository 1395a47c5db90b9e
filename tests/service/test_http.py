"""What surrounds a request: bodies, headers, keys, deadlines, places; over a real socket where it matters."""

import asyncio
import hashlib
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.serving.app import quiet_settings, running
from benchmarks.serving.process import Service, service_process
from service.api.identity import uuid7
from service.core.admission import Admission
from service.errors import Draining, Overloaded
from service.metrics import Metrics
from service.settings import LimitSettings

JSON = {"content-type": "application/json"}
ONE = {"user_id": "1", "candidates": ["1", "2"]}


@pytest.fixture(scope="module")
def live(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"models.dir": published, "store.url": "memory://", "log.requests": False, "server.read_timeout_s": 0.5}
    with service_process(tmp_path_factory.mktemp("live"), settings) as service:
        yield service


BODIES: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"{", JSON, 400, "bad_json"),
    (b"", JSON, 400, "bad_json"),
    (b'{"user_id": "1", "user_id": "2", "candidates": ["1"]}', JSON, 400, "bad_json"),
    (b'{"user_id": "\xff", "candidates": ["1"]}', JSON, 400, "bad_json"),
    (b'{"user_id": "\\ud800", "candidates": ["1"]}', JSON, 400, "bad_json"),
    (b"[" * 100_000 + b"]" * 100_000, JSON, 400, "bad_json"),
    (b'{"a":' * 17 + b"1" + b"}" * 17, JSON, 400, "bad_json"),
    (b'{"user_id": "[[[[[[[[[[[[[[[[[[[[[[[", "candidates": ["1"]}', JSON, 200, ""),
    (b'"' + b'\\"' * 1_000_000 + b"[" * 20, JSON, 400, "bad_json"),
    (b"1" * 5000, JSON, 400, "bad_json"),
    (json.dumps(ONE).encode(), {}, 415, "content_type"),
    (json.dumps(ONE).encode(), {"content-type": "text/plain"}, 415, "content_type"),
    (b"\x1f\x8b" + b"0" * 100, JSON | {"content-encoding": "gzip"}, 415, "content_type"),
    (b" " * (8 * 1024 * 1024 + 1), JSON, 413, "body_too_large"),
    (json.dumps(ONE).encode(), JSON | {"x-filler": "a" * 17_000}, 431, "headers_too_large"),
    (json.dumps(ONE).encode(), JSON | {"x-request-deadline-ms": "soon"}, 400, "bad_header"),
    (json.dumps(ONE).encode(), JSON | {"x-request-deadline-ms": "0"}, 400, "bad_header"),
]


def check_problem(reply: httpx.Response, status: int, code: str) -> None:
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["instance"] == reply.headers["x-request-id"]


@pytest.mark.parametrize(("body", "headers", "status", "code"), BODIES)
def test_hostile_bodies_and_headers_are_problems(
    live: Service, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    with httpx.Client(base_url=live.url, timeout=20) as client:
        reply = client.post("/score", content=body, headers=headers)
        if code:
            check_problem(reply, status, code)
        assert reply.status_code == status
        assert client.get("/healthz").status_code == 200


def test_a_long_chunked_body_is_cut_off_and_costs_no_memory(live: Service) -> None:
    process = psutil.Process(live.process.pid)

    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 1024 * 1024

    with httpx.Client(base_url=live.url, timeout=20) as client:
        client.post("/score", json=ONE)
        before = process.memory_info().rss
        try:
            reply = client.post("/score", content=chunks(), headers=JSON)
        except httpx.WriteError:
            pass  # the connection was closed while we were still sending
        else:
            check_problem(reply, 413, "body_too_large")
        assert process.memory_info().rss - before < 30 * 1024 * 1024
        assert client.get("/healthz").status_code == 200


def test_a_body_that_does_not_come_is_given_up(live: Service) -> None:
    async def half() -> tuple[bytes, float]:
        host, _, port = live.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        started = time.monotonic()
        writer.write(
            b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        )
        line = await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        return line, time.monotonic() - started

    line, seconds = asyncio.run(half())
    assert b" 400 " in line
    assert seconds < 5


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/score", 405, "method_not_allowed"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
        ("GET", "/score/", 404, "not_found"),
        ("GET", "/" + "a" * 9000, 414, "uri_too_long"),
    ],
)
def test_the_frameworks_errors_are_problems_too(live: Service, method: str, path: str, status: int, code: str) -> None:
    check_problem(httpx.request(method, live.url + path), status, code)


def test_every_route_is_also_under_v1(live: Service) -> None:
    assert httpx.post(live.url + "/v1/score", json=ONE).status_code == 200
    assert httpx.get(live.url + "/v1/readyz").status_code == 200


@pytest.mark.parametrize(("given", "kept"), [("a.B_c-1", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)])
def test_the_request_id_is_the_callers_if_it_is_one(live: Service, given: str, kept: bool) -> None:
    reply = httpx.get(live.url + "/healthz", headers={"x-request-id": given})
    assert (reply.headers["x-request-id"] == given) is kept


def test_a_trace_is_continued(live: Service) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    reply = httpx.get(live.url + "/healthz", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    version, continued, span, flags = reply.headers["traceparent"].split("-")
    assert (version, continued, flags) == ("00", trace, "01")
    assert span != "b7ad6b7169203331"


def test_made_ids_are_of_version_7_and_in_order() -> None:
    first, second = uuid7(), (time.sleep(0.002), uuid7())[1]
    assert first < second
    assert (first[14], first[19] in "89ab") == ("7", True)


def test_sigterm_ends_with_code_0(published: Path, tmp_path: Path) -> None:
    settings = {"models.dir": published, "store.url": "embedded://"}
    with service_process(tmp_path, settings) as service:
        child = psutil.Process(service.process.pid).children()
        assert [one.name() for one in child] == ["valkey-server"]
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(15) == 0
        assert not child[0].is_running()


def test_a_killed_service_leaves_no_server_behind(published: Path, tmp_path: Path) -> None:
    with service_process(tmp_path, {"models.dir": published, "store.url": "embedded://"}) as service:
        (server,) = psutil.Process(service.process.pid).children()
        service.process.kill()
        service.process.wait()
        psutil.wait_procs([server], timeout=10)
        assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


# --- in this process ---------------------------------------------------------------------------------------------


def ask(
    models: Path, requests: list[tuple[str, str, dict[str, Any]]], **sections: dict[str, Any]
) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        async with running(quiet_settings(models, "memory://", **sections)) as client:
            return [await client.request(method, path, **options) for method, path, options in requests]

    return asyncio.run(run())


def test_a_crash_is_an_opaque_500(published: Path) -> None:
    async def run() -> httpx.Response:
        async with running(quiet_settings(published, "memory://")) as client:
            container = client.app.state.container  # type: ignore[attr-defined]

            async def crash(*_: object) -> None:
                raise ValueError("secret value")

            container.scorer.score = crash
            return await client.post("/score", json=ONE)

    reply = asyncio.run(run())
    check_problem(reply, 500, "internal")
    assert "secret" not in reply.text


def test_writes_answer_after_the_write_and_count_repeats(published: Path) -> None:
    event = {"user_id": "1", "item_id": "5", "ts": 100}
    first, second, users, delete, again = ask(
        published,
        [
            ("POST", "/behaviours", {"json": {"events": [event, event, event | {"ts": 101.9}]}}),
            ("POST", "/behaviours", {"json": {"events": [event]}}),
            ("POST", "/users", {"json": {"users": [{"user_id": "1", "features": {"age": 30}}]}}),
            ("DELETE", "/users/1", {}),
            ("DELETE", "/users/1", {}),
        ],
    )
    assert first.json() == {"accepted": 2, "duplicates": 1}
    assert second.json() == {"accepted": 0, "duplicates": 1}
    assert users.json() == {"accepted": 1, "duplicates": 0}
    assert (delete.json(), again.json()) == ({"deleted": True}, {"deleted": False})


def test_stored_features_are_used_and_the_requests_override_them(published: Path) -> None:
    store = {"users": [{"user_id": "1", "features": {"age": 30, "occupation": "writer", "of_another_model": [1]}}]}
    given = ONE | {"user_features": {"age": 30, "occupation": "writer"}}
    _, stored, same, other = ask(
        published,
        [
            ("POST", "/users", {"json": store}),
            ("POST", "/score", {"json": ONE}),
            ("POST", "/score", {"json": given | {"user_id": "2"}}),
            ("POST", "/score", {"json": ONE | {"user_features": {"age": 60}}}),
        ],
    )
    assert stored.json()["scores"] == same.json()["scores"]
    assert stored.json()["scores"] != other.json()["scores"]


def test_a_write_without_a_store_is_503_with_retry_after(published: Path) -> None:
    async def run() -> list[httpx.Response]:
        async with running(quiet_settings(published, "redis://127.0.0.1:1/0")) as client:
            event = {"user_id": "1", "item_id": "5", "ts": 100}
            return [
                await client.post("/behaviours", json={"events": [event]}),
                await client.post("/users", json={"users": [{"user_id": "1", "features": {}}]}),
                await client.post("/score", json=ONE),
                await client.get("/readyz"),
            ]

    behaviours, users, score, readyz = asyncio.run(run())
    for reply in (behaviours, users):
        check_problem(reply, 503, "store_unavailable")
        assert int(reply.headers["retry-after"]) >= 1
    assert (score.status_code, score.json()["behaviours"]["source"]) == (200, "empty")
    assert score.json()["degraded"] == ["no_history"]
    assert readyz.status_code == 200


def test_keys_and_scopes(published: Path, tmp_path: Path) -> None:
    def entry(key: str, *scopes: str) -> dict[str, object]:
        return {"id": key, "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": list(scopes)}

    file = tmp_path / "keys.json"
    file.write_text(json.dumps([entry("scoring", "score"), entry("reading", "read")]))

    async def run() -> list[tuple[int, str | None]]:
        auth = {"keys_file": str(file), "reread_s": 0.000001}
        async with running(quiet_settings(published, "memory://", auth=auth)) as client:
            seen = []

            async def call(headers: dict[str, str], path: str = "/score") -> None:
                method = "GET" if path == "/models" else "POST"
                reply = await client.request(method, path, json=ONE if method == "POST" else None, headers=headers)
                seen.append((reply.status_code, reply.json().get("code")))

            await call({})
            await call({"x-api-key": "wrong"})
            await call({"authorization": "Bearer scoring"})
            await call({"x-api-key": "scoring"})
            await call({"x-api-key": "scoring"}, "/models")
            await call({"x-api-key": "reading"}, "/models")
            await call({"x-api-key": "reading"}, "/behaviours")
            file.write_text(json.dumps([entry("rotated", "score", "read")]))
            await call({"x-api-key": "scoring"})
            await call({"x-api-key": "rotated"})
            file.write_text("[")  # half written: the last good list stays
            await call({"x-api-key": "rotated"})
            seen.append(((await client.get("/healthz")).status_code, None))
            return seen

    assert asyncio.run(run()) == [
        (401, "no_key"),
        (401, "bad_key"),
        (200, None),
        (200, None),
        (403, "scope_missing"),
        (200, None),
        (403, "scope_missing"),
        (401, "bad_key"),
        (200, None),
        (200, None),
        (200, None),
    ]


def test_a_deadline_that_passes_is_504(published: Path) -> None:
    async def run() -> httpx.Response:
        async with running(quiet_settings(published, "memory://")) as client:
            container = client.app.state.container  # type: ignore[attr-defined]

            async def slow(*_: object) -> None:
                await asyncio.sleep(30)

            container.scorer.score = slow
            return await client.post("/score", json=ONE, headers={"x-request-deadline-ms": "20"})

    check_problem(asyncio.run(run()), 504, "deadline_exceeded")


@asynccontextmanager
async def place(admission: Admission, seconds_left: float) -> AsyncIterator[None]:
    await admission.enter(seconds_left)
    try:
        yield
    finally:
        admission.leave(0.0)


def test_places_the_queue_and_the_rest() -> None:
    async def run() -> None:
        admission = Admission(LimitSettings(concurrency=2, queue=1), Metrics())
        release, order = asyncio.Event(), []

        async def work(name: str) -> None:
            async with place(admission, 10):
                order.append(name)
                await release.wait()

        tasks = [asyncio.create_task(work(name)) for name in "abc"]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="queue is full"):
            async with place(admission, 10):
                pass
        tasks[2].cancel()
        await asyncio.wait({tasks[2]})
        late = asyncio.create_task(work("d"))
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(tasks[0], tasks[1], late)
        assert order == ["a", "b", "d"]
        assert admission._active == 0
        admission.draining = True
        with pytest.raises(Draining):
            async with place(admission, 10):
                pass

    asyncio.run(run())


def test_the_gauges_know_who_works_and_who_waits() -> None:
    async def run() -> None:
        metrics = Metrics()
        admission = Admission(LimitSettings(concurrency=1, queue=5), metrics)
        assert admission.enter_at_once()
        assert not admission.enter_at_once()
        waiting = asyncio.create_task(admission.enter(10))
        await asyncio.sleep(0)
        shown = metrics.exposition().decode()
        assert "ctrlift_in_flight 1.0" in shown
        assert "ctrlift_queued 1.0" in shown
        admission.leave(0.0)
        await waiting
        admission.leave(0.0)
        shown = metrics.exposition().decode()
        assert "ctrlift_in_flight 0.0" in shown
        assert "ctrlift_queued 0.0" in shown

    asyncio.run(run())


def test_who_would_wait_past_the_deadline_is_told_at_once() -> None:
    async def run() -> None:
        admission = Admission(LimitSettings(concurrency=1, queue=100), Metrics())
        admission._mean_s = 1.0
        async with place(admission, 10):
            with pytest.raises(Overloaded, match="outlast"):
                async with place(admission, 0.5):
                    pass

    asyncio.run(run())

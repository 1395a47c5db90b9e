"""Several worker processes behind one port: balance, sums, crashes, drains and orphans. Real processes on loopback."""

import http.client
import json
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.serving.costs import process_tree
from benchmarks.serving.process import Service, service_process
from bundle.files import sha256_of
from bundle.graph_tables import TABLES_FILE
from bundle.manifest import MANIFEST_FILE, FileEntry, Manifest
from tests.service import tiny_bundle
from tests.service.waiting import soon

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
BODY = json.dumps({"candidates": ["1", "2", "3"], "behaviours": [], "ts": tiny_bundle.NOW}).encode()
HEADERS = {"content-type": "application/json"}
WORKERS = 2


def settings(models: Path, **more: Any) -> dict[str, Any]:
    return {"models.dir": models, "store.url": "embedded://", "server.workers": WORKERS} | more


@pytest.fixture(scope="module")
def service(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_process(tmp_path_factory.mktemp("workers"), settings(published)) as running:
        yield running


def connect(service: Service) -> http.client.HTTPConnection:
    host, _, port = service.url.removeprefix("http://").partition(":")
    return http.client.HTTPConnection(host, int(port), timeout=10)


def score(connection: http.client.HTTPConnection) -> int:
    connection.request("POST", "/score", BODY, HEADERS)
    reply = connection.getresponse()
    reply.read()
    return reply.status


def lines(service: Service, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def answers(service: Service) -> list[dict[str, Any]]:
    """Lines of requests for scores; each is written just after its answer."""
    return [line for line in lines(service, "request") if line["route"] == "/score"]


def workers(service: Service) -> dict[int, int]:
    """Number -> process of the workers that were started last."""
    return {line["worker"]: line["pid"] for line in lines(service, "worker_started")}


def metric(service: Service, name: str, **labels: str) -> float:
    connection = connect(service)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    total = 0.0
    for line in text.splitlines():
        if re.match(rf"{name}(\{{|\s)", line) and all(f'{key}="{value}"' in line for key, value in labels.items()):
            total += float(line.rpartition(" ")[2])
    return total


def test_connections_are_spread_evenly_and_all_answers_are_counted(service: Service) -> None:
    connections = [connect(service) for _ in range(8)]
    for _ in range(3):
        assert [score(connection) for connection in connections] == [200] * 8
    for connection in connections:
        connection.close()
    soon(lambda: len(answers(service)) == 24)
    answered = Counter(line["worker"] for line in answers(service))
    assert min(answered[0], answered[1]) >= 9  # four connections each, but for a worker that is kept from its core
    # Numbers of the other worker may be a moment old.
    soon(lambda: metric(service, "ctrlift_http_requests_total", route="/score", status="200") == 24)
    assert metric(service, "ctrlift_http_request_seconds_count", route="/score") == 24
    assert metric(service, "ctrlift_model_info", model="movies", version="1.0.0") == 1


def test_ids_of_requests_differ_between_workers(service: Service) -> None:
    connections = [connect(service) for _ in range(4)]
    seen = []
    for connection in connections * 5:
        connection.request("GET", "/healthz")
        reply = connection.getresponse()
        reply.read()
        seen.append(reply.getheader("x-request-id"))
    for connection in connections:
        connection.close()
    assert len(set(seen)) == 20


def test_a_killed_worker_is_started_anew_and_nobody_sees_an_error(service: Service) -> None:
    before = workers(service)
    counted = metric(service, "ctrlift_http_requests_total", route="/score", status="200")
    os.kill(before[1], signal.SIGKILL)
    killed = time.monotonic()
    statuses, broken = Counter[int](), 0
    while workers(service)[1] == before[1] or len(lines(service, "version_loaded")) < 3:
        connection = connect(service)
        try:
            statuses[score(connection)] += 1
        except (ConnectionError, http.client.HTTPException):
            broken += 1  # it was in the hands of the one that died
        connection.close()
        assert time.monotonic() < killed + 5
    assert set(statuses) == {200}
    assert broken <= 1
    (ended,) = lines(service, "worker_ended")
    assert (ended["worker"], ended["pid"], ended["code"]) == (1, before[1], -signal.SIGKILL)
    assert workers(service)[0] == before[0]
    total = counted + statuses[200]
    soon(lambda: metric(service, "ctrlift_http_requests_total", route="/score", status="200") == total)
    soon(lambda: len(answers(service)) >= total)
    # Its models are loaded a moment before it takes connections.
    soon(lambda: who_answers(service, 4) == {0, 1})


def who_answers(service: Service, count: int) -> set[int]:
    """The workers that new connections, all open at once, are answered by."""
    written = len(answers(service))
    connections = [connect(service) for _ in range(count)]
    assert [score(connection) for connection in connections] == [200] * count
    for connection in connections:
        connection.close()
    soon(lambda: len(answers(service)) == written + count)
    return {line["worker"] for line in answers(service)[written:]}


def test_the_service_is_ready_when_all_workers_are(service: Service) -> None:
    (ready,) = lines(service, "ready")
    assert ready["workers"] == WORKERS
    connection = connect(service)
    connection.request("GET", "/readyz")
    assert json.loads(connection.getresponse().read())["checks"]["workers"] == "ok"
    connection.close()


def test_the_end_waits_for_requests_in_flight(published: Path, tmp_path: Path) -> None:
    with service_process(tmp_path, settings(published, **{"limits.deadline_ms": 20_000})) as service:
        halves = [half_a_request(service) for _ in range(4)]
        service.process.send_signal(signal.SIGTERM)
        soon(lambda: lines(service, "stopping"))
        soon(lambda: not accepts(service))
        for open_request in halves:
            open_request.sendall(BODY[10:])
            assert open_request.recv(65536).startswith(b"HTTP/1.1 200 ")
            open_request.close()
        assert service.process.wait(10) == 0
    assert [line["code"] for line in lines(service, "worker_ended")] == [0, 0]


def half_a_request(service: Service) -> socket.socket:
    host, _, port = service.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    head = f"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
    connection.sendall(head.encode() + BODY[:10])
    time.sleep(0.05)  # the worker has begun with it
    return connection


def accepts(service: Service) -> bool:
    connection = connect(service)
    try:
        connection.request("GET", "/healthz")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


@LINUX
def test_a_killed_parent_leaves_nobody(published: Path, tmp_path: Path) -> None:
    with service_process(tmp_path, settings(published)) as service:
        family = process_tree(service.process.pid)
        assert len(family) == 1 + WORKERS + 1  # the store is one of them
        service.process.kill()
        service.process.wait()
        soon(lambda: not any(alive(pid) for pid in family), 5)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_workers_that_cannot_start_end_the_service(published: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text("no JSON")
    with (
        pytest.raises(RuntimeError, match="did not start"),
        service_process(tmp_path, settings(published, **{"auth.keys_file": keys})),
    ):
        pass
    assert '"worker_failed"' in (tmp_path / "service.log").read_text()
    assert "API keys is not JSON" in (tmp_path / "service.log").read_text()


@LINUX
def test_workers_share_the_pages_of_the_tables(published: Path, tmp_path: Path) -> None:
    megabytes = 64
    models = tmp_path / "models"
    bundle = tiny_bundle.publish(models)
    widen(bundle, megabytes)
    with service_process(tmp_path, settings(models, **{"store.url": "memory://"})) as service:
        connections = [connect(service) for _ in range(WORKERS)]
        assert [score(connection) for connection in connections] == [200] * WORKERS
        for pid in workers(service).values():
            mapped, private = table_pages(pid)
            assert mapped > 0
            assert private == 0
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            kilobytes = sum(int(size) for size in re.findall(r"Private_(?:Clean|Dirty): +(\d+)", rollup))
            assert kilobytes < megabytes * 1024
        for connection in connections:
            connection.close()


def widen(bundle: Path, megabytes: int) -> None:
    """Move a table of a small bundle into a file and make it large; the rows that are read stay what they were."""
    model = onnx.load(bundle / "model.onnx")
    (table,) = [tensor for tensor in model.graph.initializer if tensor.name == "cw"]
    values = onnx.numpy_helper.to_array(table)
    wide = np.zeros(megabytes * 2**20 // 4, np.float32)
    wide[: len(values)] = values
    (bundle / TABLES_FILE).write_bytes(wide.tobytes())
    table.ClearField("raw_data")
    table.dims[:] = wide.shape
    table.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": TABLES_FILE, "offset": "0", "length": str(wide.nbytes)}.items():
        table.external_data.add(key=key, value=value)
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    manifest = Manifest.model_validate_json((bundle / MANIFEST_FILE).read_bytes())
    files = dict(manifest.files)
    for name in ("model.onnx", TABLES_FILE):
        digest, size = sha256_of(bundle / name)
        files[name] = FileEntry(sha256=digest, size=size)
    (bundle / MANIFEST_FILE).write_text(manifest.model_copy(update={"files": files}).to_text())


def table_pages(pid: int) -> tuple[int, int]:
    """Resident and private kilobytes of the table file in a process."""
    resident = private = 0
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(TABLES_FILE)
        elif inside and line.startswith("Rss:"):
            resident += int(line.split()[1])
        elif inside and line.startswith("Private_"):
            private += int(line.split()[1])
    return resident, private

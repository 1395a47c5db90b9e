"""The compiled load generator beside the one in Python: which one runs, what both refuse, and its parts one by one."""

from __future__ import annotations

import json
import random
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.serving import load_program
from benchmarks.serving.load import Closed, LoadFailed, Open
from benchmarks.serving.load_program import PYTHON, Program, compiled
from benchmarks.serving.speed_run import RunOptions, result
from service.compiling import FLAGS, BuildFailed, run_compiler
from tests.benchmarks.answering import Put, answering, serving, talking
from tests.conftest import build_once

ROOT = Path(__file__).parents[2]
HEAD = b"HTTP/1.1 200 OK\r\nServer: any\r\n"
SIZED = HEAD + b"Content-Length: 2\r\n\r\n{}"
CHUNKED = HEAD + b"Transfer-Encoding: Chunked\r\n\r\n1;a=b\r\n{\r\nA\r\n012345678}\r\n0\r\n\r\n"
# What is in a chunk may look like the end of the last one, and fields may follow that.
TRICKY = HEAD + b"transfer-encoding:chunked\r\n\r\n7\r\n{}0\r\n\r\n\r\n000\r\nA: b\r\n\r\n"
EMPTY = b"HTTP/1.1 503 Busy\r\ncontent-length:0\r\nRetry-After: 1\r\n\r\n"
ORDER: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 80,
    "requests": "requests.bin",
    "warm_up": 0,
    "patience_s": 1.0,
    "plan": {"connections": 1, "requests": 1},
}


def one_by_one(answer: bytes) -> list[bytes]:
    return [answer[place : place + 1] for place in range(len(answer))]


@pytest.mark.parametrize("answer", [SIZED, CHUNKED], ids=["sized", "chunked"])
@pytest.mark.parametrize("cut", [lambda answer: [answer], one_by_one], ids=["whole", "in pieces"])
def test_answers_as_they_may_come(put: Put, answer: bytes, cut: Callable[[bytes], list[bytes]]) -> None:
    with talking(answering(cut(answer))) as url:
        load = put(url, Closed(connections=2, requests=10), warm_up=1)
    assert (load.requests, load.errors) == (10, 0)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (HEAD + b"\r\n", "neither its length nor that it comes in chunks: (b')?HTTP/1.1 200 OK"),
        (SIZED + b"}", "longer than it says"),
    ],
)
def test_answers_without_an_end(put: Put, answer: bytes, told: str) -> None:
    with talking(answering([answer])) as url, pytest.raises(LoadFailed, match=told):
        put(url, Closed(connections=1, requests=5))


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


@pytest.mark.parametrize(
    ("plan", "warm_up", "told"),
    [
        (Closed(connections=3, requests=9), 0, r"nothing was answered for 0\.2 s"),
        (Open(rate=200, seconds=0.1, connections=2), 0, r"[1-9]\d* requests were not answered 0\.2 s after the end"),
        (Closed(connections=3, requests=9), 1, r"timed out|took too long"),
    ],
)
def test_a_server_that_stalls_is_told(put: Put, plan: Closed | Open, warm_up: int, told: str) -> None:
    with talking(silent) as url, pytest.raises(LoadFailed, match=told):
        put(url, plan, warm_up=warm_up, patience_s=0.2)


def test_a_seed_decides_how_many_requests_come(put: Put) -> None:
    def count(seed: int) -> int:
        return put(url, Open(rate=1000, seconds=0.1, connections=4, seed=seed)).requests

    with serving() as (url, _):
        counts = [count(seed) for seed in (1, 1, 2, 3)]
    assert counts[0] == counts[1]
    assert len(set(counts)) > 1
    assert abs(sum(counts) - 400) < 5 * 500**0.5, "of the two with one seed the deviations are the same"


@pytest.mark.parametrize("host", ["10.0.0.1", "192.0.2.7", "example.org", "", "0.0.0.0", "::", "128.0.0.1"])
def test_no_generator_loads_another_machine(program: Program, host: str, tmp_path: Path) -> None:
    requests = tmp_path / "requests.bin"
    requests.write_bytes(b"\x01\0\0\0x")
    assert "not the loopback interface" in refused(program, ORDER | {"host": host, "requests": str(requests)})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"plan": {"connections": 257, "requests": 1}}, "connections is out of its bounds"),
        ({"plan": {"connections": 1, "requests": 1_000_001}}, "requests is out of its bounds"),
        ({"plan": {"connections": 1, "rate": 10, "seconds": 121, "seed": 0}}, "seconds is out of its bounds"),
        ({"port": 0}, "port is out of its bounds"),
        ({"port": "80"}, "not as expected"),
        ({"unknown": 1}, "not as expected"),
        ({"requests": "/nowhere/a file\u00e4"}, "cannot be opened: No such file"),
    ],
)
def test_the_compiled_one_looks_at_its_order_again(compiled_program: Program, change: Any, told: str) -> None:
    assert told in refused(compiled_program, ORDER | change)


@pytest.mark.parametrize(("content", "told"), [(b"", "holds no request"), (b"\x03\0\0\0ab", "ends in a request")])
def test_requests_that_are_not_whole(compiled_program: Program, content: bytes, told: str, tmp_path: Path) -> None:
    requests = tmp_path / "requests.bin"
    requests.write_bytes(content)
    assert told in refused(compiled_program, ORDER | {"requests": str(requests)})


def refused(program: Program, order: dict[str, Any]) -> str:
    """What a generator says to an order that it does not take."""
    command = [*program.command, json.dumps(order, ensure_ascii=False)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    (line,) = done.stdout.splitlines()
    return str(json.loads(line)["failed"])


def test_a_program_is_compiled_once_for_a_source(
    tmp_path: Path, compiled_program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(target: Path) -> None:
        made.append(target)
        target.touch()

    monkeypatch.setattr(load_program, "build", make)
    assert compiled(Path(compiled_program.command[0]).parent) == compiled_program
    assert made == []
    assert compiled(tmp_path) == compiled(tmp_path)
    changed = tmp_path / "source"
    changed.mkdir()
    (changed / "main.cpp").write_text("int main() { return 1; }\n")
    monkeypatch.setattr(load_program, "SOURCE", changed)
    assert compiled(tmp_path) == compiled(tmp_path)
    assert len(set(made)) == len(made) == 2


def test_without_a_compiler_the_load_comes_from_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none() -> list[str]:
        raise BuildFailed("no C++ compiler was found")

    monkeypatch.setattr(load_program, "find_compiler", none)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_program.program.cache_clear()
    try:
        assert load_program.program() == PYTHON
        found = result(RunOptions(), {"candidates": {"points": []}})
    finally:
        load_program.program.cache_clear()
    assert found["measured"]["candidates"]["generator"] == "python"


def test_with_one_the_compiled_program_puts_it_on(compiled_program: Program) -> None:
    assert load_program.program() == compiled_program
    assert result(RunOptions(), {"candidates": {}})["measured"]["candidates"]["generator"] == "compiled"


@pytest.fixture(scope="session")
def probe(shared_folder: Path, compiler: list[str]) -> Path:
    """The compiled generator's parts, under the sanitizers where they are there."""
    asked = subprocess.run([*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    there = Path(asked.stdout.strip()).is_absolute()
    flags = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all") if there else ()
    source = load_program.SOURCE
    parts = [Path(__file__).parent / "load_probe.cpp", source / "reply.cpp", source / "failing.cpp"]

    def make(folder: Path) -> None:
        run_compiler([*compiler, *FLAGS, "-O1", *flags, f"-I{source}", *map(str, parts), "-o", str(folder / "probe")])

    return build_once(shared_folder / "load-probe", make) / "probe"


def said(probe: Path, *arguments: str, given: str = "") -> list[str]:
    return subprocess.run(
        [probe, *arguments], input=given, capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()


def test_times_of_arrival_are_those_of_a_poisson_process(probe: Path) -> None:
    times = np.array(said(probe, "arrivals", "50", "7", "20000"), dtype=float)
    again, other = (said(probe, "arrivals", "50", seed, "3") for seed in ("7", "8"))
    assert again == [f"{value:.17g}" for value in times[:3]]
    assert other != again
    gaps = np.diff(times, prepend=0.0)
    assert gaps.min() >= 0
    # Kolmogorov and Smirnov: the seed is fixed, and one in a thousand seeds is beyond this.
    reached = 1 - np.exp(-50 * np.sort(gaps))
    ranks = np.arange(len(gaps) + 1) / len(gaps)
    largest = max(np.abs(reached - ranks[1:]).max(), np.abs(reached - ranks[:-1]).max())
    assert largest < 1.95 / len(gaps) ** 0.5
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 4 / len(gaps) ** 0.5, "gaps know nothing of each other"


def test_an_answer_ends_with_its_last_byte_however_it_is_cut(probe: Path) -> None:
    """Every answer in one line of pieces, and after it the same without its last byte."""
    chance = random.Random(5)
    lines, wanted = [], []
    for answer, status in [(SIZED, 200), (CHUNKED, 200), (TRICKY, 200), (EMPTY, 503)] * 30:
        cuts = sorted(chance.sample(range(1, len(answer)), chance.randrange(8)))
        pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
        lines.append(" ".join(piece.hex() for piece in pieces))
        wanted.append(f"{len(pieces)} {status}")
        lines.append(lines[-1][:-2])
        wanted.append("-1")
    found = said(probe, "replies", given="\n".join(lines) + "\n")
    assert [line if line[0] != "-" else "-1" for line in found] == wanted


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"SSH-2.0 hello\r\n\r\n", "does not begin with a status"),
        (b"HTTP/1.1 2\r\n\r\n", "does not begin with a status"),
        (HEAD + b"content-length: -2\r\n\r\n", "has no length: -2"),
        (HEAD + b"content-length: 99999999999999999999\r\n\r\n", "has no length"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nx\r\n", "a chunk of an answer has no size: x"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n", "has no size"),
        (CHUNKED + b"\r\n", "longer than it says"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 70000, "head of an answer does not end"),
        (HEAD + b'\xff"\\\r\n\r\n', "neither its length"),
    ],
)
def test_what_is_no_answer_ends_the_program(probe: Path, answer: bytes, told: str) -> None:
    done = subprocess.run([probe, "replies"], input=answer.hex().encode(), capture_output=True, check=False)
    assert done.returncode == 1, done.stderr[-2000:]
    assert told in json.loads(done.stdout)["failed"]

"""Load on a server of this machine: as fast as it answers, or at a rate that does not wait for it.

The generator is a process of its own on plain sockets that sends requests written beforehand, so that it costs the
machine little and shares no interpreter with what it drives; ``load_program`` says which program it is. It only ever
talks to the loopback interface, a run is bounded by a count or a time, and everything but a 200 is counted as an error.

Source: Schroeder, Wierman and Harchol-Balter 2006, "Open versus closed: a cautionary tale".
"""

from __future__ import annotations

import ipaddress
import json
import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

from benchmarks.serving.load_program import Program, program

MOST_REQUESTS: Final = 1_000_000
LONGEST_S: Final = 120.0
MOST_CONNECTIONS: Final = 256
JSON: Final = "application/json"
PATIENCE_S: Final = 30.0
_ROOT: Final = Path(__file__).resolve().parents[2]
_LENGTH: Final = struct.Struct("<I")


class LoadFailed(RuntimeError):
    """The load could not be put on, or was not answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """``connections`` callers, each sending its next request when the last one is answered.

    Raises:
        ValueError: if a number is out of its bounds.
    """

    connections: int
    requests: int

    def __post_init__(self) -> None:
        """Check the bounds."""
        _between("connections", self.connections, MOST_CONNECTIONS)
        _between("requests", self.requests, MOST_REQUESTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Open:
    """Requests at random times, ``rate`` a second on average, whether or not earlier ones are answered.

    A latency counts from the time at which the request should have been sent, so that waiting for a free connection
    is part of it. What would have to wait behind more than ``connections`` waits in the generator.

    Raises:
        ValueError: if a number is out of its bounds.
    """

    rate: float
    seconds: float
    connections: int = MOST_CONNECTIONS
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the bounds."""
        _between("connections", self.connections, MOST_CONNECTIONS)
        _between("rate", self.rate, MOST_REQUESTS)
        _between("seconds", self.seconds, LONGEST_S)


@dataclass(frozen=True, slots=True)
class Load:
    """What a generator saw.

    Attributes:
        requests: answered.
        errors: of them, without a 200; and connections that broke.
        seconds: from the first request to the last answer.
        generator_cpu_s: what the generator itself took.
        p50_ms: median latency.
        p99_ms: latency that one in a hundred exceeded.
    """

    requests: int
    errors: int
    seconds: float
    generator_cpu_s: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Target:
    """An address on the loopback interface and the requests to send in turn.

    Raises:
        ValueError: if the host is not this machine, or there is no request.
    """

    host: str
    port: int
    requests: tuple[bytes, ...]

    def __post_init__(self) -> None:
        """Check the address."""
        if not is_loopback(self.host):
            raise ValueError(f"load is only put on this machine's loopback interface, got host {self.host!r}")
        if not self.requests:
            raise ValueError("requests must hold at least one request, got none")


def is_loopback(host: str) -> bool:
    """Whether a host can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def target(url: str, path: str, bodies: Sequence[bytes], content_type: str = JSON, accept: str = "") -> Target:
    """POST requests for a server's address.

    Raises:
        ValueError: if the address is not on the loopback interface.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    return Target(host, port, tuple(post(f"{host}:{port}", path, body, content_type, accept) for body in bodies))


def post(host: str, path: str, body: bytes, content_type: str = JSON, accept: str = "") -> bytes:
    """One request as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    if accept:
        lines.append(f"Accept: {accept}")
    return "\r\n".join((*lines, "", "")).encode() + body


class Generator:
    """A generator whose connections are open and warm: each ``run`` puts the load on once and waits for its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._hear()

    def run(self) -> Load:
        """Let it go.

        Raises:
            LoadFailed: if the server hung up or stopped answering.
        """
        stdin = _stream(self._process.stdin)
        stdin.write(b"go\n")
        stdin.flush()
        return Load(**self._hear())

    def _hear(self) -> dict[str, Any]:
        line = _stream(self._process.stdout).readline()
        if not line:
            raise LoadFailed(f"the load generator ended with code {self._process.wait()} before it said anything")
        heard: dict[str, Any] = json.loads(line)
        if "failed" in heard:
            raise LoadFailed(f"the load generator failed: {heard['failed']}")
        return heard


@contextmanager
def generator(
    where: Target,
    plan: Closed | Open,
    folder: Path,
    warm_up: int = 2,
    patience_s: float = PATIENCE_S,
    using: Program | None = None,
) -> Iterator[Generator]:
    """Start a generator: each connection has been used for ``warm_up`` requests when this returns.

    Args:
        where: the server and the requests.
        plan: how they are sent.
        folder: for the file that hands the requests over.
        warm_up: requests of each connection that nobody counts.
        patience_s: for how long nothing may be answered, and by how much an open loop may end late.
        using: the program; None takes the best that this machine has.
    """
    path = folder / "requests.bin"
    path.write_bytes(b"".join(_LENGTH.pack(len(request)) + request for request in where.requests))
    order = {
        "host": where.host,
        "port": where.port,
        "requests": str(path),
        "warm_up": warm_up,
        "patience_s": patience_s,
        "plan": asdict(plan),
    }
    process = subprocess.Popen(
        [*(using or program()).command, json.dumps(order, ensure_ascii=False)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(_ROOT), os.environ.get("PYTHONPATH", "")))},
    )
    try:
        yield Generator(process)
    finally:
        _stream(process.stdin).close()
        _stream(process.stdout).close()
        process.terminate()
        process.wait()


def read_requests(path: Path) -> list[bytes]:
    """The requests that ``generator`` handed over."""
    content, place, found = path.read_bytes(), 0, []
    while place < len(content):
        (length,) = _LENGTH.unpack_from(content, place)
        place += _LENGTH.size
        found.append(content[place : place + length])
        place += length
    return found


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the load generator was started without pipes")
    return stream


def _between(name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise ValueError(f"{name} must be above 0 and at most {most}, got {value}")

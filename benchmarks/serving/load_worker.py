"""The load generator where none can be compiled: ``load.generator`` starts it. Only the standard library is loaded.

It opens its connections, uses each a few times and says so. For every line that it is sent then, it puts the load on
and prints what it saw. The program in ``load_source`` does the same and answers to the same order.
"""

from __future__ import annotations

import gc
import json
import random
import re
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.load import is_loopback, read_requests

_BLOCK: Final = 1 << 18
_PAUSE_S: Final = 0.05
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)


class Connection:
    """A kept-alive connection with at most one request under way."""

    def __init__(self, host: str, port: int, patience_s: float) -> None:
        self.socket = socket.create_connection((host, port), timeout=patience_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.since = 0.0
        self._received = b""

    def send(self, request: bytes, since: float) -> None:
        """Send; ``since`` is where the latency counts from."""
        self.since = since
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """Read what is there; the status once the answer is complete, 0 where the server hung up."""
        block = self.socket.recv(_BLOCK)
        self._received = self._received + block if self._received else block
        if not block:
            return 0
        if not complete(self._received):
            return None
        status = int(self._received[9:12])
        self._received = b""
        return status


def complete(answer: bytes) -> bool:
    """Whether an answer has arrived as a whole."""
    end = answer.find(_HEAD_END)
    if end < 0:
        return False
    head = answer[:end]
    if length := _LENGTH.search(head):
        missing = end + len(_HEAD_END) + int(length[1]) - len(answer)
        if missing < 0:
            raise RuntimeError("an answer is longer than it says")
        return missing == 0
    if _CHUNKED.search(head):
        return answer.endswith(b"0\r\n\r\n")
    raise RuntimeError(f"an answer says neither its length nor that it comes in chunks: {head[:200]!r}")


class Run:
    """Connections with what they have seen so far."""

    def __init__(self, connections: Sequence[Connection], requests: Sequence[bytes], patience_s: float) -> None:
        self.connections = connections
        self.requests = requests
        self.patience_s = patience_s
        self.latencies: list[float] = []
        self.errors = 0
        self._sent = 0
        self._selector = selectors.DefaultSelector()
        for connection in connections:
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def send(self, connection: Connection, since: float) -> None:
        """The next request in turn."""
        connection.send(self.requests[self._sent % len(self.requests)], since)
        self._sent += 1

    def answered(self, timeout: float) -> list[Connection] | None:
        """Wait for answers and count them; the connections that are free again, None where nothing came in time."""
        arrived = self._selector.select(timeout)
        free = []
        for key, _ in arrived:
            connection: Connection = key.data
            status = connection.receive()
            if status is None:
                continue
            if status == 0:
                raise RuntimeError("the server closed a connection")
            self.latencies.append(time.perf_counter() - connection.since)
            self.errors += status != 200
            free.append(connection)
        return free if arrived else None

    def closed(self, requests: int) -> None:
        """Every connection sends again as soon as it is answered."""
        for connection in self.connections[:requests]:
            self.send(connection, time.perf_counter())
        while len(self.latencies) < requests:
            free = self.answered(self.patience_s)
            if free is None:
                raise RuntimeError(f"nothing was answered for {self.patience_s:g} s")
            for connection in free[: requests - self._sent]:
                self.send(connection, time.perf_counter())

    def open(self, rate: float, seconds: float, seed: int) -> None:
        """Requests at random times; those that find no free connection wait for one."""
        chance = random.Random(seed)
        free, waiting = deque(self.connections), deque[float]()
        started = time.perf_counter()
        due, end = started + chance.expovariate(rate), started + seconds
        given_up = end + self.patience_s
        while due < end or waiting or len(free) < len(self.connections):
            now = time.perf_counter()
            if now > given_up:
                missing = len(waiting) + len(self.connections) - len(free)
                raise RuntimeError(f"{missing} requests were not answered {self.patience_s:g} s after the end")
            while due <= now and due < end:
                waiting.append(due)
                due += chance.expovariate(rate)
            while waiting and free:
                self.send(free.popleft(), waiting.popleft())
            pause = max(0.0, min(due - time.perf_counter(), _PAUSE_S)) if due < end else _PAUSE_S
            free.extend(self.answered(pause) or ())


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def connected(order: dict[str, Any]) -> tuple[list[Connection], list[bytes]]:
    """Open connections that have been used, and the requests."""
    if not is_loopback(order["host"]):
        raise RuntimeError(f"{order['host']!r} is not the loopback interface")
    requests = read_requests(Path(order["requests"]))
    host, port, patience_s = order["host"], order["port"], order["patience_s"]
    connections = [Connection(host, port, patience_s) for _ in range(order["plan"]["connections"])]
    for place, connection in enumerate(connections):
        for _ in range(order["warm_up"]):
            connection.send(requests[place % len(requests)], 0.0)
            while connection.receive() is None:
                pass
    return connections, requests


def put_load(plan: dict[str, Any], run: Run) -> dict[str, float]:
    """Run the plan once."""
    started, cpu = time.perf_counter(), time.process_time()
    if "rate" in plan:
        run.open(plan["rate"], plan["seconds"], plan["seed"])
    else:
        run.closed(plan["requests"])
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    ordered = sorted(run.latencies) or [0.0]
    return {
        "requests": len(run.latencies),
        "errors": run.errors,
        "seconds": seconds,
        "generator_cpu_s": cpu,
        "p50_ms": percentile(ordered, 0.50) * 1e3,
        "p99_ms": percentile(ordered, 0.99) * 1e3,
    }


def say(message: dict[str, Any]) -> None:
    """One line for whoever started this."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the order of the command line, once a line of standard input."""
    order = json.loads(sys.argv[1])
    try:
        connections, requests = connected(order)
        say({"ready": True})
        gc.disable()
        for _ in sys.stdin:
            say(put_load(order["plan"], Run(connections, requests, order["patience_s"])))
    except (OSError, RuntimeError) as error:
        say({"failed": f"{type(error).__name__}: {error}"})
        sys.exit(1)


if __name__ == "__main__":
    main()

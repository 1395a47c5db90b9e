"""What one read of a user's history costs the processor, by client library: the bare protocol is the limit.

One MGET of two keys, 50 packed behaviours (1,001 bytes) and a small JSON, from the embedded Valkey over its Unix socket
and over TCP, by 1 and 8 readers at once on uvloop. Every client runs in a process of its own, all take turns in every
round, medians are reported. Before anything is timed all clients must bring the same bytes. ``whole_read`` is not a
client but what a request pays for its history: breaker, metrics, read, decoding, and the copy kept for bad times.

``--peer-python`` names the interpreter of an environment with uvloop, coredis and valkey-glide; without it those two
are left out. Run ``python -m benchmarks.serving.store_clients``.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.record import write_record
from benchmarks.serving.store_client_worker import KEYS
from bundle.behaviours import pack, records
from service.behaviours import EmbeddedServer

PEERS_VARIABLE: Final = "CTRLIFT_STORE_PEERS_PYTHON"
OURS: Final = ("bare", "pipelined", "pooled", "redis-py", "whole_read")
PEERS: Final = ("coredis", "valkey-glide")
READERS: Final = (1, 8)
NEAR_US: Final = 20.0  # a library this near to the limit would be taken instead of code of our own
_WORKER = Path(__file__).with_name("store_client_worker.py")
_ROOT = _WORKER.parents[2]


class Worker:
    """One client in a process of its own.

    Args:
        python: The interpreter that has its library.
        name: The client, a key of the worker's table.
        over: unix or tcp.
    """

    def __init__(self, python: str, name: str, over: str) -> None:
        self.name, self.over = name, over
        path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [python, "-P", str(_WORKER)],  # -P: the worker's folder is no place to import from
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("a worker talks over its standard streams")
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker of {self.name} over {self.over} ended without an answer")
        try:
            answer: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError as error:
            raise RuntimeError(f"the worker of {self.name} over {self.over} printed {line!r}") from error
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def filled_server() -> Iterator[tuple[str, int]]:
    """An embedded server with one user, listening on its socket and on a free port of the loopback interface."""
    items = [str(number) for number in range(50)]
    values = (pack(records(items, range(1000, 1050), ["click"] * 50, [1.0] * 50)), b'{"age":31,"city":"Oslo","n":3.5}')
    with EmbeddedServer(None) as server:
        with redis.Redis.from_url(server.url) as client:
            client.mset(dict(zip(KEYS, values, strict=True)))
            client.config_set("bind", "127.0.0.1")
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = int(probe.getsockname()[1])
            client.config_set("port", port)
        yield str(server.socket_path), port


def measure(names: Sequence[str], peers: str | None, rounds: int, reads: int) -> dict[str, Any]:
    """Time every client.

    Args:
        names: The clients.
        peers: Interpreter that has the peers' libraries.
        rounds: How often each client has its turn.
        reads: Reads of one turn.

    Returns:
        For each transport and number of readers, the microseconds a read of each client; versions; what was left out.

    Raises:
        RuntimeError: Two clients bring different bytes.
    """
    versions: dict[str, str] = {}
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        path, port = stack.enter_context(filled_server())
        for over in ("unix", "tcp"):
            workers = []
            for name in names:
                if over == "unix" and name == "valkey-glide":
                    continue  # it does not speak over Unix sockets
                python = peers if name in PEERS and peers is not None else sys.executable
                worker = Worker(python, name, over)
                stack.callback(worker.close)
                workers.append(worker)
            opened = [worker.ask({"open": worker.name, "path": path, "port": port, "over": over}) for worker in workers]
            if len({answer["digest"] for answer in opened}) != 1:
                raise RuntimeError("the clients do not bring the same bytes")
            versions |= {worker.name: answer["version"] for worker, answer in zip(workers, opened, strict=True)}
            for readers in READERS:
                results[f"{over}_{readers}_readers"] = _rounds(workers, readers, rounds, reads)
    return {"us_a_read": results, "versions": {name: version for name, version in versions.items() if version}}


def _rounds(workers: Sequence[Worker], readers: int, rounds: int, reads: int) -> dict[str, dict[str, float]]:
    turns: dict[str, list[dict[str, float]]] = {worker.name: [] for worker in workers}
    for number in range(rounds + 1):
        for worker in workers:
            answer = worker.ask({"reads": reads if number else reads // 4, "readers": readers})
            if number:  # the first round warms up
                turns[worker.name].append(answer)
    return {
        name: {key: round(statistics.median(turn[key] for turn in own), 1) for key in ("cpu_us", "wall_us")}
        for name, own in turns.items()
    }


def verdict(results: dict[str, Any]) -> dict[str, Any]:
    """Whether a library comes near enough to the limit in every row to be taken instead of our own client."""
    above: dict[str, float] = {}
    for row in results["us_a_read"].values():
        for name, figures in row.items():
            if name not in {"bare", "whole_read"}:
                above[name] = max(above.get(name, 0.0), round(figures["cpu_us"] - row["bare"]["cpu_us"], 1))
    near = sorted(name for name, distance in above.items() if distance <= NEAR_US)
    return {"most_us_above_the_bare_protocol": above, "near": near, "near_means_us": NEAR_US}


def main() -> None:
    """Print the table and keep it beside the other benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=os.environ.get(PEERS_VARIABLE), help=f"or set {PEERS_VARIABLE}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reads", type=int, default=4000)
    arguments = parser.parse_args()
    names = (*OURS, *PEERS) if arguments.peer_python else OURS
    results = measure(names, arguments.peer_python, arguments.rounds, arguments.reads)
    results |= verdict(results)
    results["left_out"] = [] if arguments.peer_python else list(PEERS)
    for row, clients in results["us_a_read"].items():
        print(row, {name: figures["cpu_us"] for name, figures in clients.items()})
    print({key: results[key] for key in ("most_us_above_the_bare_protocol", "near", "left_out")})
    write_record("serving-store-clients", results)


if __name__ == "__main__":
    main()

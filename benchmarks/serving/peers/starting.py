"""Starting a peer's server and ending it with everything that it started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks.serving.costs import process_tree
from benchmarks.serving.load import LoadFailed
from benchmarks.serving.peers.answering import Given
from benchmarks.serving.peers.environments import PEERS, NotInstalled, environment, python_of
from benchmarks.serving.running import Server
from benchmarks.serving.slates import Slate

_READY_S: Final = 120.0
_STOP_S: Final = 20.0


@contextmanager
def peer_server(folder: Path, name: str, given: Given, probe: Slate) -> Iterator[Server]:
    """A peer that has answered a slate.

    Args:
        folder: of the environments.
        name: of the peer.
        given: what to serve; its port is replaced by a free one.
        probe: asked until it is answered.

    Raises:
        NotInstalled: if there is no environment, or the server does not come up in it.
    """
    python = python_of(folder, name)
    with tempfile.TemporaryDirectory(prefix="ctrlift-peer-") as scratch:
        port = free_port()
        told = Given(given.bundle, given.graph, given.repeats, given.store, port)
        log = Path(scratch) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(python, name, port, Path(scratch)),
                env=environment(told.to_environment() | {"BENTOML_HOME": scratch, "RAY_TMPDIR": scratch}),
                cwd=scratch,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            server = Server(PEERS[name].title, f"http://127.0.0.1:{port}", process.pid)
            _wait(server, process, probe, log)
            yield server
        finally:
            _end(process)


def command(python: Path, name: str, port: int, scratch: Path) -> list[str]:
    """How each framework is started."""
    module = f"benchmarks.serving.peers.{PEERS[name].module}"
    if name == "bentoml":
        return [str(python), "-m", "bentoml", "serve", f"{module}:Score", "--host", "127.0.0.1", "--port", str(port)]
    if name == "mlserver":
        _write_mlserver(scratch, port, module)
        return [str(python), "-m", "mlserver.cli.main", "start", str(scratch)]
    arguments = ["--address", "127.0.0.1", "--port", str(port)] if name == "mosec" else []
    return [str(python), "-m", module, *arguments]


def _write_mlserver(scratch: Path, port: int, module: str) -> None:
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
        "debug": False,
    }
    (scratch / "settings.json").write_text(json.dumps(settings))
    model = {"name": "speed", "implementation": f"{module}.Score"}
    (scratch / "model-settings.json").write_text(json.dumps(model))


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: Server, process: subprocess.Popen[bytes], probe: Slate, log: Path) -> None:
    give_up = time.monotonic() + _READY_S
    while time.monotonic() < give_up and process.poll() is None:
        with suppress(OSError, LoadFailed):
            server.scores(probe)
            return
        time.sleep(0.2)
    words = log.read_text(errors="replace").strip()[-1500:]
    raise NotInstalled(f"{server.name} did not answer a request within {_READY_S:.0f} s: {words}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait, then end what is left of the processes that it started."""
    started = process_tree(process.pid) if process.poll() is None else []
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()

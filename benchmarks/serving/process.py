"""The service in a process of its own, as ``ctrlift serve`` runs it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

_READY_S = 30.0
_CODE = """
import sys
from service.server import run
from service.settings import load_settings
if __name__ == "__main__":
    sys.exit(run(load_settings()))
"""
_CLOCKED = "from benchmarks.serving.clocked import keep_time\nkeep_time({path!r})\n"
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        url: Its address.
        process: For signals.
        log: Its output.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def ready(self) -> bool:
        """Whether /readyz says 200."""
        try:
            with urlopen(self.url + "/readyz", timeout=5) as reply:
                return int(reply.status) == 200
        except (URLError, OSError):
            return False


@contextmanager
def service_process(folder: Path, settings: Mapping[str, Any], clock: Path | None = None) -> Iterator[Service]:
    """Start the service, wait until a model is warm, end it with SIGTERM (SIGKILL if that does not help).

    Args:
        folder: Where its output goes.
        settings: By dotted key.
        clock: File that shall hold the CPU time of the graph's runs; None leaves the service as it is.
    """
    code = _CODE if clock is None else _CLOCKED.format(path=str(clock)) + _CODE
    log = folder / "service.log"
    given = {"server.port": 0, **settings}
    variables = {"CTRLIFT_" + key.upper().replace(".", "__"): _text(value) for key, value in given.items()}
    if clock is not None:
        variables["PYTHONPATH"] = os.pathsep.join((str(_ROOT), os.environ.get("PYTHONPATH", "")))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | variables, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _wait(process, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value) if not isinstance(value, Path) else str(value)


def _wait(process: subprocess.Popen[bytes], log: Path) -> Service:
    give_up = time.monotonic() + _READY_S
    service: Service | None = None
    while time.monotonic() < give_up and process.poll() is None:
        if service is None:
            port = _port(log)
            service = None if port is None else Service(f"http://127.0.0.1:{port}", process, log)
        elif service.ready():
            return service
        time.sleep(0.02)
    raise RuntimeError(f"the service did not become ready: {log.read_text()[-2000:]}")


def _port(log: Path) -> int | None:
    for line in log.read_text().splitlines():
        if '"event":"listening"' in line:
            return int(json.loads(line)["port"])
    return None

"""The service as a child process on a free port, asked over HTTP. It never outlives the command that started it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from cli.exits import CheckFailed, DependencyDown

HOST: Final = "127.0.0.1"
READY_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 15.0
ANSWER_WITHIN_S: Final = 10.0


class ServiceProcess:
    """`ctrlift serve` with a settings file; leaving the block stops it, whatever ended the block.

    Raises:
        DependencyDown: on entering or waiting, if the service does not come up.
    """

    def __init__(self, settings: Path, log: Path) -> None:
        self._settings = settings
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self._port = _free_port()
        # SIGTERM ends Python without unwinding, which would leave the service behind.
        self._previous = signal.signal(signal.SIGTERM, _interrupt)
        command = [sys.executable, "-m", "cli.main", "serve", "--config", str(self._settings)]
        command += ["--host", HOST, "--port", str(self._port)]
        with self._log.open("wb") as log:
            # Its own session: Ctrl-C in the terminal reaches this process, which then stops the service in order.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        try:
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_WITHIN_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        finally:
            signal.signal(signal.SIGTERM, self._previous)

    @property
    def url(self) -> str:
        """Where the service answers."""
        return f"http://{HOST}:{self._port}"

    def wait_until_ready(self) -> None:
        """Return when /readyz says 200.

        Raises:
            DependencyDown: if the service ends, or is not ready in time.
        """
        until = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < until:
            if self._process is None or self._process.poll() is not None:
                raise DependencyDown(f"the service ended at its start; its log is {self._log}")
            try:
                if self._exchange("GET", "/readyz")[0] == http.HTTPStatus.OK:
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.1)
        raise DependencyDown(f"the service was not ready within {READY_WITHIN_S:.0f} s; its log is {self._log}")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post JSON and return the reply's.

        Raises:
            CheckFailed: if the status is not 200.
        """
        status, reply = self._exchange("POST", path, body)
        if status != http.HTTPStatus.OK:
            raise CheckFailed(f"POST {path} was answered with {status}: {json.dumps(reply)}")
        return reply

    def _exchange(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=ANSWER_WITHIN_S)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            document: dict[str, Any] = json.loads(answer.read())
            return answer.status, document
        finally:
            connection.close()


def _end_with_parent() -> Callable[[], None] | None:
    """On Linux the kernel stops the service when this process dies in a way that no handler sees."""
    if sys.platform != "linux":
        return None
    from service.behaviours.processes import die_with_parent

    return die_with_parent(os.getpid(), signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

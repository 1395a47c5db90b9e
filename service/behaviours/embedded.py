"""A private Valkey server that never outlives the process that started it.

The server listens on a Unix socket in a folder that only this user can enter, and on no port. On Linux the kernel ends
it when its parent dies, however that happens; elsewhere a shell that waits on a pipe does. Should both fail, the next
start finds the record of the old server and ends it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from service.behaviours.processes import die_with_parent, is_alive, kill_quietly, started_at
from service.behaviours.server_binary import find_server
from service.errors import SettingsError

_RUNTIME_PREFIX = "ctrlift-store-"
_RECORD = "ctrlift-server.json"
_READY_S = 30.0  # an append-only file of a few gigabytes is read in this time
_STOP_S = 10.0

# $1 is the server; the pipe on standard input closes when the parent is gone, whichever way it went.
_WATCHDOG = '"$@" </dev/null & child=$!; cat >/dev/null; kill "$child" 2>/dev/null; wait "$child"'


class EmbeddedServer:
    """Start with ``EmbeddedServer(...)``, use ``url``, end with ``stop`` (or a with statement).

    Args:
        folder: Where an append-only file is kept; None: nothing is kept after the stop.
        maxmemory_mb: Limit of its memory; the least used keys go first.
        watchdog: Use the shell on a pipe instead of the kernel's parent-death signal.

    Raises:
        SettingsError: There is no server program, another live service uses the folder, or the server does not start.
    """

    def __init__(
        self, folder: Path | None, maxmemory_mb: int = 1024, *, watchdog: bool = sys.platform != "linux"
    ) -> None:
        program = find_server()
        _reap_runtime_folders()
        self._data = folder.resolve() if folder is not None else None
        if self._data is not None:
            self._data.mkdir(parents=True, exist_ok=True)
            _reap(self._data)
        self._runtime = Path(tempfile.mkdtemp(prefix=_RUNTIME_PREFIX))  # mode 700
        self.socket_path = self._runtime / "store.sock"
        arguments = [str(program), *self._options(maxmemory_mb)]
        self._process = _spawn(arguments, self._runtime / "server.log", self._death_signal(), watchdog)
        self.pid = self._process.pid
        try:
            self._write_records()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The address for ``store.url``."""
        return f"unix://{self.socket_path}"

    def _death_signal(self) -> signal.Signals:
        # With a folder the server gets to flush; without one there is nothing worth waiting for.
        return signal.SIGTERM if self._data is not None else signal.SIGKILL

    def _options(self, maxmemory_mb: int) -> list[str]:
        kept = self._data is not None
        options = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self._data if kept else self._runtime),
            "save": "",
            "appendonly": "yes" if kept else "no",
            "appendfsync": "everysec",
            "maxmemory": f"{maxmemory_mb}mb",
            "maxmemory-policy": "allkeys-lru",
            "daemonize": "no",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _write_records(self) -> None:
        record = {
            "server": self._process.pid,
            "server_started": started_at(self._process.pid),
            "parent": os.getpid(),
            "parent_started": started_at(os.getpid()),
        }
        for folder in (self._runtime, self._data):
            if folder is not None:
                (folder / _RECORD).write_text(json.dumps(record), encoding="utf-8")

    def _wait_until_ready(self) -> None:
        give_up = time.monotonic() + _READY_S
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                raise SettingsError(f"the embedded store ended at its start: {self._last_words()}")
            if _answers(self.socket_path):
                return
            time.sleep(0.01)
        raise SettingsError(f"the embedded store was not ready after {_READY_S:.0f} s")

    def _last_words(self) -> str:
        lines = (self._runtime / "server.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"

    def stop(self) -> None:
        """End the server and remove its runtime folder; the data folder stays. Safe to call twice."""
        if self._process.poll() is None:
            if self._process.stdin is not None:
                self._process.stdin.close()  # the watchdog's signal; it ends the server and then itself
            else:
                self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._data is not None:
            (self._data / _RECORD).unlink(missing_ok=True)
        shutil.rmtree(self._runtime, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _spawn(arguments: list[str], log: Path, death_signal: signal.Signals, watchdog: bool) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        if watchdog:
            return subprocess.Popen(
                ["/bin/sh", "-c", _WATCHDOG, "store", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A Ctrl-C in the terminal goes to the whole group; the service drains first and then stops the store.
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid(), death_signal),
        )


def _answers(path: Path) -> bool:
    """Whether the server says PONG; while it reads its file it says LOADING."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _reap_runtime_folders() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_RUNTIME_PREFIX}*"):
        try:
            ours = folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()
        except OSError:
            continue
        if ours and (folder / _RECORD).is_file():
            try:
                _reap(folder)
            except SettingsError:
                continue  # its service lives
            shutil.rmtree(folder, ignore_errors=True)


def _reap(folder: Path) -> None:
    """End a server whose parent is gone.

    Raises:
        SettingsError: The parent lives, so the folder is in use.
    """
    path = folder / _RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        server, parent = int(record["server"]), int(record["parent"])
        server_started, parent_started = record["server_started"], record["parent_started"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if is_alive(parent, parent_started):
        raise SettingsError(f"the embedded store's folder is in use by the running process {parent}")
    if is_alive(server, server_started):
        kill_quietly(server)
    path.unlink(missing_ok=True)

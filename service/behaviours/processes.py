"""Questions about other processes that stay right when a process number is used again."""

import ctypes
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

_KILL_WAIT_S = 5.0
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, death_signal: int) -> Callable[[], None]:
    """A ``preexec_fn`` for Linux: the kernel sends the child this signal when its parent dies, however that happens.

    Args:
        parent: Number of the process that starts the child.
        death_signal: The signal.
    """
    # Loaded here: between fork and exec nothing may be imported.
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def in_child() -> None:
        if prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(127)  # the parent died in between, so no signal will come

    return in_child


def started_at(pid: int) -> str | None:
    """A text that names this life of the process number, None if there is no such process."""
    if platform.system() == "Linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return None
        fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold spaces
        return None if fields[0] == "Z" else fields[19]  # field 22 of the whole line: start in clock ticks
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None


def is_alive(pid: int, started: str | None) -> bool:
    """Whether the process that was recorded with this start still runs."""
    return started is not None and started_at(pid) == started


def kill_quietly(pid: int) -> None:
    """SIGKILL, and wait until the process is gone; a process that is gone already is fine."""
    started = started_at(pid)
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
    give_up = time.monotonic() + _KILL_WAIT_S
    while is_alive(pid, started) and time.monotonic() < give_up:
        time.sleep(0.01)

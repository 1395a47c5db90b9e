"""What processes cost: CPU time to the nanosecond, and the memory that is theirs alone. Linux only."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

SUPPORTED: Final = sys.platform == "linux"
_SCHED_CLOCK: Final = 2


def cpu_seconds(pid: int) -> float:
    """User plus system time of all threads of a process.

    Read from the kernel's clock of that process: the counters of /proc move in steps of ten milliseconds, which is more
    than a request takes.
    """
    return time.clock_gettime((~pid << 3) | _SCHED_CLOCK)


def process_tree(pid: int) -> list[int]:
    """A process and all its descendants that are alive, parents first."""
    found = [pid]
    for parent in found:  # grows while it is walked
        for listed in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, listed.read_text().split())
    return found


def tree_cpu_seconds(pids: list[int]) -> float:
    """CPU time of several processes together; one that has ended in between costs nothing more."""
    return sum(_or_nothing(pid) for pid in pids)


def _or_nothing(pid: int) -> float:
    try:
        return cpu_seconds(pid)
    except OSError:
        return 0.0


def thread_cpu_seconds(pid: int) -> dict[int, float]:
    """CPU time of every thread that a process has now, by the thread's id; the first thread's is the process' own.

    The kernel brings it up to date when a thread stops running, so it is exact once a process is idle.
    """
    found = {}
    for listed in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended in between
            found[int(listed.name)] = int((listed / "schedstat").read_text().split()[0]) / 1e9
    return found


def private_mb(pid: int) -> float:
    """Memory (MB of 2^20 bytes) that no other process shares: what one more such process takes."""
    return _rollup(pid, "Private_Clean", "Private_Dirty", "Private_Hugetlb")


def resident_mb(pid: int) -> float:
    """Memory of a process, what it shares included."""
    return _rollup(pid, "Rss")


def _rollup(pid: int, *names: str) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return sum(kilobytes.get(name, 0) for name in names) / 1024

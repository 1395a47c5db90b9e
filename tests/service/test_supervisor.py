"""The supervisor with workers that crash, hang, do not listen or lose their parent; and the board that they share."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from service.behaviours.processes import kill_quietly
from service.board import Board, Phase
from tests.service.waiting import soon

_SUPERVISED = """
import os, signal, sys, time
from service import logs, supervisor
from service.board import Phase
from service.settings import LogSettings
from service.supervisor import Supervisor, Work

def crash(place, parent):
    place.beat(Phase.READY, 0)
    os._exit(3)

def hang(place, parent):
    place.beat(Phase.READY if place.number else Phase.STARTING, 0)
    while place.number:
        place.beat(Phase.READY, 0)
        time.sleep(0.05)
    time.sleep(600)

def deaf(place, parent):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        place.beat(Phase.READY, 0)
        time.sleep(0.05)

def wait(place, parent):
    place.beat(Phase.SERVING, 0)
    os.read(parent, 1)  # nothing ever comes: it ends with the parent
    print("orphan", flush=True)
    return 0

logs.configure(LogSettings())
supervisor._AFTER_DRAIN_S = 0.5
if sys.argv[3] == "pipe":
    sys.platform = "elsewhere"  # where the kernel does not end a child with its parent
main = {"crash": crash, "hang": hang, "deaf": deaf, "wait": wait}[sys.argv[1]]
nothing = lambda *_: None
work = Work(main=main, ended=nothing, ending=nothing, workers=2, silent_s=float(sys.argv[2]), drain_s=0.2)
sys.exit(Supervisor(work).run())
"""


@dataclass(frozen=True)
class Supervised:
    """A supervisor with workers that do as told, and what it wrote."""

    process: subprocess.Popen[bytes]
    output: Path

    def heard(self, event: str, count: int) -> list[dict[str, Any]]:
        """The first lines of an event, as soon as there are so many."""
        soon(lambda: len(self.lines(event)) >= count)
        return self.lines(event)[:count]

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The lines of an event so far."""
        return [json.loads(line) for line in self.output.read_text().splitlines() if f'"event":"{event}"' in line]


Start = Callable[..., Supervised]


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Start]:
    started: list[Supervised] = []

    def start(main: str, silent_s: float = 30.0, guard: str = "signal") -> Supervised:
        arguments = [sys.executable, "-c", _SUPERVISED, main, str(silent_s), guard]
        output = tmp_path / "output"
        with output.open("wb") as file:
            started.append(Supervised(subprocess.Popen(arguments, stdout=file), output))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        for started_worker in one.lines("worker_started"):
            kill_quietly(started_worker["pid"])


def test_who_dies_at_once_is_started_ever_later(supervised: Start) -> None:
    running = supervised("crash")
    ended = [line for line in running.heard("worker_ended", 8) if line["worker"] == 0]
    assert {line["code"] for line in ended} == {3}
    delays = [line["again_in_s"] for line in ended]
    assert delays == [0.1 * 2**number for number in range(len(delays))]
    starts = [line for line in running.heard("worker_started", 6) if line["worker"] == 0]
    for before, after, delay in zip(starts, starts[1:], delays, strict=False):
        waited = datetime.fromisoformat(after["time"]) - datetime.fromisoformat(before["time"])
        assert waited.total_seconds() >= delay
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(5) == 0


def test_who_hangs_is_reported_and_replaced(supervised: Start) -> None:
    running = supervised("hang", 0.5)
    (silent,) = running.heard("worker_silent", 1)
    assert (silent["worker"], silent["phase"]) == (0, "starting")
    assert silent["silent_s"] >= 0.5


def test_who_does_not_hear_the_end_is_ended(supervised: Start) -> None:
    running = supervised("deaf")
    running.heard("ready", 1)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 0
    assert {line["code"] for line in running.heard("worker_ended", 2)} == {-signal.SIGKILL}


def test_ctrl_c_ends_all_with_130(supervised: Start) -> None:
    running = supervised("wait")
    running.heard("worker_started", 2)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(10) == 130


def test_workers_notice_the_parents_end_where_no_signal_tells_them(supervised: Start) -> None:
    running = supervised("wait", guard="pipe")
    running.heard("worker_started", 2)
    running.process.kill()
    running.process.wait()
    soon(lambda: running.output.read_text().count("orphan") == 2)


# --- the board -------------------------------------------------------------------------------------------------------


def test_a_connection_goes_to_the_ready_worker_that_holds_the_fewest() -> None:
    board = Board(3)
    first, second, third = (board.place(number) for number in range(3))
    first.beat(Phase.READY, 2)
    second.beat(Phase.READY, 1)
    third.beat(Phase.SERVING, 0)
    assert [first.is_next(Phase.READY, 2), second.is_next(Phase.READY, 1)] == [False, True]
    assert first.is_next(Phase.READY, 2, waited=True)  # whose turn it is may hang
    assert not third.is_next(Phase.SERVING, 0, waited=True)  # it could only answer that it has no model
    assert second.is_next(Phase.READY, 2)  # as many as the other: either may
    board.reset(1)
    assert first.is_next(Phase.READY, 2)  # the others are not ready
    board.reset(0)
    assert third.is_next(Phase.SERVING, 5)  # nobody is: somebody must answer


def test_the_service_is_complete_from_when_all_were_ready() -> None:
    board = Board(2)
    for number in range(2):
        assert not board.look()
        board.place(number).beat(Phase.READY, 0)
    assert board.look()
    board.reset(1)
    assert board.complete

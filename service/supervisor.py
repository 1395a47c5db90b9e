"""The parent of several worker processes: starts them by forking, starts crashed ones anew, ends them in order.

Forked and not spawned, because a worker then shares every imported module with the others instead of holding its own
copy. That asks of the parent to have neither threads of its own nor an event loop nor a session when it forks.
"""

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn

import structlog

from service.behaviours.processes import die_with_parent
from service.board import Board, Phase, Place
from service.errors import SettingsError

log = structlog.get_logger(__name__)

INTERRUPTED: Final = 130
_LOOK_S: Final = 0.2
_STEADY_S: Final = 10.0  # whoever lived for so long did not die of its start
_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 4.0
_AFTER_DRAIN_S: Final = 5.0
_HEARD: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


@dataclass(frozen=True, slots=True)
class Work:
    """What the supervisor runs.

    Attributes:
        main: a worker's whole life, in the child: its place, and a descriptor that closes when the parent is gone;
            returns the exit code. SIGTERM must end it in order, a SIGINT after that at once.
        ended: told a worker's number after its death, in the parent.
        ending: called once when all workers are asked to end, in the parent.
        workers: how many.
        silent_s: without a sign of life for so long a worker is ended and started anew.
        drain_s: what a worker takes at most to end in order.
    """

    main: Callable[[Place, int], int]
    ended: Callable[[int], None]
    ending: Callable[[], None]
    workers: int
    silent_s: float
    drain_s: float


@dataclass(slots=True)
class _Child:
    """One place among the workers and who holds it."""

    pid: int | None = None
    started: float = 0.0
    short_lives: int = 0
    start_at: float = 0.0


class Supervisor:
    """See ``run``.

    Args:
        work: What to run.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._board = Board(work.workers)
        self._children = [_Child() for _ in range(work.workers)]
        self._received: list[int] = []
        self._code = 0
        self._give_up: float | None = None  # set while ending: when patience ends
        self._failed = False
        self._alive_read, self._alive_write = os.pipe()

    def run(self) -> int:
        """Keep the workers running until SIGTERM or Ctrl-C.

        Returns:
            0 after SIGTERM, 130 after Ctrl-C.

        Raises:
            SettingsError: A worker did not even start.
        """
        gc.collect()
        gc.freeze()  # a collection in a child would write into every object and so copy its page
        try:
            with self._signals() as wake:
                self._loop(wake)
        finally:
            os.close(self._alive_read)
            os.close(self._alive_write)
        if self._failed:
            raise SettingsError("a worker process did not start; the log says why")
        return self._code

    def _loop(self, wake: socket.socket) -> None:
        while self._give_up is None or any(child.pid is not None for child in self._children):
            if self._give_up is None:
                self._start_due()
            select.select([wake], [], [], _LOOK_S)
            while _drained(wake):
                pass
            for number in self._received:
                self._obey(number)
            self._received.clear()
            self._reap()
            if self._give_up is None:
                self._end_silent()
                self._report()
            elif time.monotonic() > self._give_up:
                self._send_all(signal.SIGKILL)

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Note signals and wake the loop; what was set before comes back at the end."""
        wake, waker = socket.socketpair()
        wake.setblocking(False)
        waker.setblocking(False)
        before = {number: signal.signal(number, self._note) for number in _HEARD}
        old = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            yield wake
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)
            wake.close()
            waker.close()

    def _note(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._received.append(number)

    def _obey(self, number: int) -> None:
        if self._give_up is not None:
            if number == signal.SIGINT:
                self._send_all(signal.SIGINT)  # pressed twice: whoever waits does not want to any longer
            return
        self._code = INTERRUPTED if number == signal.SIGINT else 0
        log.info("stopping", signal=signal.Signals(number).name)
        self._end_all()

    def _end_all(self) -> None:
        self._give_up = time.monotonic() + self._work.drain_s + _AFTER_DRAIN_S
        self._work.ending()
        self._send_all(signal.SIGTERM)

    def _send_all(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.pid is not None:
                os.kill(child.pid, number)  # not reaped yet, so the number is still its own

    # --- births and deaths ----------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for number, child in enumerate(self._children):
            if child.pid is None and time.monotonic() >= child.start_at:
                self._start(number, child)

    def _start(self, number: int, child: _Child) -> None:
        self._board.reset(number)
        sys.stdout.flush()
        sys.stderr.flush()
        end_with_parent = die_with_parent(os.getpid(), signal.SIGKILL) if sys.platform == "linux" else None
        # Until the child has put its own handlers, a signal must wait and not be taken by those of the parent.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_child(number, end_with_parent)
        except OSError as error:
            log.error("worker_not_started", worker=number, error=error.strerror, again_in_s=_LONGEST_DELAY_S)
            child.start_at = time.monotonic() + _LONGEST_DELAY_S
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        child.pid, child.started = pid, time.monotonic()
        log.info("worker_started", worker=number, pid=pid)

    def _be_child(self, number: int, end_with_parent: Callable[[], None] | None) -> NoReturn:
        code = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C in the terminal goes to the parent alone, which then ends us in order
            if end_with_parent is not None:
                end_with_parent()
            signal.set_wakeup_fd(-1)
            for heard in _HEARD:
                signal.signal(heard, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
            os.close(self._alive_write)  # only the parent's copy may keep it open
            code = self._work.main(self._board.place(number), self._alive_read)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except SettingsError as error:
            log.error("worker_failed", worker=number, reason=str(error))
        except BaseException:
            # Whatever it was ends here: the frames above belong to the parent, which would go on twice.
            log.exception("worker_failed", worker=number)
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def _reap(self) -> None:
        for number, child in enumerate(self._children):
            if child.pid is None:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._bury(number, child, os.waitstatus_to_exitcode(status))

    def _bury(self, number: int, child: _Child, code: int) -> None:
        phase, pid, lived = self._board.phase(number), child.pid, time.monotonic() - child.started
        child.pid = None
        self._board.reset(number)
        self._work.ended(number)
        if self._give_up is not None:
            log.info("worker_ended", worker=number, pid=pid, code=code)
            return
        if phase is Phase.STARTING and not self._board.complete:
            log.error("worker_ended", worker=number, pid=pid, code=code, lived_s=round(lived, 3))
            self._failed = True  # nothing has ever been served: most likely nothing will
            self._end_all()
            return
        child.short_lives = child.short_lives + 1 if lived < _STEADY_S else 0
        delay = min(_FIRST_DELAY_S * 2 ** (child.short_lives - 1), _LONGEST_DELAY_S) if child.short_lives else 0.0
        child.start_at = time.monotonic() + delay
        log.error("worker_ended", worker=number, pid=pid, code=code, lived_s=round(lived, 3), again_in_s=delay)

    def _end_silent(self) -> None:
        for number, child in enumerate(self._children):
            silent = self._board.silent_s(number)
            if child.pid is not None and silent > self._work.silent_s:
                log.error(
                    "worker_silent",
                    worker=number,
                    pid=child.pid,
                    phase=self._board.phase(number).name.lower(),
                    silent_s=round(silent, 1),
                )
                os.kill(child.pid, signal.SIGKILL)

    def _report(self) -> None:
        if not self._board.complete and self._board.look():
            log.info("ready", workers=self._work.workers)


def _drained(wake: socket.socket) -> bytes:
    try:
        return wake.recv(4096)
    except BlockingIOError:
        return b""

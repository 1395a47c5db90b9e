"""What the worker processes of one service tell each other and their parent: a few numbers in shared memory.

Every cell has one writer, and eight aligned bytes are stored at once, so nothing is locked. It is made before the
workers are forked.
"""

import mmap
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_BYTES: Final = 8
_PHASE, _CONNECTIONS, _BEAT = range(3)
_COLUMNS: Final = 3


class Phase(IntEnum):
    """How far a worker is."""

    STARTING = 0
    SERVING = 1  # its event loop answers
    READY = 2  # and it has looked at the whole model store


class Board:
    """The cells of all workers.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, _BYTES * (1 + _COLUMNS * workers))
        self._cells = memoryview(self._memory).cast("d")

    def place(self, number: int) -> "Place":
        """The view of one worker."""
        return Place(self, number)

    def reset(self, number: int) -> None:
        """Forget what a worker wrote, before its successor starts; the start counts as its first sign of life."""
        self._write(number, _PHASE, Phase.STARTING)
        self._write(number, _CONNECTIONS, 0)
        self._write(number, _BEAT, time.monotonic())

    def phase(self, number: int) -> Phase:
        """How far a worker is."""
        return Phase(int(self._read(number, _PHASE)))

    def silent_s(self, number: int) -> float:
        """Seconds since a worker's last sign of life."""
        return time.monotonic() - self._read(number, _BEAT)

    @property
    def complete(self) -> bool:
        """Whether all workers have been ready at the same time; stays so when one of them is started anew."""
        return bool(self._cells[0])

    def look(self) -> bool:
        """Note and return whether all workers are or have been ready; for the parent."""
        if all(self.phase(number) is Phase.READY for number in range(self.workers)):
            self._cells[0] = 1
        return self.complete

    def _read(self, number: int, column: int) -> float:
        return float(self._cells[1 + _COLUMNS * number + column])

    def _write(self, number: int, column: int, value: float) -> None:
        self._cells[1 + _COLUMNS * number + column] = value


@dataclass(frozen=True, slots=True)
class Place:
    """One worker's place on the board: it writes its own cells and reads those of the others."""

    board: Board
    number: int

    def beat(self, phase: Phase, connections: int) -> None:
        """A sign of life."""
        self.board._write(self.number, _PHASE, phase)
        self.board._write(self.number, _CONNECTIONS, connections)
        self.board._write(self.number, _BEAT, time.monotonic())

    def is_next(self, phase: Phase, connections: int, *, waited: bool = False) -> bool:
        """Whether this worker should take a new connection, given how many it holds.

        A worker that has not loaded its models leaves connections to those that have; among equals it is the turn of
        whoever holds the fewest, and of anybody once the connection has waited for long enough.
        """
        self.board._write(self.number, _CONNECTIONS, connections)
        for other in range(self.board.workers):
            if other == self.number:
                continue
            theirs = self.board.phase(other)
            if theirs > phase:
                return False
            if not waited and theirs == phase and self.board._read(other, _CONNECTIONS) < connections:
                return False
        return True

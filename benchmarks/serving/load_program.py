"""The program that puts the load on: compiled once where there is a C++ compiler, else the same in Python.

It runs beside the server on a machine of few cores: what it takes is missing there, and what it reads and writes
empties the caches of a core that the server shares. The compiled one takes about a tenth of the other's time.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from benchmarks.serving.cache import default_cache
from service.compiling import FLAGS, BuildFailed, appearing, find_compiler, run_compiler, source_digest

SOURCE: Final = Path(__file__).parent / "load_source"
_SHARED: Final = Path(__file__).parents[2] / "service" / "compiled" / "source"  # its reader of JSON


@dataclass(frozen=True, slots=True)
class Program:
    """A load generator.

    Attributes:
        kind: what it is; a record says so.
        command: starts it, with the order as one more argument.
    """

    kind: Literal["compiled", "python"]
    command: tuple[str, ...]


PYTHON: Final = Program("python", (sys.executable, "-m", "benchmarks.serving.load_worker"))


@cache
def program() -> Program:
    """The compiled program, or the one in Python where it cannot be compiled."""
    try:
        return compiled(default_cache())
    except BuildFailed:
        return PYTHON


def compiled(folder: Path) -> Program:
    """The program in a folder, compiled unless it is there from the same source.

    Raises:
        BuildFailed: There is no compiler, it refused the source, or the folder cannot be written.
    """
    digest = hashlib.sha256(" ".join((source_digest(SOURCE), source_digest(_SHARED), *FLAGS)).encode())
    target = folder / f"load-{digest.hexdigest()[:16]}"
    if not target.exists():
        build(target)
    return Program("compiled", (str(target),))


def build(target: Path) -> None:
    """Compile the program.

    Args:
        target: Its path; it appears there complete or not at all.

    Raises:
        BuildFailed: There is no compiler, it refused the source, or the folder cannot be written.
    """
    compiler = find_compiler()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildFailed(f"{target.parent} cannot be made: {error.strerror}") from error
    with appearing(target) as scratch:
        run_compiler([*compiler, *FLAGS, *map(str, sorted(SOURCE.glob("*.cpp"))), "-o", str(scratch / target.name)])

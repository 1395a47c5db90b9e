"""Compiling the service's C++ with whatever compiler is there, and telling a library from one of other source."""

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

COMPILERS: Final = ("c++", "g++", "clang++")
# Nothing is built for what happens to be this machine's processor, and no library throws.
FLAGS: Final = (
    *("-std=c++17", "-O3", "-fPIC", "-fno-exceptions", "-fno-rtti"),
    *("-fvisibility=hidden", "-Wall", "-Wextra"),
)
_TIMEOUT_S: Final = 300


class BuildFailed(Exception):
    """There is no compiler, or it refused the source."""


def source_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of all source files: what a library must carry to be used."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def digest_flag(folder: Path) -> str:
    """The flag that has a library carry the digest of its source."""
    return f'-DCTRLIFT_DIGEST="{source_digest(folder)}"'


def find_compiler() -> list[str]:
    """The command of a C++ compiler: ``$CXX``, or the first of the usual names that is there.

    Raises:
        BuildFailed: There is none.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    if named and shutil.which(named[0]):
        return named
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise BuildFailed(f"no C++ compiler was found ($CXX, {', '.join(COMPILERS)})")


def run_compiler(command: Sequence[str]) -> None:
    """One step of a build.

    Raises:
        BuildFailed: The compiler refused the source or never ended.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{command[0]} took more than {_TIMEOUT_S} s") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        raise BuildFailed(f"{command[0]} ended with {done.returncode}: {lines[0] if lines else 'without a word'}")


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A folder to build in; the file in it that is called like the target takes its place at the end, or nothing does.

    Raises:
        BuildFailed: The target's folder cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as folder:
            yield Path(folder)
            Path(folder, target.name).replace(target)
    except OSError as error:
        raise BuildFailed(f"{target.parent} cannot be written: {error.strerror}") from error


def build_command(what: str, without: str, build: Callable[[], Path]) -> int:
    """The command line of a build: say in one line what happened.

    Args:
        what: Is built.
        without: What happens where it is not there.
        build: Builds it.
    """
    parser = argparse.ArgumentParser(description=f"Compile the {what} with whatever C++ compiler is there.")
    parser.add_argument("--optional", action="store_true", help="end with 0 even where it could not be built")
    arguments = parser.parse_args()
    try:
        made = build()
    except BuildFailed as error:
        sys.stdout.write(f"{what}: not built, {without}: {error}\n")
        return 0 if arguments.optional else 1
    sys.stdout.write(f"{what}: built {made.name}\n")
    return 0

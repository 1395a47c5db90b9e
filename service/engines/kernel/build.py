"""``python -m service.engines.kernel.build``: compile the operators with whatever C++ compiler is there.

The result is one library with the code of every instruction set of the processor's family; which of them runs is
decided when it is opened, so that a library built here runs on any machine of the same family. Nothing is built with
what happens to be the fastest on this one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).parent / "source"
LIBRARY: Final = Path(__file__).parent / "_kernel.so"
COMPILERS: Final = ("c++", "g++", "clang++")
# No -ffast-math: infinities and what is not a number keep their meaning. Products and sums may be fused.
FLAGS: Final = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fno-math-errno",
    "-ffp-contract=fast",
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-maybe-uninitialized",
)
TIMEOUT_S: Final = 300
_X86 = {"avx512": ("-mavx512f", "-mfma"), "avx2": ("-mavx2", "-mfma")}


class BuildFailed(Exception):
    """There is no compiler, or it refused the source."""


def source_digest() -> str:
    """SHA-256 over the names and contents of all source files: what a library must carry to be used."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


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


def build(target: Path = LIBRARY, extra: Sequence[str] = ()) -> Path:
    """Compile the library.

    Args:
        target: Its path; it appears there complete or not at all.
        extra: Further flags, for all steps.

    Raises:
        BuildFailed: There is no compiler, it refused the source, or the folder cannot be written.
    """
    compiler = find_compiler()
    sets = {**(_X86 if platform.machine() in ("x86_64", "AMD64") else {}), "plain": ()}
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kernel-") as folder:
            objects = [
                _compile(compiler, "compiled_set.cpp", Path(folder, f"{name}.o"), flags, extra, f"CTRLIFT_SET={name}")
                for name, flags in sets.items()
            ]
            digest = f'CTRLIFT_DIGEST="{source_digest()}"'
            objects.append(_compile(compiler, "kernel.cpp", Path(folder, "kernel.o"), (), extra, digest))
            made = Path(folder, target.name)
            _run([*compiler, "-shared", *extra, *map(str, objects), "-o", str(made)])
            made.replace(target)
    except OSError as error:
        raise BuildFailed(f"{target.parent} cannot be written: {error.strerror}") from error
    return target


def _compile(
    compiler: Sequence[str], source: str, made: Path, flags: Sequence[str], extra: Sequence[str], define: str
) -> Path:
    _run([*compiler, *FLAGS, *flags, *extra, f"-D{define}", "-c", str(SOURCE / source), "-o", str(made)])
    return made


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{command[0]} took more than {TIMEOUT_S} s") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        raise BuildFailed(f"{command[0]} ended with {done.returncode}: {lines[0] if lines else 'without a word'}")


def main() -> int:
    """Build, and say in one line what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--optional", action="store_true", help="end with 0 even where it could not be built")
    arguments = parser.parse_args()
    try:
        made = build()
    except BuildFailed as error:
        sys.stdout.write(f"kernel: not built, ONNX Runtime does its work: {error}\n")
        return 0 if arguments.optional else 1
    sys.stdout.write(f"kernel: built {made.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

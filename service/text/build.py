"""``python -m service.text.build``: compile the reader and the writer of bodies with whatever C++ compiler is there."""

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from service.engines.kernel.build import TIMEOUT_S, BuildFailed, find_compiler

SOURCE: Final = Path(__file__).parent / "source"
LIBRARY: Final = Path(__file__).parent / "_text.so"
FLAGS: Final = (
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-fno-exceptions", "-fno-rtti"),
    *("-fvisibility=hidden", "-Wall", "-Wextra"),
)


def source_digest() -> str:
    """SHA-256 of the names and contents of all source: what a library must carry to be used."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def build(target: Path = LIBRARY, extra: Sequence[str] = ()) -> Path:
    """Compile the library.

    Args:
        target: Its path; it appears there complete or not at all.
        extra: Further flags.

    Raises:
        BuildFailed: There is no compiler, it refused the source, or the folder cannot be written.
    """
    compiler = find_compiler()
    define = f'-DCTRLIFT_DIGEST="{source_digest()}"'
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".text-") as folder:
            made = Path(folder, target.name)
            sources = map(str, sorted(SOURCE.glob("*.cpp")))
            command = [*compiler, *FLAGS, *extra, define, *sources, "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            if done.returncode != 0:
                lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
                raise BuildFailed(f"{compiler[0]} ended with {done.returncode}: {(lines or ['without a word'])[0]}")
            made.replace(target)
    except OSError as error:
        raise BuildFailed(f"{target.parent} cannot be written: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{compiler[0]} took more than {TIMEOUT_S} s") from error
    return target


def main() -> int:
    """Build, and say in one line what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--optional", action="store_true", help="end with 0 even where it could not be built")
    arguments = parser.parse_args()
    try:
        made = build()
    except BuildFailed as error:
        sys.stdout.write(f"text: not built, bodies are read and written without it: {error}\n")
        return 0 if arguments.optional else 1
    sys.stdout.write(f"text: built {made.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

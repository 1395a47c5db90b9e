"""``python -m service.compiled.build``: compile the readers and writers of requests."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from service.compiling import FLAGS, appearing, build_command, digest_flag, find_compiler, run_compiler

SOURCE: Final = Path(__file__).parent / "source"
LIBRARY: Final = Path(__file__).parent / "_compiled.so"


def build(target: Path = LIBRARY, extra: Sequence[str] = ()) -> Path:
    """Compile the library.

    Args:
        target: Its path; it appears there complete or not at all.
        extra: Further flags.

    Raises:
        BuildFailed: There is no compiler, it refused the source, or the folder cannot be written.
    """
    compiler = find_compiler()
    with appearing(target) as folder:
        sources = map(str, sorted(SOURCE.glob("*.cpp")))
        made = str(folder / target.name)
        run_compiler([*compiler, *FLAGS, "-shared", *extra, digest_flag(SOURCE), *sources, "-o", made])
    return target


def main() -> int:
    """Build, and say in one line what happened."""
    return build_command("requests", "they are read and written without it", build)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m service.compiled.build``: compile the readers and writers of requests."""

import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from service.compiling import FLAGS, BuildFailed, appearing, build_command, find_compiler, run_compiler, source_digest

SOURCE: Final = Path(__file__).parent / "source"
LIBRARY: Final = Path(__file__).parent / "_compiled.so"


def build(target: Path = LIBRARY, extra: Sequence[str] = ()) -> Path:
    """Compile the library.

    Args:
        target: Its path; it appears there complete or not at all.
        extra: Further flags.

    Raises:
        BuildFailed: There is no compiler, it refused the source, headers are not installed, or the folder cannot be
            written.
    """
    compiler = find_compiler()
    with appearing(target) as folder:
        sources = map(str, sorted(SOURCE.glob("*.cpp")))
        made = str(folder / target.name)
        flags = *FLAGS, *_headers(), *extra, f'-DCTRLIFT_DIGEST="{library_digest()}"'
        run_compiler([*compiler, "-shared", *flags, *sources, "-o", made])
    return target


def library_digest() -> str:
    """What a library must carry to be used: it is of one source and for one version of Python."""
    return f"{source_digest(SOURCE)} {sys.implementation.cache_tag}"


def _headers() -> list[str]:
    """Where Python's and NumPy's headers are, as flags.

    Raises:
        BuildFailed: They are not installed.
    """
    python = Path(sysconfig.get_path("include"))
    if not (python / "Python.h").exists():
        raise BuildFailed("Python's headers are not installed (python3-dev)")
    try:
        import numpy as np  # a machine that only builds may lack it
    except ImportError as error:
        raise BuildFailed("NumPy is not installed, whose headers are needed") from error
    return ["-isystem", str(python), "-isystem", np.get_include()]


def main() -> int:
    """Build, and say in one line what happened."""
    return build_command("requests", "they are read and written without it", build)


if __name__ == "__main__":
    sys.exit(main())

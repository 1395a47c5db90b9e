"""``python -m service.engines.kernel.build``: compile the operators.

The result is one library with the code of every instruction set of the processor's family; which of them runs is
decided when it is opened, so that a library built here runs on any machine of the same family. Nothing is built with
what happens to be the fastest on this one.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from service.compiling import FLAGS, appearing, build_command, digest_flag, find_compiler, run_compiler

SOURCE: Final = Path(__file__).parent / "source"
LIBRARY: Final = Path(__file__).parent / "_kernel.so"
# No -ffast-math: infinities and what is not a number keep their meaning. Products and sums may be fused.
_ARITHMETIC: Final = ("-fno-math-errno", "-ffp-contract=fast", "-Wno-maybe-uninitialized")
_X86: Final = {"avx512": ("-mavx512f", "-mfma"), "avx2": ("-mavx2", "-mfma")}


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
    with appearing(target) as folder:
        steps = [("compiled_set.cpp", name, (*flags, f"-DCTRLIFT_SET={name}")) for name, flags in sets.items()]
        steps.append(("kernel.cpp", "kernel", (digest_flag(SOURCE),)))
        objects = []
        for source, name, flags in steps:
            objects.append(str(folder / f"{name}.o"))
            command = [*compiler, *FLAGS, *_ARITHMETIC, *flags, *extra, "-c", str(SOURCE / source), "-o", objects[-1]]
            run_compiler(command)
        run_compiler([*compiler, "-shared", *extra, *objects, "-o", str(folder / target.name)])
    return target


def main() -> int:
    """Build, and say in one line what happened."""
    return build_command("kernel", "ONNX Runtime does its work", build)


if __name__ == "__main__":
    sys.exit(main())

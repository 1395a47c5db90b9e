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

from service.compiling import FLAGS, BuildFailed, appearing, build_command, digest_flag, find_compiler, run_compiler

SOURCE: Final = Path(__file__).parent / "source"
LIBRARY: Final = Path(__file__).parent / "_kernel.so"
# No -ffast-math: infinities and what is not a number keep their meaning. Products and sums may be fused.
_ARITHMETIC: Final = ("-fno-math-errno", "-ffp-contract=fast", "-Wno-maybe-uninitialized")
_X86: Final = {
    "amx": ("-mavx512f", "-mfma", "-mamx-tile", "-mamx-bf16"),
    "avx512": ("-mavx512f", "-mfma"),
    "avx2": ("-mavx2", "-mfma"),
}
# What an older compiler or assembler does not know, and what only Linux gives: without it the set is left out.
_TILES: Final = "#include <immintrin.h>\n#include <sys/syscall.h>\nvoid tiles() { _tile_dpbf16ps(0, 1, 2); }\n"


def build(target: Path = LIBRARY, extra: Sequence[str] = ()) -> Path:
    """Compile the library.

    Args:
        target: Its path; it appears there complete or not at all.
        extra: Further flags, for all steps.

    Raises:
        BuildFailed: There is no compiler, it refused the source, or the folder cannot be written.
    """
    compiler = find_compiler()
    with appearing(target) as folder:
        sets = _sets(compiler, folder)
        steps = [("compiled_set.cpp", name, (*flags, f"-DCTRLIFT_SET={name}")) for name, flags in sets.items()]
        steps.append(("kernel.cpp", "kernel", (digest_flag(SOURCE), *(f"-DCTRLIFT_WITH_{name}" for name in sets))))
        objects = []
        for source, name, flags in steps:
            objects.append(str(folder / f"{name}.o"))
            command = [*compiler, *FLAGS, *_ARITHMETIC, *flags, *extra, "-c", str(SOURCE / source), "-o", objects[-1]]
            run_compiler(command)
        run_compiler([*compiler, "-shared", *extra, *objects, "-o", str(folder / target.name)])
    return target


def _sets(compiler: Sequence[str], folder: Path) -> dict[str, tuple[str, ...]]:
    """The instruction sets that the compiler can build for this family of processors, with their flags."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return {"plain": ()}
    probe = folder / "tiles.cpp"
    probe.write_text(_TILES)
    sets = {**_X86, "plain": ()}
    try:
        run_compiler([*compiler, *_X86["amx"], "-c", str(probe), "-o", str(folder / "tiles.o")])
    except BuildFailed:
        del sets["amx"]
    return sets


def main() -> int:
    """Build, and say in one line what happened."""
    return build_command("kernel", "ONNX Runtime does its work", build)


if __name__ == "__main__":
    sys.exit(main())

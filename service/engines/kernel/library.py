"""The compiled library: found, checked against the source beside it, and asked which instruction set to use."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from service.compiling import source_digest
from service.engines.kernel.build import LIBRARY, SOURCE

MOST_LAYERS: Final = 16
LANES: Final = 16
PLAIN: Final = "plain"  # the instruction set without vectors, for comparison and for tests
_FLOATS = ctypes.c_void_p


class KernelUnavailable(Exception):
    """There is no usable library; the message says why in one sentence."""


class LayerArguments(ctypes.Structure):
    """``Layer`` of plan.h."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("inputs", "units", "stride")),
        *((name, _FLOATS) for name in ("weights", "bias", "slope", "gate_scale", "gate_shift", "tiles")),
    )


class InterestArguments(ctypes.Structure):
    """``Interest`` of plan.h."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("query_width", "width", "layers")),
        ("layer", LayerArguments * MOST_LAYERS),
        *((name, _FLOATS) for name in ("from_query", "from_key", "last")),
        *((name, ctypes.c_float) for name in ("last_bias", "scale")),
        *((name, ctypes.c_int) for name in ("activation", "softmax")),
        *((name, ctypes.c_long) for name in ("blocks", "hidden", "gates_stride")),
        *((name, _FLOATS) for name in ("gates_weight", "gates_bias", "hidden_weight", "bias_n", "hidden_tiles")),
    )


class ExtractorArguments(ctypes.Structure):
    """``Extractor`` of plan.h."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("width", "hidden", "stride")),
        *((name, _FLOATS) for name in ("input_weight", "input_bias", "hidden_weight", "hidden_bias")),
    )


class ShapeArguments(ctypes.Structure):
    """``Shape`` of plan.h."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("users", "candidates", "steps"))


@dataclass(frozen=True)
class Library:
    """An open library and the instruction set that calls use.

    Attributes:
        handle: Of the library; calls let go of the interpreter's lock.
        brief: The same, but calls keep the lock: right for microseconds, behind which a thread would wait for it anew.
        number: Of the instruction set.
        name: Of the instruction set: amx, avx512, avx2 or plain.
    """

    handle: ctypes.CDLL
    brief: ctypes.CDLL
    number: int
    name: str


def open_library(path: Path | None = None, instruction_set: str | None = None) -> Library:
    """The library with the fastest instruction set of this processor.

    Args:
        path: Of the library; by default where ``build`` puts it.
        instruction_set: Use this one instead.

    Raises:
        KernelUnavailable: It was not built, cannot be opened, was built from other source, or the processor does not
            have the instruction set that was asked for.
    """
    handle = _handle(path or LIBRARY)
    for number, name in enumerate(_sets(handle)):
        wanted = instruction_set is None or name == instruction_set
        if wanted and handle.ctrlift_supported(number):
            return Library(handle, _handle(path or LIBRARY, brief=True), number, name)
    raise KernelUnavailable(f"the processor or the build does not have the instruction set {instruction_set}")


def worthwhile_library() -> Library:
    """The library, where it is faster than ONNX Runtime.

    Raises:
        KernelUnavailable: As ``open_library``, or the processor has no vectors for it: without them the runtime wins.
    """
    library = open_library()
    if library.name == PLAIN:
        raise KernelUnavailable("the processor has neither AVX-512 nor AVX2")
    return library


def instruction_sets(path: Path | None = None) -> list[str]:
    """Names of the instruction sets that this processor has, fastest first.

    Raises:
        KernelUnavailable: As ``open_library``.
    """
    handle = _handle(path or LIBRARY)
    return [name for number, name in enumerate(_sets(handle)) if handle.ctrlift_supported(number)]


def _sets(handle: ctypes.CDLL) -> list[str]:
    names: list[str] = []
    while (name := handle.ctrlift_set(len(names))) is not None:
        names.append(name.decode())
    return names


@cache
def _handle(path: Path, *, brief: bool = False) -> ctypes.CDLL:
    if not path.exists():
        raise KernelUnavailable("it was not built (python -m service.engines.kernel.build)")
    try:
        handle = (ctypes.PyDLL if brief else ctypes.CDLL)(str(path))
        for name in ("ctrlift_digest", "ctrlift_set"):
            getattr(handle, name).restype = ctypes.c_char_p
        digest = handle.ctrlift_digest().decode()
        for operator, arrays in (("interest", 4), ("extractor", 3)):
            sizes, call = getattr(handle, f"ctrlift_{operator}_scratch"), getattr(handle, f"ctrlift_{operator}")
            head = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
            sizes.restype, sizes.argtypes = ctypes.c_size_t, head
            # The arrays in and out, then the scratch memory.
            call.restype, call.argtypes = None, head + (ctypes.c_void_p,) * (arrays + 1)
    except (OSError, AttributeError) as error:
        raise KernelUnavailable(f"{path.name} cannot be opened: {error}") from error
    if digest != source_digest(SOURCE):
        raise KernelUnavailable(f"{path.name} was built from other source (python -m service.engines.kernel.build)")
    return handle

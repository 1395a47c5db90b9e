"""The compiled library: found, and checked against the source beside it."""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from service.compiled.build import LIBRARY, SOURCE
from service.compiling import source_digest

ADDRESS, COUNT, BYTES, NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p, ctypes.c_double


class CompiledUnavailable(Exception):
    """There is no usable library; the message says why in one sentence."""


def compiled_function(
    name: str, arguments: Sequence[Any], path: Path | None = None, *, holds_lock: bool = False, result: Any = COUNT
) -> Any:
    """One function of the library.

    Args:
        name: Of the function.
        arguments: Its types, of ctypes.
        path: Of the library; by default where ``build`` puts it.
        holds_lock: Keep the interpreter's lock meanwhile: right for what takes a few microseconds, where letting
            another thread in costs more than the work.
        result: Type of what it returns.

    Raises:
        CompiledUnavailable: The library was not built, cannot be opened, or was built from other source.
    """
    found = path or LIBRARY
    function = _member(_opened(found, holds_lock), name, found)
    function.restype, function.argtypes = result, tuple(arguments)
    return function


@cache
def _opened(path: Path, holds_lock: bool) -> ctypes.CDLL:
    if not path.exists():
        raise CompiledUnavailable("it was not built (python -m service.compiled.build)")
    try:
        handle = (ctypes.PyDLL if holds_lock else ctypes.CDLL)(str(path))
    except OSError as error:
        raise CompiledUnavailable(f"{path.name} cannot be opened: {error}") from error
    digest = _member(handle, "ctrlift_compiled_digest", path)
    digest.restype = BYTES
    if digest().decode() != source_digest(SOURCE):
        raise CompiledUnavailable(f"{path.name} was built from other source (python -m service.compiled.build)")
    return handle


def _member(handle: ctypes.CDLL, name: str, path: Path) -> Any:
    try:
        return handle[name]  # each time another object, with types of its own
    except AttributeError as error:
        raise CompiledUnavailable(f"{path.name} cannot be opened: {error}") from error

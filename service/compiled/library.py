"""The compiled library: found, and checked against the source beside it."""

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any, Final

from service.compiled.build import LIBRARY, library_digest

ADDRESS, COUNT, BYTES = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p

_MODULE: Final = "_compiled"  # PyInit__compiled of module.cpp


class CompiledUnavailable(Exception):
    """There is no usable library; the message says why in one sentence."""


def compiled_function(name: str, arguments: Sequence[Any], path: Path | None = None, *, result: Any = COUNT) -> Any:
    """One function of the library, which lets go of the interpreter's lock meanwhile.

    Args:
        name: Of the function.
        arguments: Its types, of ctypes.
        path: Of the library; by default where ``build`` puts it.
        result: Type of what it returns.

    Raises:
        CompiledUnavailable: The library was not built, cannot be opened, or was built from other source.
    """
    found = path or LIBRARY
    function = _member(_opened(found), name, found)
    function.restype, function.argtypes = result, tuple(arguments)
    return function


def compiled_module(path: Path | None = None) -> Any:
    """The library as a module of Python, for what takes a few microseconds: no types of ctypes stand between, and the
    interpreter's lock is kept, since letting another thread in costs more than the work.

    Args:
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: See ``compiled_function``.
    """
    return _imported(path or LIBRARY)


@cache
def _imported(path: Path) -> Any:
    _opened(path)
    loader = ExtensionFileLoader(_MODULE, str(path))
    try:
        module = module_from_spec(ModuleSpec(_MODULE, loader, origin=str(path)))
        loader.exec_module(module)
    except ImportError as error:
        raise CompiledUnavailable(f"{path.name} cannot be opened: {error}") from error
    return module


@cache
def _opened(path: Path) -> ctypes.CDLL:
    if not path.exists():
        raise CompiledUnavailable("it was not built (python -m service.compiled.build)")
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        raise CompiledUnavailable(f"{path.name} cannot be opened: {error}") from error
    digest = _member(handle, "ctrlift_compiled_digest", path)
    digest.restype = BYTES
    if digest().decode() != library_digest():
        built = f"{path.name} was built from other source or for another Python"
        raise CompiledUnavailable(f"{built} (python -m service.compiled.build)")
    return handle


def _member(handle: ctypes.CDLL, name: str, path: Path) -> Any:
    try:
        return handle[name]  # each time another object, with types of its own
    except AttributeError as error:
        raise CompiledUnavailable(f"{path.name} cannot be opened: {error}") from error

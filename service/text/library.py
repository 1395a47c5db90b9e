"""The compiled library: found, and checked against the source beside it."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

from service.text.build import LIBRARY, source_digest


class TextUnavailable(Exception):
    """There is no usable library; the message says why in one sentence."""


def text_library(path: Path | None = None) -> Any:
    """The open library.

    Args:
        path: Of the library; by default where ``build`` puts it.

    Raises:
        TextUnavailable: It was not built, cannot be opened, or was built from other source.
    """
    return _opened(path or LIBRARY)


@cache
def _opened(path: Path) -> Any:
    if not path.exists():
        raise TextUnavailable("it was not built (python -m service.text.build)")
    try:
        handle = ctypes.CDLL(str(path))
        handle.ctrlift_text_digest.restype = ctypes.c_char_p
        handle.ctrlift_read_users.restype = handle.ctrlift_write_rows.restype = ctypes.c_int64
        handle.ctrlift_read_users.argtypes = (ctypes.c_char_p, ctypes.c_int64, ctypes.c_void_p)
        counts, address = (ctypes.c_int64, ctypes.c_int64), ctypes.c_void_p
        handle.ctrlift_write_rows.argtypes = (address, *counts, address, address)
        digest = handle.ctrlift_text_digest().decode()
    except (OSError, AttributeError) as error:
        raise TextUnavailable(f"{path.name} cannot be opened: {error}") from error
    if digest != source_digest():
        raise TextUnavailable(f"{path.name} was built from other source (python -m service.text.build)")
    return handle

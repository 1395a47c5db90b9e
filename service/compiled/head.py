"""The head of a plain request to a hot route, read by compiled code in one go.

It gives up on anything unusual, and then the server's own parser reads the same bytes. What it accepts must be exactly
what that parser makes of them: bytes that two parsers understand differently are how a request is smuggled past one.
"""

import ctypes
import struct
from collections.abc import Sequence
from os import getpid, urandom
from pathlib import Path
from typing import Final, NamedTuple

from service.compiled.library import ADDRESS, BYTES, COUNT, compiled_function

_OTHERS: Final = ("authorization", "x-api-key", "x-request-deadline-ms")
# The numbers of Head of head.cpp.
_HEAD: Final = struct.Struct("=4q")
_SPANS: Final = struct.Struct("=3q3q")
_TRACEPARENT_BYTES: Final = 55
_TEXT: Final = _HEAD.size + _SPANS.size
_FOUND_BYTES: Final = _TEXT + _TRACEPARENT_BYTES + 128  # the longest id
_RANDOM_BYTES: Final = 10 + 16 + 8  # of an id, a trace and a span
_AT_ONCE: Final = 120  # requests that one call of the system's generator is enough for


class _Routes(ctypes.Structure):
    """``Routes`` of head.cpp."""

    _fields_ = (("count", ctypes.c_int64), ("paths", ctypes.c_void_p), ("lengths", ctypes.c_void_p))


class Head(NamedTuple):
    """A whole request, and who it is.

    Attributes:
        path: One of the reader's.
        body: As it came.
        header_bytes: Of all names and values.
        uri_bytes: Of the path.
        request_id: The caller's, else a new one.
        trace_id: The caller's, else a new one.
        traceparent: The header of the reply.
        others: Key and deadline, by lower-case name, where the request has them.
    """

    path: str
    body: bytes
    header_bytes: int
    uri_bytes: int
    request_id: str
    trace_id: str
    traceparent: str
    others: dict[str, str]


class HeadReader:
    """Reads requests of one thread; ids are unique across processes, also after a fork.

    Args:
        paths: That are answered, as they stand in a request.
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
        ValueError: A path holds something else than visible ASCII.
    """

    def __init__(self, paths: Sequence[str], path: Path | None = None) -> None:
        wrong = [each for each in paths if not (each.isascii() and each.isprintable() and " " not in each)]
        if wrong:
            raise ValueError(f"a path must be of visible ASCII characters, got {wrong[0]!r}")
        arguments = (BYTES, COUNT, ADDRESS, ADDRESS, ADDRESS)
        self._read = compiled_function("ctrlift_read_head", arguments, path, holds_lock=True)
        self._paths = tuple(paths)
        self._texts = (ctypes.c_char_p * len(paths))(*(each.encode() for each in paths))
        self._lengths = (ctypes.c_int64 * len(paths))(*map(len, paths))
        self._routes = _Routes(len(paths), ctypes.addressof(self._texts), ctypes.addressof(self._lengths))
        self._asked = ctypes.addressof(self._routes)
        self._found = ctypes.create_string_buffer(_FOUND_BYTES)
        self._told = ctypes.addressof(self._found)
        self._random = ctypes.create_string_buffer(_AT_ONCE * _RANDOM_BYTES)
        self._process = 0
        self._next = self._last = 0

    def read(self, data: bytes) -> Head | None:
        """One whole request; None where the server's own parser has to read it."""
        if self._next == self._last or self._process != getpid():
            self._draw()
        start = self._read(data, len(data), self._asked, self._next, self._told)
        if start < 0:
            return None
        self._next += _RANDOM_BYTES
        found = self._found.raw
        place, header_bytes, id_length, kept = _HEAD.unpack_from(found)
        text = found[_TEXT : _TEXT + _TRACEPARENT_BYTES + id_length].decode()
        traceparent, request_id = text[:_TRACEPARENT_BYTES], text[_TRACEPARENT_BYTES:]
        path, others = self._paths[place], _others(data, found) if kept else {}
        told = (path, data[start:], header_bytes, len(path), request_id, traceparent[3:35], traceparent, others)
        return tuple.__new__(Head, told)  # its own constructor is a function more, written in Python

    def awaits(self, data: bytes) -> int:
        """How many bytes of its body a request still lacks whose head is here and plain; 0 for anything else."""
        start: int = self._read(data, len(data), self._asked, None, self._told)
        return max(0, -1 - start)

    def _draw(self) -> None:
        """New random bytes: the old ones are used up, or belong to the process that this one was forked from."""
        size = _AT_ONCE * _RANDOM_BYTES
        self._random.raw = urandom(size)
        self._next = ctypes.addressof(self._random)
        self._last = self._next + size
        self._process = getpid()


def _others(data: bytes, found: bytes) -> dict[str, str]:
    spans = _SPANS.unpack_from(found, _HEAD.size)
    starts, stops = spans[: len(_OTHERS)], spans[len(_OTHERS) :]
    return {name: data[a:b].decode() for name, a, b in zip(_OTHERS, starts, stops, strict=True) if b}

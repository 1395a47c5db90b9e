"""The head of a plain request to a hot route, read by compiled code in one go.

It gives up on anything unusual, and then the server's own parser reads the same bytes. What it accepts must be exactly
what that parser makes of them: bytes that two parsers understand differently are how a request is smuggled past one.
"""

from collections.abc import Callable, Sequence
from os import urandom
from pathlib import Path
from typing import NamedTuple

from service.compiled.library import compiled_module


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

    Attributes:
        read: One whole request; None where the server's own parser has to read it.
        awaits: How many bytes of its body a request still lacks whose head is here and plain; 0 for anything else.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
        ValueError: A path holds something else than visible ASCII.
    """

    read: Callable[[bytes], Head | None]
    awaits: Callable[[bytes], int]

    def __init__(self, paths: Sequence[str], path: Path | None = None) -> None:
        wrong = [each for each in paths if not (each.isascii() and each.isprintable() and " " not in each)]
        if wrong:
            raise ValueError(f"a path must be of visible ASCII characters, got {wrong[0]!r}")
        self.read, self.awaits = compiled_module(path).head_reader(tuple(paths), Head, urandom)

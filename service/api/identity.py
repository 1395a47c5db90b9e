"""Who a request is: its id, its trace, and what else its headers say."""

import re
import time
from collections.abc import Iterable
from os import urandom
from typing import Final, NamedTuple

from service.api import body
from service.api.gate import DEADLINE_HEADER

Headers = list[tuple[bytes, bytes]]

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
# What hot routes read of the headers.
_READ: Final = frozenset(name.encode() for name in (*body.HEADERS, DEADLINE_HEADER, "authorization", "x-api-key"))
_RANDOM_BYTES: Final = 10 + 16 + 8  # of an id, a trace and a span


class Identity(NamedTuple):
    """What the headers of a request say of it, and what was made up where they are silent.

    Attributes:
        request_id: The caller's, else a new one.
        trace_id: The caller's, else a new one.
        traceparent: The header of the reply.
        header_bytes: Of all names and values.
        headers: Those that hot routes read, by lower-case name; the first of each.
    """

    request_id: str
    trace_id: str
    traceparent: str
    header_bytes: int
    headers: dict[str, str]

    def added(self) -> Headers:
        """The headers that every reply has."""
        return identifying(self.request_id, self.traceparent)


def identifying(request_id: str, traceparent: str) -> Headers:
    """The headers that tell which request a reply belongs to."""
    return [(b"x-request-id", request_id.encode()), (b"traceparent", traceparent.encode())]


def identify(headers: Iterable[tuple[bytes, bytes]]) -> Identity:
    """One look at all headers; a trace is continued from the caller's ``traceparent`` where it is well formed."""
    request_id, trace_id, flags = "", "", "00"
    size = 0
    read: dict[str, str] = {}
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"x-request-id" and not request_id and REQUEST_ID.match(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent" and not trace_id:
            found = _TRACEPARENT.match(value)
            if found and found[1] != b"0" * 32 and found[2] != b"0" * 16:
                trace_id, flags = found[1].decode(), found[3].decode()
        elif name in _READ:
            read.setdefault(name.decode(), value.decode("latin-1"))
    random = urandom(_RANDOM_BYTES)
    trace_id = trace_id or random[10:26].hex()
    traceparent = f"00-{trace_id}-{random[26:].hex()}-{flags}"
    return Identity(request_id or uuid7(random[:10]), trace_id, traceparent, size, read)


def uuid7(random: bytes | None = None) -> str:
    """A UUID of version 7: 48 bits of milliseconds, then random (10 bytes), so that ids sort by time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(random or urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

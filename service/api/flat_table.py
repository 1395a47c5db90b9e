"""Reading a flatbuffer without trusting it: whatever points outside of the buffer raises ``struct.error``.

A table starts with the distance back to its vtable, which lists where the table's fields stand; vectors, texts and
further tables stand where a field points to.
"""

import struct
from collections.abc import Iterator
from typing import Self


class FlatTable:
    """One table of a buffer.

    Args:
        data: The buffer.
        at: Where the table stands.
    """

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - self._read("<i", at)
        self._slots = self._read("<H", self._vtable)

    @classmethod
    def root(cls, data: memoryview) -> Self:
        """The table that a buffer begins with."""
        return cls(data, struct.unpack_from("<I", data)[0])

    def has(self, field: int) -> bool:
        """Whether the field is there."""
        return self._place(field) != 0

    def number(self, form: str, field: int) -> int:
        """A number; 0 if the field is not there."""
        at = self._place(field)
        return self._read(form, at) if at else 0

    def table(self, field: int) -> "FlatTable":
        """The table that a field points to."""
        return FlatTable(self._data, self._target(field))

    def tables(self, field: int, most: int) -> "list[FlatTable]":
        """The tables of a vector; more than so many count as damage."""
        if not self.has(field):
            return []
        vector = self._target(field)
        count = self._read("<I", vector)
        if count > most:
            raise struct.error(f"{count} tables")
        places = [vector + 4 + 4 * number for number in range(count)]
        return [FlatTable(self._data, place + self._read("<I", place)) for place in places]

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """The pairs of 64-bit numbers of a vector."""
        if self.has(field):
            vector = self._target(field)
            for number in range(self._read("<I", vector)):
                at = vector + 4 + 16 * number
                yield self._read("<q", at), self._read("<q", at + 8)

    def text(self, field: int) -> bytes:
        """A text as it stands; empty if the field is not there."""
        if not self.has(field):
            return b""
        at = self._target(field)
        end = at + 4 + self._read("<I", at)
        if end > len(self._data):
            raise struct.error("a text reaches out of the buffer")
        return bytes(self._data[at + 4 : end])

    def _place(self, field: int) -> int:
        slot = 4 + 2 * field
        if slot >= self._slots:
            return 0
        offset = self._read("<H", self._vtable + slot)
        return self._at + offset if offset else 0

    def _target(self, field: int) -> int:
        at = self._place(field)
        if not at:
            raise struct.error(f"field {field} is missing")
        return at + self._read("<I", at)

    def _read(self, form: str, at: int) -> int:
        if at < 0:
            raise struct.error("before the buffer")
        found: int = struct.unpack_from(form, self._data, at)[0]
        return found

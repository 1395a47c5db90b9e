"""Objects of one shape written side by side as JSON by compiled code, from the columns that they are made of."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from service.compiled.columns import Choice, Members, Number, ObjectColumns, Part, Piece, Series
from service.compiled.library import ADDRESS, COUNT, compiled_function

_TEXT, _NUMBER, _CHOICE, _PIECE, _SERIES, _MEMBERS = range(6)
_NONE: Final = 0  # a null pointer
_BEHIND: Final = 32


class RowWriter:
    """Writes columns as objects.

    Args:
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._write = compiled_function("ctrlift_write_rows", (ADDRESS, COUNT, COUNT, ADDRESS, ADDRESS), path)

    def between(self, head: bytes, objects: ObjectColumns, tail: bytes) -> memoryview:
        """Objects with commas between them, a text before and one behind them all."""
        parts, count = objects.parts, objects.count
        numbers = objects.number_text(_BEHIND)
        held = _Held()
        # Side by side, and something behind them; see AT_ONCE of texts.h.
        texts = b"".join([_text(part) for part in parts]) + bytes(_BEHIND)
        described = array("q", _described(parts, held, held.address(np.frombuffer(texts, dtype=np.uint8))))
        room = count + len(numbers) + sum(_room(part, count) for part in parts) + _BEHIND
        out = np.empty(len(head) + room + len(tail), dtype=np.uint8)
        whole = out.data
        whole[: len(head)] = head
        first, start = held.address(np.frombuffer(numbers, dtype=np.uint8)) + 1, held.address(out) + len(head)
        end = len(head) + int(self._write(described.buffer_info()[0], len(parts), count, first, start))
        whole[end : end + len(tail)] = tail
        return whole[: end + len(tail)]


class _Held:
    """What addresses are of, as long as they are used."""

    def __init__(self) -> None:
        self._arrays: list[Any] = []

    def address(self, values: ArrayLike, dtype: Any = None) -> int:
        """Where the values lie, side by side."""
        array = np.ascontiguousarray(values, dtype=dtype)
        self._arrays.append(array)
        return int(array.__array_interface__["data"][0])


def _text(part: Part) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, Members):
        return part.text
    return b"".join(part.texts) if isinstance(part, Choice) else b""


def _described(parts: Sequence[Part], held: _Held, texts: int) -> list[int]:
    """``Part`` of rows.cpp for each part: kind, text, length, known, index, start, stop."""
    out: list[int] = []
    for part in parts:
        if isinstance(part, bytes):
            out += (_TEXT, texts, len(part), 0, 0, 0, 0)
            texts += len(part)
        elif isinstance(part, Number):
            out += (_NUMBER, 0, 0, _NONE if part.known is None else held.address(part.known, np.bool_), 0, 0, 0)
        elif isinstance(part, Members):
            out += (_MEMBERS, texts, len(part.lengths), 0, held.address(part.lengths), 0, 0)
            texts += len(part.text)
        elif isinstance(part, Series):
            out += (_SERIES, 0, part.width, 0, 0, 0, 0)
        elif isinstance(part, Piece):
            roomy = int(part.start.max()) + _BEHIND <= len(part.text)
            whole = held.address(np.frombuffer(part.text if roomy else part.text + bytes(_BEHIND), dtype=np.uint8))
            out += (_PIECE, whole, 0, 0, 0, held.address(part.start, np.int64), held.address(part.stop, np.int64))
        else:
            pieces = part.pieces()
            out += (_CHOICE, texts, 0, 0, held.address(part.index, np.int64))
            out += (held.address(pieces.start, np.int64), held.address(pieces.stop, np.int64))
            texts += len(pieces.text)
    return out


def _room(part: Part, count: int) -> int:
    """The bytes that a part takes at most in all objects together, numbers not counted."""
    if isinstance(part, (bytes, Members)):
        return count * len(_text(part))
    if isinstance(part, Piece):
        return int((part.stop - part.start).sum())
    if isinstance(part, Choice):
        return count * max(map(len, part.texts))
    return count * len("[]")

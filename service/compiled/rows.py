"""Objects of one shape written side by side as JSON by compiled code, from the columns that they are made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from service.compiled.columns import Choice, Number, Part, Piece, Series, number_text
from service.compiled.library import ADDRESS, COUNT, compiled_function

_TEXT, _NUMBER, _CHOICE, _PIECE, _SERIES = range(5)
_NONE: Final = 0  # a null pointer
_BEHIND: Final = 32
Described = NDArray[np.int64]


class RowWriter:
    """Writes columns as objects.

    Args:
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._write = compiled_function("ctrlift_write_rows", (ADDRESS, COUNT, COUNT, ADDRESS, ADDRESS), path)

    def between(self, head: bytes, parts: Sequence[Part], count: int, tail: bytes) -> bytes:
        """``count`` objects with commas between them, a text before and one behind them all."""
        numbers = number_text(parts, _BEHIND)
        held = _Held()
        # Side by side, and something behind them; see AT_ONCE of rows.cpp.
        texts = b"".join(_text(part) for part in parts) + bytes(_BEHIND)
        described = _described(parts, held, held.address(np.frombuffer(texts, dtype=np.uint8)))
        room = count + len(numbers) + sum(_room(part, count) for part in parts) + _BEHIND
        out = np.empty(len(head) + room + len(tail), dtype=np.uint8)
        out[: len(head)] = np.frombuffer(head, dtype=np.uint8)
        first, start = held.address(np.frombuffer(numbers, dtype=np.uint8)) + 1, held.address(out) + len(head)
        end = len(head) + int(self._write(held.address(described), len(parts), count, first, start))
        out[end : end + len(tail)] = np.frombuffer(tail, dtype=np.uint8)
        return out[: end + len(tail)].tobytes()


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
    return b"".join(part.texts) if isinstance(part, Choice) else b""


def _described(parts: Sequence[Part], held: _Held, texts: int) -> Described:
    """``Part`` of rows.cpp for each part, (P, 7): kind, text, length, known, index, start, stop."""
    out = np.zeros((len(parts), 7), dtype=np.int64)
    for row, part in zip(out, parts, strict=True):
        if isinstance(part, bytes):
            row[:3] = _TEXT, texts, len(part)
        elif isinstance(part, Number):
            row[0], row[3] = _NUMBER, _NONE if part.known is None else held.address(part.known, np.bool_)
        elif isinstance(part, Series):
            row[0], row[2] = _SERIES, part.values.shape[1]
        elif isinstance(part, Piece):
            roomy = int(part.start.max()) + _BEHIND <= len(part.text)
            whole = part.text if roomy else part.text + bytes(_BEHIND)
            row[:2] = _PIECE, held.address(np.frombuffer(whole, dtype=np.uint8))
            row[5:] = held.address(part.start, np.int64), held.address(part.stop, np.int64)
        else:
            pieces = part.pieces()
            row[:2], row[4] = (_CHOICE, texts), held.address(part.index, np.int64)
            row[5:] = held.address(pieces.start, np.int64), held.address(pieces.stop, np.int64)
        texts += len(_text(part))
    return out


def _room(part: Part, count: int) -> int:
    """The bytes that a part takes at most in all objects together, numbers not counted."""
    if isinstance(part, bytes):
        return count * len(part)
    if isinstance(part, Piece):
        return int((part.stop - part.start).sum())
    if isinstance(part, Choice):
        return count * max(map(len, part.texts))
    return count * len("[]")

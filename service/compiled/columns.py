"""JSON objects of one shape as the columns that they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Index = NDArray[np.signedinteger[Any]]
Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Number:
    """The next number of every object, null for NaN; nothing at all where ``known`` (U,) is False."""

    known: Flags | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """An array of the next numbers of every object."""

    width: int


@dataclass(frozen=True, slots=True)
class Members:
    """A text before each of the next N numbers of every object: names and what is between them.

    Attributes:
        text: All the texts, one after another.
        lengths: (N,) int64.
    """

    text: bytes
    lengths: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a JSON text an object, from each start (U,) to its stop."""

    text: bytes
    start: Index
    stop: Index


@dataclass(frozen=True, slots=True)
class Choice:
    """One of few texts an object, by index (U,): whole JSON values, or pieces of them."""

    index: Index
    texts: Sequence[bytes]

    def pieces(self) -> Piece:
        """The texts one after another."""
        return _joined(self.texts)


Part = bytes | Number | Series | Members | Choice | Piece  # bytes: the same for every object


_NUMBER: Final = Number()


class ObjectColumns:
    """U JSON objects, put together from left to right.

    Args:
        count: U.

    Attributes:
        parts: What they are made of.
        matrices: (U, N) each, the numbers in the order in which the parts take them.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.parts: list[Part] = []
        self.matrices: list[Float] = []

    def text(self, text: bytes) -> None:
        """The same for every object."""
        if self.parts and isinstance(self.parts[-1], bytes):
            self.parts[-1] += text
        else:
            self.parts.append(text)

    def number(self, values: Float, known: Flags | None = None) -> None:
        """One number an object, (U,); see ``Number``."""
        self.matrices.append(values[:, None])
        self.parts.append(_NUMBER if known is None else Number(known))

    def series(self, values: Float) -> None:
        """One array of numbers an object, (U, G)."""
        self.matrices.append(values)
        self.parts.append(Series(values.shape[1]))

    def piece(self, piece: Piece) -> None:
        """One JSON value an object."""
        self.parts.append(piece)

    def choice(self, index: Index, texts: Sequence[bytes]) -> None:
        """One of few texts an object; see ``Choice``."""
        if len(texts) == 1:
            self.text(texts[0])
        else:
            self.parts.append(Choice(index, texts))

    def either(self, flags: Flags, yes: bytes, no: bytes) -> None:
        """One of two texts an object, by flag (U,)."""
        if flags.all():
            self.text(yes)
        else:
            self.parts.append(Choice(flags.astype(np.int64), (no, yes)))

    def members(self, names: tuple[bytes, ...], values: Float) -> None:
        """The members of an object, by name, from a column each of (U, N)."""
        self.matrices.append(values)
        self.parts.append(_members(names))

    def number_text(self, more: int) -> bytes:
        """All numbers of the objects as one JSON array, object by object; NaN is null.

        Args:
            more: Numbers that stand behind them, of no meaning.
        """
        if not self.matrices:
            return b"[]"
        width = sum(matrix.shape[1] for matrix in self.matrices)
        flat = np.zeros(self.count * width + more)
        rows = flat[: self.count * width].reshape(self.count, width)
        first = 0
        for matrix in self.matrices:
            rows[:, first : first + matrix.shape[1]] = matrix
            first += matrix.shape[1]
        return orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)


@lru_cache(maxsize=256)
def _members(names: tuple[bytes, ...]) -> Members:
    """One request asks for the treatments that the one before it did."""
    texts = [b"," * (place > 0) + name + b":" for place, name in enumerate(names)]
    return Members(b"".join(texts), np.array([len(text) for text in texts], dtype=np.int64))


def strings(texts: Sequence[str]) -> Piece:
    """Each text as a JSON string."""
    data = orjson.dumps(texts)
    quotes = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord('"'))
    if b"\\" in data:  # a quote inside a text stands behind a backslash
        return _joined([orjson.dumps(text) for text in texts])
    return Piece(data, quotes[0::2], quotes[1::2] + 1)


def _joined(texts: Sequence[bytes]) -> Piece:
    lengths = [len(text) for text in texts]
    stop = np.cumsum(lengths, dtype=np.int64)
    return Piece(b"".join(texts), stop - np.array(lengths, dtype=np.int64), stop)

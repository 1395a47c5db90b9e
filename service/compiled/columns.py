"""JSON objects of one shape as the columns that they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Index = NDArray[np.signedinteger[Any]]
Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Number:
    """One number an object, (U,), null for NaN; nothing at all where ``known`` (U,) is False."""

    values: Float
    known: Flags | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """An array of numbers an object, (U, G)."""

    values: Float


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


Part = bytes | Number | Series | Choice | Piece  # bytes: the same for every object


class ObjectColumns:
    """U JSON objects, put together from left to right.

    Args:
        count: U.

    Attributes:
        parts: What they are made of.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.parts: list[Part] = []

    def text(self, text: bytes) -> None:
        """The same for every object."""
        if self.parts and isinstance(self.parts[-1], bytes):
            self.parts[-1] += text
        else:
            self.parts.append(text)

    def value(self, part: Number | Series | Piece) -> None:
        """One JSON value an object."""
        self.parts.append(part)

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

    def members(self, names: Sequence[bytes], values: Float) -> None:
        """The members of an object, by name, from a column each of (U, N)."""
        for place, name in enumerate(names):
            self.text((b"," if place else b"") + name + b":")
            self.parts.append(Number(values[:, place]))


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


def number_text(parts: Sequence[Part], more: int) -> bytes:
    """All numbers of the parts as one JSON array, object by object; NaN is null.

    Args:
        parts: Of the objects.
        more: Numbers that stand behind them, of no meaning.
    """
    matrices = [
        part.values if isinstance(part, Series) else part.values[:, None]
        for part in parts
        if isinstance(part, (Number, Series))
    ]
    if not matrices:
        return b"[]"
    users, width = len(matrices[0]), sum(matrix.shape[1] for matrix in matrices)
    flat = np.zeros(users * width + more)
    np.concatenate(matrices, axis=1, out=flat[: users * width].reshape(users, width))
    return orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)

"""A graph and the embedding tables beside it, in one file that all graphs of the bundle and all workers share.

A graph names its tables the way ONNX does: an initialiser without data that says file, offset and length. A parser of
graphs would open whatever file is named there, relative to the working directory where the graph came as bytes. So the
names are read here first, from the wire format itself, and anything but the bundle's own table file is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bundle.errors import BundleRefused

TABLES_FILE: Final = "tables.bin"

# Where tensors can hide: message -> field number -> message, as onnx.proto numbers them.
_MODEL: Final = {7: "graph", 20: "training", 25: "function"}
_INSIDE: Final[Mapping[str, Mapping[int, str]]] = {
    "model": _MODEL,
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 13, 14
_FLOAT = 1
_KEYS = frozenset({"location", "offset", "length"})
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}
_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph of a bundle, verified and not parsed.

    Attributes:
        content: of the file.
        tables: the bundle's table file, (bytes,) uint8 and read-only, mapped once; None where it has none.
        folder: that both files lie in.
    """

    content: bytes
    tables: NDArray[np.uint8] | None = None
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class TableEntry:
    """An initialiser of the graph whose values lie in the table file."""

    name: str
    shape: tuple[int, ...]
    offset: int
    length: int


def graph_tables(graph: Graph) -> dict[str, NDArray[np.float32]]:
    """The tables that an ONNX graph takes from the table file, by initialiser; views of the mapping, nothing is copied.

    Raises:
        BundleRefused: external_data, if the graph names any other file, a place outside of the file, or tables that
            are not plain float32 initialisers; graph, if it is not the encoding of any graph.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for entry in table_entries(graph.content):
        content = graph.tables
        if content is None:
            raise _refused(f"the graph takes {entry.name!r} from {TABLES_FILE}, which the bundle does not have")
        expected = 4 * int(np.prod(entry.shape, dtype=object))
        if entry.name in found or entry.length != expected or entry.offset % 4:
            raise _refused(f"the table {entry.name!r} is not described as its shape demands")
        if entry.offset + entry.length > len(content):
            raise _refused(f"the table {entry.name!r} ends behind the end of {TABLES_FILE}")
        part = content[entry.offset : entry.offset + entry.length]
        found[entry.name] = part.view("<f4").reshape(entry.shape)
    return found


def table_entries(content: bytes) -> list[TableEntry]:
    """The initialisers of an ONNX graph that have their values in the table file.

    Raises:
        BundleRefused: as ``graph_tables``.
    """
    entries: list[TableEntry] = []
    try:
        for path, tensor in _tensors(memoryview(content), "model", ()):
            entry = _entry(tensor)
            if entry is None:
                continue
            if path != ("graph", "tensor"):
                raise _refused("the graph keeps values outside of itself that are no initialisers")
            entries.append(entry)
    except (IndexError, UnicodeDecodeError) as error:
        raise BundleRefused("graph", "the graph is not the encoding of an ONNX model") from error
    return entries


def _tensors(content: memoryview, kind: str, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], memoryview]]:
    if len(path) > _MAX_DEPTH:
        raise BundleRefused("graph", "the graph is nested too deeply")
    inside = _INSIDE[kind]
    for number, wire, value in _fields(content):
        below = inside.get(number)
        if below is None or wire != _BYTES:
            continue
        if below == "tensor":
            yield (*path, below), value
        else:
            yield from _tensors(value, below, (*path, below))


def _entry(tensor: memoryview) -> TableEntry | None:
    """What a tensor says about a file; None for the usual one that holds its values."""
    name, dtype, external = "", 0, False
    shape: list[int] = []
    named: list[tuple[str, str]] = []
    for number, wire, value in _fields(tensor):
        if number == _NAME and wire == _BYTES:
            name = str(value, "utf-8")
        elif number == _DIMS and wire in (_VARINT, _BYTES):
            shape += [value] if wire == _VARINT else _packed(value)
        elif number == _DATA_TYPE:
            dtype = value
        elif number == _DATA_LOCATION:
            external = external or value != 0
        elif number == _EXTERNAL_DATA and wire == _BYTES:
            named.append(_pair(value))
    if not external and not named:
        return None
    keys = dict(named)
    if keys.get("location") != TABLES_FILE:
        raise _refused(f"the graph names a file other than {TABLES_FILE}")
    # Said twice, the two readers of the graph could believe different ones.
    if len(named) != len(keys) or keys.keys() != _KEYS or not external or dtype != _FLOAT or min(shape, default=0) < 0:
        raise _refused(f"the table {name[:100]!r} is not described by location, offset and length of float32 values")
    return TableEntry(name, tuple(shape), _natural(keys["offset"]), _natural(keys["length"]))


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise _refused("offset and length must be written as whole numbers")
    return int(text)


def _pair(message: memoryview) -> tuple[str, str]:
    parts = {number: str(value, "utf-8") for number, wire, value in _fields(message) if wire == _BYTES}
    return parts.get(1, ""), parts.get(2, "")


def _packed(content: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(content):
        value, at = _varint(content, at)
        values.append(value)
    return values


def _fields(content: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Field number, wire type and value: a number for a varint, else the bytes."""
    at, end = 0, len(content)
    while at < end:
        key, at = _varint(content, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(content, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, at = _varint(content, at)
        elif wire in _WIDTHS:
            length = _WIDTHS[wire]
        else:
            raise BundleRefused("graph", "the graph is not the encoding of an ONNX model")
        if length < 0 or at + length > end:
            raise IndexError
        yield number, wire, content[at : at + length]
        at += length


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return _signed(value), at
        if shift > 63:
            raise IndexError


def _signed(value: int) -> int:
    """A varint is read as 64 bits with a sign, so that a negative length or dimension is seen to be one."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _refused(message: str) -> BundleRefused:
    return BundleRefused("external_data", message)

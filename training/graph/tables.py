"""Embedding tables out of the graphs of a bundle into the one file that all of them share.

Only tables that nothing but Gather reads are moved. The runtime uses those where they lie; any other weight it packs
anew for its matrix products, so that a mapped one would be in memory twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import onnx
from numpy.typing import NDArray

# Less than this together is not worth a second file: two workers save as much by one fewer imported module.
LEAST_BYTES: Final = 1024 * 1024
# A table of a few pages costs more in its own mapping and its lines of the graph than it saves.
SMALLEST_BYTES: Final = 16 * 1024
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the values of a table lie in the file, in bytes."""

    offset: int
    length: int


def share_tables(graphs: Sequence[Path], target: Path) -> Path | None:
    """Move the embedding tables of graphs into one file; equal tables are written once.

    The last step of an export. It may be done again when a graph has joined the others.

    Args:
        graphs: ONNX files of one folder; rewritten in place.
        target: the table file, in the same folder.

    Returns:
        ``target``, or None where the tables are too small to be worth it and every graph keeps its own.
    """
    models = {path: onnx.load(path) for path in graphs}  # with what an exporter may have put beside them
    tables = [(tensor, _digest(tensor)) for model in models.values() for tensor in _gathered(model.graph)]
    if sum({digest: _bytes_of(tensor) for tensor, digest in tables}.values()) < LEAST_BYTES:
        return None
    places: dict[bytes, _Place] = {}
    temporary = target.with_suffix(".tmp")  # the loaded models do not need the old file, but an error must leave it
    with temporary.open("wb") as file:
        for tensor, digest in tables:
            if digest not in places:
                places[digest] = _append(file, onnx.numpy_helper.to_array(tensor))
            _refer(tensor, target.name, places[digest])
    temporary.replace(target)
    for path, model in models.items():
        path.write_bytes(model.SerializeToString())
        path.with_name(path.name + ".data").unlink(missing_ok=True)  # the exporter's, for graphs beyond one file
    return target


def _gathered(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Initialisers of float32 that are read as the data of Gather and by nothing else, in a graph or below it."""
    readers = Counter(name for node in graph.node for name in _names_read(node))
    gathers = Counter(node.input[0] for node in graph.node if node.op_type == "Gather" and not node.domain)
    outputs = {output.name for output in graph.output}
    return [
        tensor
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
        and _bytes_of(tensor) >= SMALLEST_BYTES
        and readers[tensor.name] == gathers[tensor.name] > 0
        and tensor.name not in outputs
    ]


def _names_read(node: onnx.NodeProto) -> Iterable[str]:
    yield from node.input
    for attribute in node.attribute:
        # A body (of a Loop, say) may read what the graph around it has.
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                yield from _names_read(inner)
            yield from (output.name for output in body.output)


def _append(file: BinaryIO, values: NDArray[np.float32]) -> _Place:
    file.write(b"\0" * (-file.tell() % _PAGE))
    place = _Place(file.tell(), values.nbytes)
    file.write(np.ascontiguousarray(values, dtype="<f4").data)
    return place


def _refer(tensor: onnx.TensorProto, location: str, place: _Place) -> None:
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    said: Mapping[str, str] = {"location": location, "offset": str(place.offset), "length": str(place.length)}
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)


def _bytes_of(tensor: onnx.TensorProto) -> int:
    return 4 * int(np.prod(tensor.dims, dtype=np.int64))


def _digest(tensor: onnx.TensorProto) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(onnx.numpy_helper.to_array(tensor)).data).digest()

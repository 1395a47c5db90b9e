"""Whether an exported graph is the network: the same inputs through both, before and after publishing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bundle.encode import Encoder
from bundle.golden import GoldenRow
from bundle.request import rows_from_query
from models.inputs import INPUT_NAMES, OUTPUT_NAMES
from training.batches import to_tensors
from training.datasets import Part

Arrays = Mapping[str, NDArray[Any]]
GraphRunner = Callable[[Arrays], NDArray[np.float64]]
OutputsRunner = Callable[[Arrays], dict[str, NDArray[np.float64]]]

# What the service allows when it replays the golden requests; anything worse must not be published.
MAX_DIFFERENCE: Final = 1e-4
# Users at once; the exporters see other sizes, so a frozen axis cannot hide.
BLOCKS: Final = (1, 7, 64)


def open_graph(kind: str, source: Path | bytes) -> GraphRunner:
    """A function from the inputs of a network of users and candidates to its logits (U, C, K).

    Args:
        kind: ``onnx`` or ``torchscript``.
        source: the file, or its content where it has been verified already.
    """
    graph = open_outputs(kind, source, INPUT_NAMES, OUTPUT_NAMES)
    return lambda arrays: graph(arrays)[OUTPUT_NAMES[0]]


def open_outputs(kind: str, source: Path | bytes, inputs: Sequence[str], outputs: Sequence[str]) -> OutputsRunner:
    """A function from a graph's inputs by name to its outputs by name, in float64.

    Args:
        kind: ``onnx`` or ``torchscript``.
        source: the file, or its content where it has been verified already.
        inputs: names in the graph's order.
        outputs: names in the graph's order.
    """
    return _onnx(source, inputs, outputs) if kind == "onnx" else _torchscript(source, inputs, outputs)


def _onnx(source: Path | bytes, inputs: Sequence[str], outputs: Sequence[str]) -> OutputsRunner:
    # Imported here: training itself never needs the runtime.
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = source if isinstance(source, bytes) else str(source)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    needed = {given.name for given in session.get_inputs()}

    def run(arrays: Arrays) -> dict[str, NDArray[np.float64]]:
        feeds = {name: np.ascontiguousarray(arrays[name]) for name in inputs if name in needed}
        found = session.run(list(outputs), feeds)
        return {name: np.asarray(values, dtype=np.float64) for name, values in zip(outputs, found, strict=True)}

    return run


def _torchscript(source: Path | bytes, inputs: Sequence[str], outputs: Sequence[str]) -> OutputsRunner:
    from training.graph.torchscript import load_torchscript

    network = load_torchscript(source)

    def run(arrays: Arrays) -> dict[str, NDArray[np.float64]]:
        tensors = [torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in inputs]
        with torch.no_grad():
            found = network(*tensors)
        listed = (found,) if isinstance(found, torch.Tensor) else found
        return {name: np.asarray(tensor.double().numpy()) for name, tensor in zip(outputs, listed, strict=True)}

    return run


def eager_logits(network: nn.Module, arrays: Arrays) -> NDArray[np.float64]:
    """The network's own logits, (U, C, K)."""
    with torch.no_grad():
        return np.asarray(network(*to_tensors(arrays)).double().numpy())


def probes(
    encoder: Encoder, network: nn.Module, part: Part, golden: Sequence[GoldenRow]
) -> Iterator[tuple[str, Arrays, NDArray[np.float64]]]:
    """Name, inputs and eager logits of every comparison: each golden request, and blocks of users."""
    for number, row in enumerate(golden):
        arrays = encoder.encode(rows_from_query(encoder.fitted, row.query)).take()
        yield f"golden request {number}", arrays, row.logits[None]
    encoded = encoder.encode(part.rows)
    for users in BLOCKS:
        rows = np.linspace(0, len(part) - 1, min(users, len(part))).astype(np.int64)
        arrays = encoded.take(rows)
        yield f"a block of {len(rows)} users", arrays, eager_logits(network, arrays)


def largest_difference(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Largest absolute difference; infinite where the shapes differ or a value is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max(initial=0.0))

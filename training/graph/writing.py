"""A network in every format that a bundle may hold, and what the manifest says about its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from bundle.manifest import TensorSpec
from training.graph.onnx import export_onnx
from training.graph.signature import GraphSignature
from training.graph.torchscript import export_torchscript


def write_graphs(
    network: nn.Module, signature: GraphSignature, formats: Sequence[str], folder: Path, names: Mapping[str, str]
) -> dict[str, Path]:
    """The network in each format, by format.

    Args:
        network: takes and returns what the signature says.
        signature: of the graph.
        formats: of ``onnx`` and ``torchscript``.
        folder: for the files.
        names: of the files by format.
    """
    graphs: dict[str, Path] = {}
    for kind in formats:
        graphs[kind] = folder / names[kind]
        if kind == "onnx":
            export_onnx(network, graphs[kind], signature=signature)
        else:
            export_torchscript(network, graphs[kind])
    return graphs


def input_specs(signature: GraphSignature) -> tuple[TensorSpec, ...]:
    """The inputs of a graph as the manifest lists them."""
    return tuple(
        TensorSpec.model_validate({"name": name, "dtype": signature.dtype(name), "shape": signature.shape(name)})
        for name in signature.inputs
    )

"""A network in every format that a bundle may hold, and what the manifest says about its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from bundle.graph_tables import TABLES_FILE
from bundle.manifest import TensorSpec
from models.inputs import INPUT_NAMES
from training.graph.onnx import export_program, publish
from training.graph.signature import GraphSignature
from training.graph.splitting import split
from training.graph.tables import share_tables
from training.graph.torchscript import export_torchscript


def write_graphs(
    network: nn.Module, signature: GraphSignature, formats: Sequence[str], folder: Path, names: Mapping[str, str]
) -> dict[str, Path]:
    """The network in each format, by format; the ONNX graph a second time in stages, where it has operators.

    Large embedding tables of all ONNX graphs in the folder go into one file beside them.

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
            program = export_program(network, signature=signature)
            if signature.inputs == INPUT_NAMES:  # operators of treatment effects have no compiled code
                split(program.model.clone(), folder)
            publish(program, graphs[kind])
        else:
            export_torchscript(network, graphs[kind])
    share_tables(sorted(folder.glob("*.onnx")), folder / TABLES_FILE)
    return graphs


def input_specs(signature: GraphSignature) -> tuple[TensorSpec, ...]:
    """The inputs of a graph as the manifest lists them."""
    return tuple(
        TensorSpec.model_validate({"name": name, "dtype": signature.dtype(name), "shape": signature.shape(name)})
        for name in signature.inputs
    )

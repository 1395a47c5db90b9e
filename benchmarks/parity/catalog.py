"""Every network of the catalogue, random weights: eager = TorchScript = ONNX at sizes that neither exporter saw.

    python -m benchmarks.parity.catalog [NAME ...]

Networks of users and candidates get tables, widths and histories of a real size; networks of treatment effects are the
catalogue's small ones. Differences are in logits (or standardised outcomes), beside their standard deviation.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.record import write_record
from models.catalog import CATALOG, UPLIFT_CATALOG
from models.inputs import IdField, InputLayout
from training.graph.onnx import export_onnx
from training.graph.signature import GraphSignature, click_signature, uplift_signature
from training.graph.torchscript import export_torchscript
from training.parity import open_outputs

Arrays = dict[str, NDArray[Any]]
WRITERS = {"onnx": export_onnx, "torchscript": export_torchscript}
SIZES = ((1, 1), (1, 7), (1, 100), (3, 5))
STEPS = (1, 20, 50)
ROWS, WIDTH = 2000, 16
GRID = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted([*CATALOG, *UPLIFT_CATALOG])
    parser.add_argument("names", nargs="*", help="networks, default all", choices=[*known, []])
    names = parser.parse_args().names or known
    torch.set_num_threads(1)
    found = {}
    for name in names:
        found[name] = compare(*(click(name) if name in CATALOG else uplift(name)))
        print(name, *(f"{key} {value:.2e}" for key, value in found[name].items()), flush=True)
    if names == known:
        largest = {kind: max(entry[kind] for entry in found.values()) for kind in WRITERS}
        write_record("parity-catalog", {"largest": largest, "networks": found})


def click(name: str) -> tuple[nn.Module, GraphSignature, InputLayout]:
    """A network of users and candidates at a real size."""
    entry = CATALOG[name]
    config = entry.tiny()
    tables = tuple(replace(table, rows=ROWS, dim=WIDTH) for table in config.layout.tables)
    layout = replace(config.layout, tables=tables)
    groups = tuple(replace(group, hidden_layers=(80, 40)) for group in config.attention_groups)
    torch.manual_seed(0)
    network = entry.model(
        replace(config, layout=layout, attention_groups=groups, mlp_hidden_layers=(200, 80), embedding_std=0.7)
    )
    return network.eval(), click_signature(layout), layout


def uplift(name: str) -> tuple[nn.Module, GraphSignature, InputLayout]:
    """A network of treatment effects at the catalogue's size."""
    entry = UPLIFT_CATALOG[name]
    config = entry.tiny()
    torch.manual_seed(0)
    network = entry.model(config)
    signature = uplift_signature(
        config.layout,
        config.outcome,
        len(config.treatments),
        doses=entry.config.doses,
        density=entry.config.density,
    )
    return network.eval(), signature, config.layout


def compare(network: nn.Module, signature: GraphSignature, layout: InputLayout) -> dict[str, float]:
    """The largest difference of each graph over all sizes, and the spread of what is compared."""
    differences = dict.fromkeys(WRITERS, 0.0)
    values: list[NDArray[np.float64]] = []
    with tempfile.TemporaryDirectory() as folder:
        graphs = {}
        for kind, write in WRITERS.items():
            path = Path(folder) / kind
            if kind == "onnx":
                export_onnx(network, path, signature=signature)
            else:
                write(network, path)
            graphs[kind] = open_outputs(kind, path, signature.inputs, signature.outputs)
        for arrays in inputs(signature, layout):
            with torch.no_grad():
                eager = network(*(torch.from_numpy(arrays[name]) for name in signature.inputs))
            expected = dict(zip(signature.outputs, (eager,) if isinstance(eager, torch.Tensor) else eager, strict=True))
            values.append(expected[signature.outputs[0]].double().numpy().ravel())
            for kind, graph in graphs.items():
                for name, output in graph(arrays).items():
                    gap = float(np.abs(output - expected[name].double().numpy()).max())
                    differences[kind] = max(differences[kind], gap)
    return {**differences, "standard_deviation": float(np.concatenate(values).std())}


def inputs(signature: GraphSignature, layout: InputLayout) -> Iterator[Arrays]:
    """Random inputs of every size, with histories that are empty, of one step, full, and of random lengths."""
    generator = np.random.default_rng(0)
    for users, candidates in SIZES:
        for steps in STEPS:
            for lengths in (np.zeros(users), np.ones(users), np.full(users, steps), None):
                drawn = generator.integers(0, steps + 1, size=users) if lengths is None else lengths
                yield one(signature, layout, {"U": users, "C": candidates, "T": steps, "G": GRID}, drawn, generator)


def one(
    signature: GraphSignature,
    layout: InputLayout,
    sizes: dict[str, int],
    lengths: NDArray[Any],
    generator: np.random.Generator,
) -> Arrays:
    """One set of inputs."""
    mask = (np.arange(sizes["T"]) < lengths[:, None])[:, :, None].repeat(layout.streams, 2)
    found: Arrays = {}
    for name in signature.inputs:
        shape = tuple(axis if isinstance(axis, int) else sizes[axis] for axis in signature.shape(name))
        if name == "behaviour_mask":
            found[name] = mask
        elif name.endswith("_ids"):
            found[name] = ids(getattr(layout, name), layout, shape, generator)
        elif name.startswith("dose"):
            found[name] = generator.random(shape).astype(np.float32)
        else:
            found[name] = generator.normal(size=shape).astype(np.float32)
    found["behaviour_ids"] *= mask[:, :, :1]
    return found


def ids(
    fields: tuple[IdField, ...], layout: InputLayout, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Ids that the fields' tables have."""
    rows = {table.name: table.rows for table in layout.tables}
    packed = np.zeros(shape, dtype=np.int64)
    for field in fields:
        here = (*shape[:-1], field.width)
        packed[..., field.column : field.column + field.width] = generator.integers(1, rows[field.table], size=here)
    return packed


if __name__ == "__main__":
    main()

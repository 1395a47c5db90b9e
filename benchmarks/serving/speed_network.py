"""The network that the speed of serving is measured with, published without a training run.

DIEN over a history of items and their categories: embeddings of 18 and 18, attention 80-40-1, evolution by an AUGRU, a
top of 200-80 with 16 numbers of the context. Its weights are random but wide enough that scores differ, which is all
that a comparison of speed asks of them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.graph.tiled import export_tiled
from benchmarks.serving.speed_config import (
    ATTENTION,
    CATEGORIES,
    CONTEXT,
    NAME,
    NOW,
    TOP,
    VERSION,
    WIDTH,
    SpeedConfig,
    golden_queries,
    item_names,
)
from benchmarks.serving.speed_linear import LinearConfig, LinearNetwork
from bundle.behaviours import Behaviours
from bundle.columns import Rows
from bundle.correct import Correction
from bundle.encode import Encoder
from bundle.fitting import FitColumns, FittedSchema, fit
from bundle.ids import id64_column
from bundle.manifest import GRAPH_FILES, Manifest, TensorSpec
from bundle.schema import FeatureSchema
from bundle.store import ModelStore
from bundle.writing import write_bundle_files
from models.ctr import DIENConfig, DIENModel
from models.inputs import OUTPUT_NAMES, InputLayout
from models.layers import AttentionGroup
from models.multitask.options import read_top
from training.golden import answer
from training.graph.signature import click_signature
from training.graph.writing import input_specs, write_graphs
from training.network import plain_layout

_FIT_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class SpeedNetwork:
    """A fitted declaration with a network of its layout, in evaluation mode."""

    config: SpeedConfig
    fitted: FittedSchema
    network: DIENModel | LinearNetwork

    @property
    def name(self) -> str:
        """Of the network, as a manifest calls it."""
        return "linear" if self.config.linear else "dien"


def build(config: SpeedConfig) -> SpeedNetwork:
    """The declaration fitted to made-up rows, and the network with seeded weights."""
    fitted = fit(declaration(config), _columns(config))
    layout = InputLayout.from_dict(plain_layout(fitted.input_layout(WIDTH)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = LinearNetwork(LinearConfig(layout, config.task_names)) if config.linear else _dien(config, layout)
        return SpeedNetwork(config, fitted, network.eval())


def _dien(config: SpeedConfig, layout: InputLayout) -> DIENModel:
    pairs = ({"ad": "item_id", "pos_hist": "past_items"}, {"ad": "category", "pos_hist": "past_categories"})
    made = DIENConfig(
        layout=layout,
        tasks=config.task_names,
        attention_groups=(AttentionGroup("history", pairs, ATTENTION, "sigmoid"),),
        mlp_hidden_layers=TOP,
        embedding_std=1.0,
        top=read_top("mlp" if config.tasks == 1 else "mmoe"),
    )
    return DIENModel(made)


def declaration(config: SpeedConfig) -> FeatureSchema:
    """What a team would write for this network."""
    table: dict[str, Any] = {} if config.buckets is None else {"encoder": {"type": "hash", "buckets": config.buckets}}
    past = {"kind": "sequence", "max_len": config.steps}
    pairs = (("item_id", "past_items"), ("category", "past_categories"))
    return FeatureSchema.from_toml(
        {
            "bundle": {"name": NAME},
            "label": {task: task for task in config.task_names},
            "ids": {"user": "user_id", "item": "item_id", "time": "ts"},
            "feature": [
                {"name": "item_id", "kind": "id", "side": "candidate", **table},
                {"name": "category", "kind": "id", "side": "candidate"},
                *({"name": name, "kind": "number", "side": "context"} for name in CONTEXT),
                {"name": "past_items", "of": "item", "table": "item_id", **past},
                {"name": "past_categories", "of": "category", "table": "category", **past},
            ],
            "group": [{"name": "history", "pairs": [{"candidate": each, "history": of} for each, of in pairs]}],
        }
    )


def _columns(config: SpeedConfig) -> FitColumns:
    """Rows that show every item, so that each gets a row of its own."""
    ids = id64_column(item_names(config.items))
    codes = id64_column([f"c{number}" for number in range(CATEGORIES)])
    numbers = np.random.default_rng(config.seed).normal(size=(len(CONTEXT), _FIT_ROWS))
    rows = Rows(
        time=np.full(_FIT_ROWS, float(NOW)),
        items=np.resize(ids, (_FIT_ROWS, -(-len(ids) // _FIT_ROWS))),
        behaviours=Behaviours.empty(_FIT_ROWS),
        user=dict(zip(CONTEXT, numbers, strict=True)),
    )
    return FitColumns(rows, ids, {"category": codes[np.arange(config.items) % CATEGORIES]})


def publish(store: Path, speed: SpeedNetwork) -> Path:
    """Export with the ordinary exporter and publish with golden rows; the bundle's folder."""
    encoder, tasks = Encoder(speed.fitted), speed.config.task_names
    golden = [answer(query, encoder, speed.network, Correction(), tasks) for query in golden_queries(speed.config)]
    signature = click_signature(speed.network.config.layout)
    with tempfile.TemporaryDirectory(prefix="ctrlift-speed-") as scratch:
        graphs = write_graphs(speed.network, signature, ("onnx",), Path(scratch), GRAPH_FILES)
        manifest = Manifest(
            name=NAME,
            version=VERSION,
            kind="ctr",
            network=speed.name,
            network_config=speed.network.config.to_dict(),
            inputs=input_specs(signature),
            outputs=(TensorSpec(name=OUTPUT_NAMES[0], dtype="float32", shape=("U", "C", len(tasks))),),
            tasks=tasks,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=speed.config.seed,
        )

        def write(folder: Path) -> None:
            write_bundle_files(folder, manifest, speed.fitted, golden, graphs)

        return ModelStore(store).publish(NAME, VERSION, write)


def publish_repeated(path: Path, speed: SpeedNetwork) -> None:
    """Write the graph that computes everything for every candidate, with the same weights.

    Raises:
        ValueError: for a linear network: nothing of it would be repeated.
    """
    if not isinstance(speed.network, DIENModel):
        raise ValueError(f"the history is repeated for a dien network, got {speed.name}")
    signature = click_signature(speed.network.config.layout)
    sizes = {"U": 3, "C": 1, "T": speed.config.steps}  # rows; the length of the history becomes fixed
    traced: list[Tensor] = []
    for name, tensor in zip(signature.inputs, signature.example(), strict=True):
        shape = [axis if isinstance(axis, int) else sizes[axis] for axis in signature.shape(name)]
        traced.append(tensor.new_ones(shape))
    export_tiled(speed.network, path, tuple(traced))

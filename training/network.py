"""From a configuration and a fitted schema to a network, and back from a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bundle.fitting import FittedSchema
from bundle.schema import DERIVED, FeatureSchema, NumberEncoder
from models.catalog import CATALOG, ModelEntry
from models.ctr.fields import FieldReader
from models.ctr.network import SequenceModel
from models.ctr.tower import WidePart
from models.layers.fold_in import FoldedHistory
from training.checkpoint import read_state
from training.config import TrainingConfig
from training.errors import ConfigError
from training.run import RunFolder

WIDE: Final = "wide"
FOLD_IN: Final = "fold_in"


@runtime_checkable
class HasOwnLoss(Protocol):
    """A network with a loss of its own beside the labels'."""

    def training_outputs(self, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits (U, C, K) and the auxiliary loss (), from the seven inputs and the negatives, if it wants any."""
        ...


class TrainingForward(nn.Module):
    """One forward of a training step, as a module so that data-parallel wrappers see every parameter it uses."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Sequence[Tensor], negatives: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of rows with one candidate each, and the auxiliary loss (), 0 where there is none."""
        if isinstance(self.network, HasOwnLoss):
            logits, auxiliary = self.network.training_outputs(*inputs, negatives)
        else:
            logits = self.network(*inputs)
            auxiliary = logits.new_zeros(())
        return logits[:, 0, :], auxiliary


def network_config(config: TrainingConfig, fitted: FittedSchema) -> dict[str, Any]:
    """The network's configuration as plain values, checked and complete: what the manifest keeps.

    The schema's attention groups and input columns meet the options of [model] here; ``[model.attention]`` holds
    options of every group, such as ``hidden_layers``. What a preset says holds where [model] says nothing.

    Raises:
        ConfigError: if the network or an option is unknown, or a value is out of its range.
    """
    entry = catalog_entry(config.model.network)
    options = {**entry.preset, **config.model.options}
    shared = options.pop("attention", {})
    groups = [
        {
            **shared,
            "name": group.name,
            "gru_type": group.gru,
            "pairs": [pair.model_dump() for pair in group.pairs],
            "extras": list(group.extras),
        }
        for group in config.features.group
    ]
    if groups:
        options.setdefault("attention_groups", groups)
    known = {field.name for field in dataclasses.fields(entry.config)}
    if "use_negsampling" in known and ("sequence" not in known or "dien" in options.get("sequence", ())):
        options.setdefault("use_negsampling", config.train.auxiliary_alpha > 0 and has_item_history(config.features))
    gap = seconds_between_behaviours(config.features)
    if gap is not None and "session" in known:
        options["session"] = {"gap": gap, **options.get("session", {})}
    if gap is not None and "dsin" in options.get("sequence", ()):
        options["sequence"] = with_gap(options["sequence"], gap)
    options["layout"] = plain_layout(fitted.input_layout(config.model.embedding_size))
    options["tasks"] = list(config.tasks)
    try:
        checked: dict[str, Any] = entry.config.from_dict(options).to_dict()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[model] for network {config.model.network!r}: {error}{gap_advice(error, gap)}") from error
    return checked


def has_item_history(schema: FeatureSchema) -> bool:
    """Whether a sequence holds something of the item: a negative behaviour is another item."""
    return any(feature.kind == "sequence" and feature.of not in DERIVED for feature in schema.feature)


def gap_advice(error: Exception, gap: str | None) -> str:
    """What to declare where sessions cannot be cut for want of the behaviours' gaps."""
    if gap is None and ("'session'" in str(error) or "'gap'" in str(error)):
        return "; sessions are cut by a sequence with of = 'gap' and encoder = {type = 'none'}, declare one"
    return ""


def seconds_between_behaviours(schema: FeatureSchema) -> str | None:
    """The first sequence of unscaled seconds since the behaviour before: what cuts a history into sessions."""
    for feature in schema.feature:
        if feature.kind == "sequence" and feature.of == "gap":
            encoder = feature.encoder
            if isinstance(encoder, NumberEncoder) and encoder.type == "none":
                return feature.name
    return None


def with_gap(sequence: Any, gap: str) -> dict[str, Any]:
    """The sequence blocks as a mapping, ``dsin`` with the gap where it names none."""
    blocks = dict(sequence) if isinstance(sequence, Mapping) else {name: {} for name in sequence}
    return {**blocks, "dsin": {"gap": gap, **blocks["dsin"]}}


def plain_layout(layout: Mapping[str, Any]) -> dict[str, Any]:
    """The layout without empty entries: a field outside the behaviours belongs to no stream."""
    return {
        name: [{key: value for key, value in entry.items() if value is not None} for entry in entries]
        if isinstance(entries, list)
        else entries
        for name, entries in layout.items()
    }


def catalog_entry(name: str) -> ModelEntry:
    """The catalogue's entry of a network.

    Raises:
        ConfigError: if there is none of that name.
    """
    entry = CATALOG.get(name)
    if entry is None:
        raise ConfigError(f"model.network: {name!r} is not a network, expected one of {', '.join(sorted(CATALOG))}")
    return entry


def build_network(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised network of the catalogue.

    Args:
        name: in the catalogue.
        options: as ``network_config`` gave them.

    Raises:
        ConfigError: if the name or an option is unknown, or a value is out of its range.
    """
    entry = catalog_entry(name)
    try:
        return entry.model(entry.config.from_dict(dict(options)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[model] for network {name!r}: {error}") from error


def table_weights(network: nn.Module, options: Mapping[str, Any]) -> dict[str, list[nn.Parameter]]:
    """Embedding weights by the name of their table; ``wide`` and ``fold_in`` are the biases of those parts."""
    names = [table["name"] for table in options["layout"]["tables"]]
    found: dict[str, list[nn.Parameter]] = {name: [] for name in names}
    for module in network.modules():
        if isinstance(module, FieldReader):
            for name, table in zip(names, module.embedding.tables, strict=True):
                found[name].extend(table.parameters())
        if isinstance(module, WidePart):
            found.setdefault(WIDE, []).extend(module.parameters())
        if isinstance(module, FoldedHistory) and module.biases is not None:
            found.setdefault(FOLD_IN, []).extend(module.biases.tables[0].parameters())
    return found


def trained_network(run: RunFolder, config: TrainingConfig, options: Mapping[str, Any]) -> nn.Module:
    """The network of a run with its best weights, in eval mode, pruned where the widths of embeddings were searched.

    Raises:
        RunError: if the run has no best checkpoint, or it belongs to another network.
    """
    network = build_network(config.model.network, options)
    load_weights(network, read_state(run.best_checkpoint)["network"])
    return network.finalize() if isinstance(network, SequenceModel) else network.eval()


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict exactly."""
    with torch.no_grad():
        network.load_state_dict(dict(weights), strict=True)

"""From a configuration and the training rows' scales to a network, and back from a run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from bundle.fitting import FittedSchema
from bundle.schema import Treatment
from models.catalog import UPLIFT_CATALOG, ModelEntry
from models.uplift.ensemble import Ensemble
from training.checkpoint import read_state
from training.config import TrainingConfig
from training.config_text import suggestion
from training.errors import ConfigError
from training.network import load_weights, plain_layout
from training.run import RunFolder
from training.uplift.encoding import Scales


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """Which network: its name in the catalogue, its complete options, and how many of it answer together."""

    name: str
    options: dict[str, Any]
    members: int = 1

    @property
    def doses(self) -> bool:
        """Whether the network takes doses."""
        return bool(uplift_entry(self.name).config.doses)


def network_plan(config: TrainingConfig, fitted: FittedSchema, scales: Scales) -> NetworkPlan:
    """The network's options, checked and complete: what the manifest keeps.

    ``[model] members = 5`` makes an ensemble of five.

    Raises:
        ConfigError: if the network or an option is unknown, a value is out of its range, or the network needs doses
            that the data do not have.
    """
    name = config.model.network
    entry = uplift_entry(name)
    options = dict(config.model.options)
    members = options.pop("members", 1)
    if not isinstance(members, int) or isinstance(members, bool) or members < 1:
        raise ConfigError(f"model.members must be a whole number of at least 1, got {members!r}")
    options["layout"] = plain_layout(fitted.input_layout(config.model.embedding_size))
    options["treatments"] = list(scales.arms)
    options["outcome"] = scales.outcome.kind
    if entry.config.doses:
        if not scales.doses:
            raise ConfigError(f"model.network: {name!r} learns from doses, and [treatment] names no dose")
        if members > 1:
            raise ConfigError(f"model.members: there are no ensembles of {name!r}, which takes doses")
    treatment = config.features.treatment
    if treatment is not None:
        if treatment.reference_dose is not None and not entry.config.doses:
            raise ConfigError(
                f"model.network: with treatment.reference_dose only curves are learnt, and {name!r} has none"
            )
        options |= _dose_options(entry, treatment, scales)
    try:
        checked: dict[str, Any] = entry.config.from_dict(options).to_dict()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[model] for network {name!r}: {error}") from error
    return NetworkPlan(name, checked, members)


def _dose_options(entry: ModelEntry, treatment: Treatment, scales: Scales) -> dict[str, Any]:
    """What only networks with doses are told."""
    known = {field.name for field in dataclasses.fields(entry.config)}
    found: dict[str, Any] = {}
    if "dosed" in known:
        found["dosed"] = list(scales.doses)
    if "reference_dose" in known and treatment.reference_dose is not None:
        low, high = scales.doses[treatment.dosed[0]]
        found["reference_dose"] = (treatment.reference_dose - low) / (high - low)
    return found


def uplift_entry(name: str) -> ModelEntry:
    """The catalogue's entry of a network.

    Raises:
        ConfigError: if there is none of that name.
    """
    entry = UPLIFT_CATALOG.get(name)
    if entry is None:
        raise ConfigError(
            f"model.network: {name!r} is not a network of treatment effects, expected one of "
            f"{', '.join(sorted(UPLIFT_CATALOG))}{suggestion(name, UPLIFT_CATALOG)}"
        )
    return entry


def build_uplift_network(plan: NetworkPlan) -> nn.Module:
    """A freshly initialised network, or an ensemble of several."""
    entry = uplift_entry(plan.name)
    members = [entry.model(entry.config.from_dict(dict(plan.options))) for _ in range(plan.members)]
    return members[0] if plan.members == 1 else Ensemble(members)


def trained_uplift_network(run: RunFolder, plan: NetworkPlan) -> nn.Module:
    """The network of a finished run, in eval mode.

    Raises:
        RunError: if the run kept no weights, or they belong to another network.
    """
    network = build_uplift_network(plan)
    load_weights(network, read_state(run.best_checkpoint)["network"])
    return network.eval()


def network_options(plan: NetworkPlan) -> Mapping[str, Any]:
    """What the manifest keeps of the network's configuration."""
    return plan.options if plan.members == 1 else {**plan.options, "members": plan.members}

"""The made-up trial as a configuration with a small network of every kind, and a study of three plain arms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tests.training.studies import trial, trial_mapping
from training.checkpoint import read_state
from training.config import TrainingConfig
from training.objectives.catalog import OBJECTIVES
from training.run import RunFolder

SHORT = {"epochs": 4, "patience": 2, "propensity": {"epochs": 4}}
# What the objectives of single networks call the length of their further stages, if they have any.
OWN: Mapping[str, Mapping[str, Any]] = {
    "vcnet": {"epochs": 4},
    "drnet": {"epochs": 4},
    "dragonnet": {"epochs": 4},
    "s_learner": {"epochs": 4},
    "t_learner": {"epochs": 4},
    "x_learner": {"epochs": 4},
    "dr_learner": {"epochs": 4},
}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "tarnet": {"representation_layers": [8], "head_layers": [6]},
    "cfr": {"representation_layers": [8], "head_layers": [6]},
    "dragonnet": {"representation_layers": [8], "head_layers": [6]},
    "s_learner": {"hidden_layers": [8]},
    "t_learner": {"hidden_layers": [8]},
    "x_learner": {"hidden_layers": [8], "effect_layers": [4]},
    "dr_learner": {"hidden_layers": [8], "effect_layers": [4]},
    "dcn_pd": {"shared_layers": [8], "head_layers": [6]},
    "drnet": {},
    "vcnet": {},
}
NETWORKS = sorted(OBJECTIVES)


def trial_config(folder: Path, frame: pl.DataFrame | None = None, **sections: Any) -> TrainingConfig:
    """A configuration of the made-up trial, its file written; a section given here is merged into the usual one."""
    network = sections.get("model", {}).get("network", "tarnet")
    folder.mkdir(parents=True, exist_ok=True)
    (trial() if frame is None else frame).write_csv(folder / "rows.csv")
    given = {
        "model": {"network": network, "embedding_size": 3, **SMALL.get(network, {})},
        "objective": dict(OWN.get(network, SHORT)),
        "train": {"seed": 3},
    }
    merged = {name: {**given.get(name, {}), **sections.get(name, {})} for name in {*given, *sections}}
    return TrainingConfig.from_mapping(trial_mapping(**merged), folder=folder)


def weights(run: RunFolder) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in read_state(run.best_checkpoint)["network"].items()}


def three_arms(counts: tuple[int, int, int], outcome: list[int] | None = None) -> pl.DataFrame:
    arm = np.repeat([0, 1, 2], counts)
    total = len(arm)
    random = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "person": [f"p{number}" for number in range(total)],
            "age": random.normal(40, 10, total).round(1),
            "city": random.choice(["oslo", "lima"], total),
            "sent": [("nothing", "letter", "coupon")[number] for number in arm],
            "bought": random.integers(0, 2, total) if outcome is None else outcome,
        }
    )


NO_DOSE: Mapping[str, Any] = {"treatment": {"dose": None, "dose_arms": None}}

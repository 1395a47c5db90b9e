"""One training of a configuration, and its answers on rows whose truth only these benchmarks look at."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import ROOT, prepared
from training.config import ModelSection, load_config
from training.fit import train
from training.uplift.evaluate import Measured, measure
from training.uplift.trained import TrainedUplift, open_trained_uplift

CONFIGS = ROOT / "configs"
Float64 = NDArray[np.float64]


def data_folder(name: str) -> Path:
    """Where one of the prepared sets lies."""
    return prepared("uplift", name)


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training.

    Attributes:
        opened: the run as evaluation sees it.
        seconds: of the training.
        config: complete, as plain values.
    """

    opened: TrainedUplift
    seconds: float
    config: dict[str, Any]

    def measured(self, split: Literal["train", "valid", "test"]) -> Measured:
        """Rows of a split with the network's answers."""
        return measure(self.opened, split, 0)


def trained(
    config_name: str,
    overrides: Sequence[str],
    *,
    model: Mapping[str, Any] | None = None,
    objective: Mapping[str, Any] | None = None,
) -> Run:
    """Train a configuration in a folder that is gone when this returns.

    Args:
        config_name: of a file in configs/.
        overrides: as ``--set`` takes them.
        model: instead of the file's own section.
        objective: instead of the file's own section.
    """
    config = load_config(CONFIGS / config_name, list(overrides))
    if model is not None:
        config = config.model_copy(update={"model": ModelSection.model_validate(model)})
    if objective is not None:
        config = config.model_copy(update={"objective": dict(objective)})
    with tempfile.TemporaryDirectory(prefix="ctrlift-uplift-") as folder:
        started = time.perf_counter()
        run = train(config, Path(folder) / "run", progress=False)
        seconds = time.perf_counter() - started
        return Run(open_trained_uplift(run, config), seconds, config.resolved())


def effect_of(measured: Measured, arm: int = 1) -> Float64:
    """Predicted effect of one arm on every row, in units of the outcome."""
    mu = measured.default.outcomes
    return np.asarray(mu[:, arm] - mu[:, 0])


def true_effect_of(measured: Measured, arm: int = 1) -> Float64:
    """The noiseless effect of one arm on every row.

    Raises:
        ValueError: if the data do not know it.
    """
    truth = measured.observed.true_effect(arm)
    if truth is None:
        raise ValueError("the truth of these rows is not known")
    return truth


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration for a record: what was trained, without the folders of this machine."""
    return {key: config[key] for key in ("model", "objective", "train") if key in config}

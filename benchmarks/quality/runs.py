"""One training of a configuration and its answers on the rows of a split, so that runs can be compared row by row."""

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
from training.config import TrainingConfig, load_config
from training.encoded import EncodedPart, encode_part, measured_columns, predict_logits, with_joint
from training.evaluate import TrainedRun, open_trained
from training.fit import train
from training.metrics import Interval, bootstrap_intervals, paired_bootstrap

CONFIGS = ROOT / "configs"
METRICS = ("auc", "gauc", "logloss", "pcoc")
LOGGED = ("gates", "task_weights", "selected_sizes", "notes")
Float64 = NDArray[np.float64]


def data_folder(name: str) -> Path:
    """Where one of the prepared sets lies."""
    return prepared("ctr", name)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run says about the rows of a split.

    Attributes:
        probabilities: calibrated, by measured task, (N,) each.
        encoded: the rows.
        columns: labels and weights by measured task.
        log: keys of the run's summary: gates, learned weights, found widths, notes.
        seconds: of the training.
    """

    probabilities: Mapping[str, Float64]
    encoded: EncodedPart
    columns: Mapping[str, tuple[NDArray[np.float32], Float64]]
    log: dict[str, Any]
    seconds: float

    def metrics(self, task: str, replicates: int = 200) -> dict[str, dict[str, float]]:
        """Metrics of a task with intervals over users."""
        labels, weights = self.columns[task]
        found = bootstrap_intervals(
            labels,
            self.probabilities[task],
            self.encoded.users,
            groups=self.encoded.groups,
            weights=weights,
            replicates=replicates,
        )
        return {name: plain(found[name]) for name in METRICS}

    def gain(self, task: str, other: Float64, replicates: int = 1000) -> dict[str, dict[str, float]]:
        """Metrics minus those of other probabilities of the same rows, paired over users."""
        labels, weights = self.columns[task]
        found = paired_bootstrap(
            labels,
            self.probabilities[task],
            other,
            self.encoded.users,
            groups=self.encoded.groups,
            weights=weights,
            replicates=replicates,
        )
        return {name: plain(found[name]) for name in METRICS}


def answers(config_name: str, overrides: Sequence[str], split: Literal["valid", "test"]) -> Answers:
    """Train a configuration in a folder that is gone when this returns, and ask it about the rows of a split."""
    return answers_of(load_config(CONFIGS / config_name, list(overrides)), split)


def answers_of(config: TrainingConfig, split: Literal["valid", "test"]) -> Answers:
    """The same of a configuration that is not a file."""
    with tempfile.TemporaryDirectory(prefix="ctrlift-quality-") as folder:
        started = time.perf_counter()
        run = train(config, Path(folder) / "run", progress=False)
        seconds = time.perf_counter() - started
        summary = run.metrics()
        log: dict[str, Any] = {name: summary[name] for name in LOGGED if name in summary}
        log["best_epoch"] = summary["best"]["epoch"] + 1
        return ask(open_trained(run), split, log, seconds)


def ask(opened: TrainedRun, split: Literal["valid", "test"], log: dict[str, Any], seconds: float) -> Answers:
    """Calibrated probabilities of a split."""
    config = opened.config
    part = opened.dataset.part(split)
    encoded = encode_part(opened.encoder, part, config.tasks, config.sampling.rates(config.tasks))
    logits = predict_logits(opened.network, encoded)
    return Answers(
        probabilities=with_joint(opened.correction.probabilities(logits, config.tasks), encoded),
        encoded=encoded,
        columns=measured_columns(encoded, config.sampling),
        log=log,
        seconds=round(seconds, 1),
    )


def plain(interval: Interval) -> dict[str, float]:
    """Value and bounds."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def shown(values: Mapping[str, Mapping[str, float]], names: Sequence[str] = METRICS) -> str:
    """A line of metrics."""
    return "  ".join(f"{name} {values[name]['value']:.4f}" for name in names)

"""Metrics of a trained run on rows that it has not seen, always beside what simple references reach on the same rows.

Treatment effects have an evaluation of their own: training/uplift/evaluate.py.

The test split is read here and nowhere else in training: the loop knows only training and validation rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from bundle.correct import Correction, TaskCorrection, sigmoid
from bundle.encode import Encoder
from bundle.fitting import FittedSchema
from training.calibration import fit_calibrator
from training.config import SamplingSection, TrainingConfig
from training.datasets import Dataset, Part, load_dataset
from training.encoded import (
    EncodedPart,
    encode_part,
    measured_columns,
    population_weights,
    predict_logits,
    unsampled_logits,
    with_joint,
)
from training.errors import RunError
from training.metrics import Interval, bootstrap_intervals, calibration_curve, paired_bootstrap
from training.network import network_config, trained_network
from training.references import references
from training.run import RunFolder, finite, write_json
from training.teaching import Teaching, constant, teaching_of
from training.threads import torch_threads
from training.uplift.evaluate import UpliftEvaluation, evaluate_uplift

Split = Literal["train", "valid", "test"]
CURVE_BINS: Final = 20
Metrics = dict[str, dict[str, float | None]]


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run opened for evaluation or export.

    Attributes:
        encoder: of the fitted schema.
        options: the network's complete configuration.
        network: with its best weights, in eval mode.
        correction: from its logits to probabilities, fitted on the validation rows.
        notes: what the training rows could not teach.
    """

    run: RunFolder
    config: TrainingConfig
    dataset: Dataset
    fitted: FittedSchema
    encoder: Encoder
    options: dict[str, Any]
    network: nn.Module
    correction: Correction
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskEvaluation:
    """One task on one split; every metric with an interval over resampled users.

    Attributes:
        calibrated: of the probabilities that the service gives.
        raw: before the calibrator, sampling already undone.
        without_history: with every history emptied, calibrated for that case: what the service gives while the
            store of behaviours is down.
        curve_raw: bins of the calibration curve.
        curve_calibrated: the same after calibration.
    """

    calibrated: Metrics
    raw: Metrics
    without_history: Metrics
    curve_raw: list[dict[str, float]]
    curve_calibrated: list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class ReferenceEvaluation:
    """A reference on the same rows, and how far the network's calibrated probabilities are from it (paired)."""

    name: str
    task: str
    metrics: Metrics
    gain: Metrics


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What ``evaluate`` found on one split.

    In a funnel a conversion is measured on clicked rows, and ``ctcvr``, the product of both probabilities, on all.
    """

    split: str
    rows: int
    users: int
    bootstrap: int
    tasks: dict[str, TaskEvaluation]
    references: list[ReferenceEvaluation]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def evaluate(run: Path | RunFolder, split: Split = "test", *, bootstrap: int = 200) -> Evaluation | UpliftEvaluation:
    """Evaluate a run and keep the result in its folder as ``evaluation-<split>.json``.

    Args:
        run: the run or its folder.
        split: the calibrator was fitted on ``valid``, so only ``test`` is a fair measure of calibration. ``train``
            gives the in-sample errors of treatment effects.
        bootstrap: replicates of the intervals.

    Raises:
        RunError: if the run cannot be read or belongs to other data.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(Path(run))
    config = configuration(folder)
    with torch_threads(config.train.threads):
        if config.features.kind == "uplift":
            return evaluate_uplift(folder, config, split, bootstrap=bootstrap)
        if split == "train":
            raise RunError(f"{folder.path} predicts clicks: only valid and test rows are evaluated")
        opened = open_trained(folder)
        found = evaluate_split(opened, split, bootstrap=bootstrap)
    write_json(opened.run.path / f"evaluation-{split}.json", found.to_dict())
    return found


def open_trained(run: Path | RunFolder) -> TrainedRun:
    """Load everything of a run that has kept weights, and fit its correction on the validation rows.

    Raises:
        RunError: if the run cannot be read, has no kept weights, or its data have changed.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(Path(run))
    index = folder.index()
    if not folder.best_checkpoint.exists():
        raise RunError(f"{folder.path} has no weights yet: the run is {index.state} and was never validated")
    config = configuration(folder)
    dataset = load_dataset(config)
    if dataset.fingerprint != index.data_fingerprint:
        raise RunError(f"{folder.path} was trained on other data: the fingerprint of {dataset.name} differs")
    fitted = FittedSchema.load(folder.schema_dir)
    encoder = Encoder(fitted)
    options = network_config(config, fitted)
    network = trained_network(folder, config, options)
    teaching = teaching_of(config, dataset.training_part(config.sampling, config.train.seed))
    correction = fit_correction(network, encoder, dataset.part("valid"), config, teaching)
    return TrainedRun(folder, config, dataset, fitted, encoder, options, network, correction, teaching.notes)


def configuration(run: RunFolder) -> TrainingConfig:
    """The configuration that a run was trained with.

    Raises:
        RunError, ConfigError: if it cannot be read.
    """
    return TrainingConfig.from_mapping(run.config(), source=str(run.config_file))


def fit_correction(
    network: nn.Module, encoder: Encoder, part: Part, config: TrainingConfig, teaching: Teaching
) -> Correction:
    """Fit a calibrator for every task, and a second one for requests whose history could not be read.

    Both see logits with the sampling already undone, as they will at serving. In a funnel the conversion's is fitted
    on clicked rows: the product of both is calibrated because its factors are. A task that had nothing to learn
    answers its prior.
    """
    rates = config.sampling.rates(config.tasks)
    settings = config.calibration
    fitted: list[list[Any]] = []
    for rows in [part, part.without_history()] if settings.without_history else [part]:
        encoded = encode_part(encoder, rows, config.tasks, rates)
        logits = unsampled_logits(predict_logits(network, encoded), encoded.targets.rates, config.sampling)
        weights = population_weights(encoded.targets, config.sampling)
        fitted.append(
            [
                constant(teaching.priors[task])
                if task in teaching.priors
                else fit_calibrator(
                    settings.method,
                    logits[:, k],
                    encoded.targets.labels[:, k],
                    weights[:, k],
                    users=encoded.users,
                    folds=settings.folds,
                )
                for k, task in enumerate(config.tasks)
            ]
        )
    return Correction(
        mode=config.sampling.mode,
        tasks={
            task: TaskCorrection(rate=rates[task], calibrator=fitted[0][k], calibrator_without_history=fitted[-1][k])
            for k, task in enumerate(config.tasks)
        },
    )


def evaluate_split(opened: TrainedRun, split: Split, *, bootstrap: int) -> Evaluation:
    """Metrics of the network and of the references on one split."""
    config = opened.config
    part = opened.dataset.part(split)
    rates = config.sampling.rates(config.tasks)
    encoded = encode_part(opened.encoder, part, config.tasks, rates)
    lost = encode_part(opened.encoder, part.without_history(), config.tasks, rates)
    logits, lost_logits = predict_logits(opened.network, encoded), predict_logits(opened.network, lost)
    unsampled = sigmoid(unsampled_logits(logits, encoded.targets.rates, config.sampling))
    raw = with_joint({task: unsampled[:, k] for k, task in enumerate(config.tasks)}, encoded)
    served = with_joint(opened.correction.probabilities(logits, config.tasks, without_history=False), encoded)
    unread = with_joint(opened.correction.probabilities(lost_logits, config.tasks, without_history=True), encoded)
    rows = labelled_rows(encoded, config.sampling, bootstrap)
    tasks = {
        task: TaskEvaluation(
            calibrated=labelled.metrics(served[task]),
            raw=labelled.metrics(raw[task]),
            without_history=labelled.metrics(unread[task]),
            curve_raw=labelled.curve(raw[task]),
            curve_calibrated=labelled.curve(served[task]),
        )
        for task, labelled in rows.items()
    }
    return Evaluation(
        split=split,
        rows=len(part),
        users=len(np.unique(encoded.users)),
        bootstrap=bootstrap,
        tasks=tasks,
        references=evaluate_references(opened, split, rows, served),
        notes=opened.notes,
    )


def evaluate_references(
    opened: TrainedRun, split: Split, rows: Mapping[str, LabelledRows], served: Mapping[str, NDArray[np.float64]]
) -> list[ReferenceEvaluation]:
    """Every reference on the same rows, and the paired difference of the network to it."""
    return [
        ReferenceEvaluation(
            name=reference.name,
            task=reference.task,
            metrics=rows[reference.task].metrics(reference.scores),
            gain=rows[reference.task].gain(served[reference.task], reference.scores),
        )
        for reference in references(opened.dataset, split, fitted=opened.fitted)
    ]


def labelled_rows(encoded: EncodedPart, sampling: SamplingSection, bootstrap: int) -> dict[str, LabelledRows]:
    """The rows by measured task."""
    return {
        task: LabelledRows(labels, weights, encoded.users, encoded.groups, bootstrap)
        for task, (labels, weights) in measured_columns(encoded, sampling).items()
    }


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Labels and keys of one task's rows, so that several predictions are measured on exactly the same ones."""

    labels: NDArray[np.float32]
    weights: NDArray[np.float64]
    users: NDArray[np.uint64]
    groups: NDArray[Any]
    bootstrap: int

    def metrics(self, probabilities: NDArray[np.float64]) -> Metrics:
        """Metrics with intervals of (N,) probabilities."""
        found = bootstrap_intervals(
            self.labels,
            probabilities,
            self.users,
            groups=self.groups,
            weights=self.weights,
            replicates=self.bootstrap,
        )
        return {name: plain(interval) for name, interval in found.items()}

    def gain(self, probabilities: NDArray[np.float64], reference: NDArray[np.float64]) -> Metrics:
        """The first minus the second, paired over the same resampled users."""
        found = paired_bootstrap(
            self.labels,
            probabilities,
            reference,
            self.users,
            groups=self.groups,
            weights=self.weights,
            replicates=self.bootstrap,
        )
        return {name: plain(interval) for name, interval in found.items()}

    def curve(self, probabilities: NDArray[np.float64]) -> list[dict[str, float]]:
        """The bins of the calibration curve."""
        return [asdict(bin_) for bin_ in calibration_curve(self.labels, probabilities, self.weights, CURVE_BINS)]


def plain(interval: Interval) -> dict[str, float | None]:
    """Value and bounds, None where undefined."""
    return {"value": finite(interval.value), "low": finite(interval.low), "high": finite(interval.high)}

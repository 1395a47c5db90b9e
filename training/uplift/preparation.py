"""Everything that a training of treatment effects needs before its first step: scales, encoded rows, the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from bundle.encode import Encoder
from bundle.fitting import FittedSchema
from training.config import TrainingConfig
from training.datasets import Dataset, Part
from training.environments import Environments, environments_of
from training.errors import ConfigError, DataError
from training.preparation import fitted_dataset
from training.run import RunFolder
from training.uplift.encoding import Int64, Scales, encode_uplift, labelled, scales_of
from training.uplift.network import NetworkPlan, network_plan
from training.uplift.rows import UpliftRows

# Fewer training rows of an arm than these say little about it, whatever the network makes of them.
LOW_SUPPORT_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class PreparedUplift:
    """The material of one training.

    Attributes:
        dataset: where it came from. Its truth is never asked for here.
        fitted: the schema fitted on the training rows.
        scales: of the training rows.
        network: which network, with complete options.
        train: rows to fit.
        watched: the half of the validation rows that early stopping looks at. The other half stays unseen until the
            export, which measures on it how far outcomes lie from the predictions.
        warnings: sentences for the person who trains.
    """

    dataset: Dataset
    fitted: FittedSchema
    scales: Scales
    network: NetworkPlan
    train: UpliftRows
    watched: UpliftRows
    warnings: tuple[str, ...]


def prepare_uplift(config: TrainingConfig, run: RunFolder) -> PreparedUplift:
    """Load the rows, fit schema and scales on the training rows, encode.

    Raises:
        ConfigError: if the network does not fit, or the device is not the processor.
        DataError: if the data are wrong.
        RunError: if a resumed run was trained on other data.
    """
    if config.train.device != "cpu":
        raise ConfigError(f"train.device must be cpu with treatments, got {config.train.device!r}")
    dataset, fitted = fitted_dataset(config, run)
    scales = scales_of(dataset)
    network = network_plan(config, fitted, scales)
    encoder = Encoder(fitted)
    part = labelled_part(dataset, "train")
    environments = training_environments(config, part)
    if environments is not None:
        part = part.take(environments.rows)
    train = encode_uplift(encoder, part, scales, None if environments is None else environments.codes)
    valid = labelled_part(dataset, "valid")
    watched = encode_uplift(encoder, valid.take(halves(valid.treatment, config.train.seed)[0]), scales)
    few = arm_warnings(config, dict(zip(scales.arms, train.counts(len(scales.arms)).tolist(), strict=True)))
    warnings = [*(environments.warnings if environments is not None else ()), *few]
    if scales.outcome.kind == "binary":
        softness, more = one_class_softness(train, scales)
        train, watched = softened(train, softness), softened(watched, softness)
        warnings += more
    return PreparedUplift(dataset, fitted, scales, network, train, watched, tuple(warnings))


def labelled_part(dataset: Dataset, split: str) -> Part:
    """The rows of one split that have an outcome and count.

    Raises:
        ValueError: for an unknown split.
        DataError: if there is none.
    """
    if split not in ("train", "valid", "test"):
        raise ValueError(f"split must be train, valid or test, got {split!r}")
    part = dataset.part(split)  # type: ignore[arg-type]
    kept = labelled(part, dataset.tasks[0])
    if not len(kept):
        raise DataError(f"{dataset.name}: no {split} row has the outcome {dataset.tasks[0]!r}")
    return part.take(kept)


def halves(treatment: Int64, seed: int) -> tuple[Int64, Int64]:
    """Validation rows in two halves, arm by arm: the first for early stopping, the second for the intervals.

    Intervals from residuals on rows that chose the weights would be too narrow. An odd row goes to the first half, so
    that it is never empty.

    Returns:
        Positions in ascending order.
    """
    generator = np.random.default_rng(seed)
    first: list[Int64] = []
    second: list[Int64] = []
    for arm in np.unique(treatment):
        rows = generator.permutation(np.flatnonzero(treatment == arm))
        middle = -(-len(rows) // 2)
        first.append(rows[:middle])
        second.append(rows[middle:])
    return np.sort(np.concatenate(first)).astype(np.int64), np.sort(np.concatenate(second)).astype(np.int64)


def training_environments(config: TrainingConfig, part: Part) -> Environments | None:
    """The environments of the training rows, or None where training knows none.

    Raises:
        DataError: if the rows do not hold the column, or too few environments can be used.
    """
    if config.invariance is None:
        return None
    column = config.invariance.column
    if part.environment is None:
        raise DataError(f"invariance.column: the rows have no column {column!r}")
    name = config.tasks[0]
    return environments_of(part.environment, part.labels[name][:, None], part.weights[name][:, None], column)


def arm_warnings(config: TrainingConfig, rows: Mapping[str, int]) -> list[str]:
    """What to say about arms with few training rows, or none."""
    treatment = config.features.treatment
    stood_for = treatment.control if treatment is not None and treatment.reference_dose is not None else None
    found: list[str] = []
    for arm, count in rows.items():
        if arm == stood_for:
            continue  # a dose of the other arm is the control: nobody needs to have been in it
        if count == 0:
            found.append(f"arm {arm!r} has no training rows: nothing can be said about it")
        elif count < LOW_SUPPORT_ROWS:
            found.append(
                f"arm {arm!r} has {count} training rows, fewer than {LOW_SUPPORT_ROWS}: its outcomes are known badly"
            )
    return found


def one_class_softness(train: UpliftRows, scales: Scales) -> tuple[torch.Tensor, list[str]]:
    """How far outcomes of each arm are moved from 0 and 1, (K,), and what to say about it.

    An arm whose rows all have one outcome has no finite best logit. As if one row of each outcome more had been seen,
    its n rows are taught 1 / (n + 2) instead of 0, or one less that instead of 1.
    """
    softness = torch.zeros(len(scales.arms))
    warnings: list[str] = []
    for number, arm in enumerate(scales.arms):
        outcomes = train.outcome[train.treatment == number]
        if len(outcomes) and bool((outcomes == outcomes[0]).all()):
            softness[number] = 1.0 / (len(outcomes) + 2)
            warnings.append(
                f"every training row of arm {arm!r} has the outcome {float(outcomes[0]):g}: it is learnt as if one row "
                "of each outcome more had been seen"
            )
    return softness, warnings


def softened(rows: UpliftRows, softness: torch.Tensor) -> UpliftRows:
    """Outcomes y (1 - 2 e) + e with each arm's e."""
    own = softness[rows.treatment]
    return replace(rows, outcome=rows.outcome * (1 - 2 * own) + own)

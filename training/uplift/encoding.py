"""Rows of a data set as tensors: inputs encoded, doses scaled to [0, 1], a continuous outcome standardised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundle.encode import Encoder
from bundle.schema import Treatment
from bundle.treatment import OutcomeScale
from models.uplift.inputs import INPUT_NAMES
from training.datasets import Dataset, Part
from training.errors import DataError
from training.uplift.rows import UpliftRows

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scales:
    """What the training rows say about the units of the data.

    Attributes:
        outcome: its name, kind, and for a continuous one mean and standard deviation.
        arms: the K arms, the control first.
        doses: by arm, lowest and highest dose in its own unit; only arms that have doses.
    """

    outcome: OutcomeScale
    arms: tuple[str, ...]
    doses: Mapping[str, tuple[float, float]]

    @property
    def dosed(self) -> tuple[int, ...]:
        """Numbers of the arms that have doses."""
        return tuple(number for number, arm in enumerate(self.arms) if arm in self.doses)

    def scaled(self, arm: str, dose: Float64) -> Float64:
        """Doses of one arm in [0, 1]; one outside the training range counts as the nearest end of it."""
        low, high = self.doses[arm]
        return np.asarray(np.clip((dose - low) / (high - low), 0.0, 1.0))


def declared_treatment(dataset: Dataset) -> Treatment:
    """The treatment of a data set of kind uplift.

    Raises:
        ValueError: if it declares none.
    """
    treatment = dataset.features.treatment
    if treatment is None:
        raise ValueError("features must declare a treatment")
    return treatment


def scales_of(dataset: Dataset) -> Scales:
    """Scales of the training rows that have an outcome.

    Raises:
        DataError: if no training row has an outcome and counts.
    """
    treatment, name = declared_treatment(dataset), dataset.tasks[0]
    part = dataset.part("train")
    outcome = outcomes_of(part, name)[labelled(part, name)]
    if not len(outcome):
        raise DataError(f"{dataset.name}: no training row has the outcome {name!r} and a weight")
    if treatment.outcome == "binary":
        scale = OutcomeScale(name=name, kind="binary")
    else:
        deviation = float(outcome.std())
        scale = OutcomeScale(
            name=name, kind="continuous", mean=float(outcome.mean()), sd=deviation if deviation > 0 else 1.0
        )
    return Scales(outcome=scale, arms=treatment.arms, doses=dict(dataset.dose_ranges))


def outcomes_of(part: Part, outcome: str) -> Float64:
    """The outcome of every row in its own unit, (N,); NaN where there is none."""
    return part.labels[outcome].astype(np.float64)


def labelled(part: Part, outcome: str) -> Int64:
    """Rows that have an outcome and count."""
    return np.flatnonzero(~np.isnan(part.labels[outcome]) & (part.weights[outcome] > 0)).astype(np.int64)


def encode_uplift(encoder: Encoder, part: Part, scales: Scales, environment: Int64 | None = None) -> UpliftRows:
    """Encode whole columns.

    Args:
        encoder: of the fitted schema.
        part: rows that all have an outcome.
        scales: of the training rows.
        environment: (N,) codes from 0; all 0 where None.
    """
    outcome = outcomes_of(part, scales.outcome.name)
    if scales.outcome.kind == "continuous":
        outcome = (outcome - scales.outcome.mean) / scales.outcome.sd
    return UpliftRows(
        inputs=encoded_inputs(encoder, part),
        treatment=torch.from_numpy(part.treatment.astype(np.int64)),
        dose=torch.from_numpy(scaled_doses(part, scales)),
        outcome=torch.from_numpy(outcome.astype(np.float32)),
        weight=torch.from_numpy(part.weights[scales.outcome.name].astype(np.float32)),
        environment=torch.from_numpy(np.zeros(len(part), np.int64) if environment is None else environment),
    )


def encoded_inputs(encoder: Encoder, part: Part) -> tuple[Tensor, ...]:
    """The user side's tensors in the order of ``INPUT_NAMES``."""
    arrays = encoder.encode(part.rows).take()
    return tuple(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in INPUT_NAMES)


def scaled_doses(part: Part, scales: Scales) -> NDArray[np.float32]:
    """Every row's dose in [0, 1], (N,); 0 where its arm has none."""
    found = np.zeros(len(part), dtype=np.float32)
    for number in scales.dosed:
        rows = part.treatment == number
        found[rows] = scales.scaled(scales.arms[number], part.dose[rows])
    return found

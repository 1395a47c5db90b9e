"""Whether predicted effects have the right size: by decile of the prediction, beside what the rows show."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.columns import Floats, Integers
from training.metrics.uplift_columns import Booleans, column, contrast


@dataclass(frozen=True, slots=True)
class UpliftBin:
    """Rows with similar predicted effects; observed and standard_error are None where the rows cannot tell."""

    low: float
    high: float
    rows: int
    predicted: float
    observed: float | None
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class UpliftCalibration:
    """Bins from the lowest predicted effect to the highest.

    Attributes:
        bins: those that hold rows; ties are never split, so there may be fewer than asked for.
        error: mean of |predicted - observed| weighted by rows, over bins with an observed effect. Noise in the
            observed effects raises it, so compare it between models on one test set only.
        warnings: bins whose effect cannot be observed, which the error leaves out.
    """

    bins: tuple[UpliftBin, ...]
    error: float
    warnings: tuple[str, ...] = ()


def uplift_calibration(
    cate: ArrayLike, outcome: ArrayLike, treated: ArrayLike, control: ArrayLike | None = None, *, bins: int = 10
) -> UpliftCalibration:
    """Mean predicted effect of each bin beside the difference of the arms' mean outcomes: for randomised rows.

    Shapes: cate, outcome, treated, control (B,); rows of neither arm are left out.

    Raises:
        ValueError: if a column is malformed or has a NaN, or bins is not positive.
    """
    rows = contrast(outcome, treated, control)
    predicted = column(cate, "cate", len(rows.kept))[rows.kept]
    found = []
    for number in _members(predicted, bins):
        arms = (rows.outcome[number & rows.treated], rows.outcome[number & ~rows.treated])
        difference = error = None
        if all(len(arm) for arm in arms):
            difference = float(arms[0].mean() - arms[1].mean())
        if all(len(arm) > 1 for arm in arms):
            error = math.sqrt(sum(float(arm.var(ddof=1)) / len(arm) for arm in arms))
        found.append(_bin(predicted[number], difference, error))
    return _calibration(found)


def uplift_calibration_of_scores(cate: ArrayLike, effect_scores: ArrayLike, *, bins: int = 10) -> UpliftCalibration:
    """Mean predicted effect of each bin beside the mean doubly robust score: for rows not treated at random.

    Shapes: cate, effect_scores (B,), the latter of `uplift_doubly_robust.effect_scores`.

    Raises:
        ValueError: if a column is malformed or has a NaN, or bins is not positive.
    """
    predicted = column(cate, "cate")
    scores = column(effect_scores, "effect_scores", len(predicted))
    found = []
    for number in _members(predicted, bins):
        inside = scores[number]
        error = float(inside.std(ddof=1)) / math.sqrt(len(inside)) if len(inside) > 1 else None
        found.append(_bin(predicted[number], float(inside.mean()), error))
    return _calibration(found)


def _members(predicted: Floats, bins: int) -> list[Booleans]:
    """Masks of the bins that hold rows. A run of ties belongs to the bin in which its middle lies."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    _, run, count = np.unique(predicted, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2
    number: Integers = np.floor(middle * bins / len(predicted)).astype(np.int64)[run]
    return [number == found for found in np.unique(number)]


def _bin(predicted: Floats, observed: float | None, error: float | None) -> UpliftBin:
    low, high = float(predicted.min()), float(predicted.max())
    return UpliftBin(low, high, len(predicted), float(predicted.mean()), observed, error)


def _calibration(bins: list[UpliftBin]) -> UpliftCalibration:
    gaps = [(part.rows, abs(part.predicted - part.observed)) for part in bins if part.observed is not None]
    warnings = tuple(
        f"the bin of predicted effects {part.low:g} to {part.high:g} lacks an arm, so its effect is unknown"
        for part in bins
        if part.observed is None
    )
    total = sum(rows for rows, _ in gaps)
    error = math.fsum(rows * gap for rows, gap in gaps) / total if total else 0.0
    if not total:
        warnings = (*warnings, "no bin has an observed effect, so the error counts 0")
    return UpliftCalibration(tuple(bins), error, warnings)

"""How true probabilities are: logloss, normalised entropy, PCOC, ECE and the calibration curve."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.columns import Floats, scored_rows
from training.metrics.ranking import ScoreRuns

CLIP = 1e-7


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """One bin of a calibration curve: the predictions in it, their weight, and the rate that was observed."""

    low: float
    high: float
    weight: float
    predicted: float
    observed: float


def _checked(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    rows = scored_rows(labels, predictions, weights)
    if ((rows.scores < 0) | (rows.scores > 1)).any():
        raise ValueError("predictions must be probabilities in [0, 1]; give sigmoid(logits), not logits")
    return rows.labels, rows.scores, rows.weights


def row_logloss(labels: Floats, predictions: Floats) -> Floats:
    """Logloss of each row, predictions clipped to [1e-7, 1 - 1e-7]; (N,) twice -> (N,)."""
    clipped = np.clip(predictions, CLIP, 1.0 - CLIP)
    return np.asarray(-(labels * np.log(clipped) + (1.0 - labels) * np.log1p(-clipped)))


def logloss(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Weighted mean of -y log p - (1 - y) log(1 - p), p clipped to [1e-7, 1 - 1e-7]; NaN without rows.

    Shapes: labels, predictions, weights (B,).

    Raises:
        ValueError: if a column is malformed or a prediction lies outside [0, 1].
    """
    label, prediction, weight = _checked(labels, predictions, weights)
    return float(np.average(row_logloss(label, prediction), weights=weight)) if len(label) else math.nan


def normalised_entropy(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Logloss divided by the entropy of the base rate: 1 is no better than the mean; NaN if a class is absent.

    Source: He et al. 2014, Practical Lessons from Predicting Clicks on Ads at Facebook.

    Shapes: labels, predictions, weights (B,).

    Raises:
        ValueError: if a column is malformed or a prediction lies outside [0, 1].
    """
    label, prediction, weight = _checked(labels, predictions, weights)
    if not len(label):
        return math.nan
    rate = float(np.average(label, weights=weight))
    if rate in (0.0, 1.0):
        return math.nan
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))
    return float(np.average(row_logloss(label, prediction), weights=weight)) / entropy


def pcoc(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Predicted count over observed count, sum(w p) / sum(w y); 1 is unbiased, NaN without a positive.

    Shapes: labels, predictions, weights (B,).

    Raises:
        ValueError: if a column is malformed or a prediction lies outside [0, 1].
    """
    label, prediction, weight = _checked(labels, predictions, weights)
    observed = float((weight * label).sum())
    return float((weight * prediction).sum()) / observed if observed > 0 else math.nan


def ece_of_runs(weights: Floats, predicted: Floats, observed: Floats, bins: int) -> Floats:
    """ECE of run sums sorted by prediction: weight, weight * p and weight * y (R, N) -> (R,)."""
    cumulative = np.cumsum(weights, axis=-1)
    midpoint = cumulative - 0.5 * weights
    gap = np.cumsum(predicted - observed, axis=-1)
    gap_before = np.concatenate([np.zeros_like(gap[:, :1]), gap], axis=-1)
    errors = np.empty(len(weights))
    for row, total in enumerate(cumulative[:, -1]):
        cuts = np.searchsorted(midpoint[row], total * np.arange(1, bins) / bins, side="left")
        edges = np.concatenate([[0], cuts, [weights.shape[-1]]])
        errors[row] = np.abs(np.diff(gap_before[row, edges])).sum() / total
    return errors


def ece(labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None, bins: int = 20) -> float:
    """Expected calibration error over bins of equal weight (equal count without weights).

    Equal predictions are never split, or the value would depend on the order of the rows: a run of ties belongs to
    the bin in which the middle of its weight lies, so a bin may hold more than its share and its neighbour less.

    Source: Guo et al. 2017, arXiv:1706.04599. Differs from it: equal-count instead of equal-width bins.

    Shapes: labels, predictions, weights (B,).

    Raises:
        ValueError: if a column is malformed, a prediction lies outside [0, 1] or bins is not positive.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    label, prediction, weight = _checked(labels, predictions, weights)
    if not len(label):
        return math.nan
    runs = ScoreRuns.of(prediction)
    columns = [runs.sums(column)[None, :] for column in (weight, weight * prediction, weight * label)]
    return float(ece_of_runs(columns[0], columns[1], columns[2], bins)[0])


def calibration_curve(
    labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None, bins: int = 20
) -> list[CalibrationBin]:
    """Bins of :func:`ece` as rows, from the lowest prediction to the highest; empty bins are left out.

    Shapes: labels, predictions, weights (B,).

    Raises:
        ValueError: if a column is malformed, a prediction lies outside [0, 1] or bins is not positive.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    label, prediction, weight = _checked(labels, predictions, weights)
    if not len(label):
        return []
    runs = ScoreRuns.of(prediction)
    run_weight = runs.sums(weight)
    midpoint = np.cumsum(run_weight) - 0.5 * run_weight
    cuts = np.searchsorted(midpoint, run_weight.sum() * np.arange(1, bins) / bins, side="left")
    edges = np.unique(np.concatenate([[0], cuts, [len(run_weight)]]))
    value = prediction[runs.order][runs.run_start]
    observed = runs.sums(weight * label)
    curve = []
    for start, stop in itertools.pairwise(edges.tolist()):
        mass = run_weight[start:stop].sum()
        curve.append(
            CalibrationBin(
                low=float(value[start]),
                high=float(value[stop - 1]),
                weight=float(mass),
                predicted=float((run_weight[start:stop] * value[start:stop]).sum() / mass),
                observed=float(observed[start:stop].sum() / mass),
            )
        )
    return curve

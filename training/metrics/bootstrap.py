"""Intervals by resampling users: how far a metric, or the difference of two models, would move with other users.

A replicate draws as many users as there are, with replacement. A user drawn m times has the weight of its rows
multiplied by m, so every metric is a weighted sum over rows sorted once and no row is ever copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.columns import Floats, Integers, ScoredRows, key_codes, scored_rows
from training.metrics.probability import ece_of_runs, row_logloss
from training.metrics.ranking import ScoreRuns, auc_of_runs, gauc_of_runs

# Bounds the (replicates, rows) block that is alive at a time: 64 x 10,000 float64 is 5 MB a column.
_CELLS_AT_ONCE = 640_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its percentile interval; standard_error is the spread of the replicates."""

    value: float
    low: float
    high: float
    standard_error: float
    level: float
    replicates: int


@dataclass(frozen=True, slots=True)
class _Sorted:
    """One model's rows, sorted once for every replicate."""

    rows: ScoredRows
    runs: ScoreRuns
    grouped: ScoreRuns | None
    logloss: Floats
    bins: int

    @classmethod
    def of(cls, rows: ScoredRows, groups: Integers | None, bins: int) -> Self:
        if len(rows.scores) and (rows.scores.min() < 0 or rows.scores.max() > 1):
            raise ValueError("predictions must be probabilities in [0, 1]; give sigmoid(logits), not logits")
        grouped = None if groups is None else ScoreRuns.of(rows.scores, groups)
        return cls(rows, ScoreRuns.of(rows.scores), grouped, row_logloss(rows.labels, rows.scores), bins)

    def metrics(self, weights: Floats) -> dict[str, Floats]:
        """Every metric for each weighting (R, N) -> name to (R,)."""
        positives, negatives = weights * self.rows.labels, weights * (1.0 - self.rows.labels)
        run_positives, run_negatives = self.runs.sums(positives), self.runs.sums(negatives)
        predicted = weights @ self.rows.scores
        observed = positives.sum(axis=-1)
        total = weights.sum(axis=-1)
        values = {"auc": auc_of_runs(run_positives, run_negatives)}
        if self.grouped is not None:
            values["gauc"] = gauc_of_runs(self.grouped, self.grouped.sums(positives), self.grouped.sums(negatives))[0]
        values["logloss"] = (weights @ self.logloss) / total
        values["pcoc"] = np.divide(predicted, observed, out=np.full_like(predicted, np.nan), where=observed > 0)
        run_weight = run_positives + run_negatives
        run_score = self.rows.scores[self.runs.order][self.runs.run_start]
        values["ece"] = ece_of_runs(run_weight, run_weight * run_score, run_positives, self.bins)
        return values


def _weightings(rows: ScoredRows, users: Integers, replicates: int, seed: int) -> Iterator[Floats]:
    """Blocks (r, N) of row weights whose first row is the data as it is, then one row a replicate."""
    yield rows.weights[None, :]
    generator = np.random.default_rng(seed)
    count = int(users.max()) + 1
    share = np.full(count, 1.0 / count)
    block = max(1, _CELLS_AT_ONCE // max(1, len(users)))
    for start in range(0, replicates, block):
        times = generator.multinomial(count, share, size=min(block, replicates - start))
        yield times[:, users] * rows.weights


def _interval(values: Floats, level: float) -> Interval:
    """Summarise value (first) and replicates; replicates in which the metric is undefined are left out."""
    replicates = values[1:][np.isfinite(values[1:])]
    if not len(replicates):
        return Interval(float(values[0]), float("nan"), float("nan"), float("nan"), level, 0)
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values[0]), float(low), float(high), float(replicates.std()), level, len(replicates))


def _check(replicates: int, level: float) -> None:
    if replicates < 1:
        raise ValueError(f"replicates must be at least 1, got {replicates}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")


def bootstrap_intervals(
    labels: ArrayLike,
    predictions: ArrayLike,
    users: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    bins: int = 20,
) -> dict[str, Interval]:
    """AUC, GAUC (with groups), logloss, PCOC and ECE with percentile intervals over resampled users.

    ECE sums absolute gaps, which every resampling widens: its replicates lie above the value, and on few rows the
    interval may not contain it. Read it as an upper bound.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13; clusters are users.

    Shapes: labels, predictions, users, groups, weights (B,).

    Raises:
        ValueError: if a column is malformed, no row has a label, or replicates or level are out of range.
    """
    _check(replicates, level)
    rows = scored_rows(labels, predictions, weights)
    if not len(rows.labels):
        raise ValueError("no row has a label, so there is nothing to resample")
    model = _Sorted.of(rows, None if groups is None else key_codes(groups, rows, "groups"), bins)
    blocks = [model.metrics(block) for block in _weightings(rows, key_codes(users, rows, "users"), replicates, seed)]
    return {name: _interval(np.concatenate([block[name] for block in blocks]), level) for name in blocks[0]}


def paired_bootstrap(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    users: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    bins: int = 20,
) -> dict[str, Interval]:
    """Difference, first minus second, of every metric on the same resampled users.

    Shapes: labels, first and second (probabilities), users, groups, weights (B,).

    Raises:
        ValueError: if a column is malformed, no row has a label, or replicates or level are out of range.
    """
    _check(replicates, level)
    first_rows, second_rows = scored_rows(labels, first, weights), scored_rows(labels, second, weights)
    if not len(first_rows.labels):
        raise ValueError("no row has a label, so there is nothing to resample")
    group_codes = None if groups is None else key_codes(groups, first_rows, "groups")
    models = [_Sorted.of(rows, group_codes, bins) for rows in (first_rows, second_rows)]
    blocks = []
    for block in _weightings(first_rows, key_codes(users, first_rows, "users"), replicates, seed):
        one, other = (model.metrics(block) for model in models)
        blocks.append({name: one[name] - other[name] for name in one})
    return {name: _interval(np.concatenate([block[name] for block in blocks]), level) for name in blocks[0]}

"""How well scores order rows: AUC, GAUC, NDCG@k and recall@k. Ties never depend on the order of the rows.

The sums are taken for many weightings at once, (R, N): one for the metric itself, a thousand for its bootstrap.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.metrics.columns import Floats, Integers, key_codes, scored_rows


@dataclass(frozen=True, slots=True)
class ScoreRuns:
    """Rows sorted by (group, score), cut into runs of equal score inside a group.

    Shapes: order (N,) sorts the rows; run_start (R,) first sorted row of each run; group_start (G,) first run of each
    group; group_of_run (R,).
    """

    order: Integers
    run_start: Integers
    group_start: Integers
    group_of_run: Integers

    @classmethod
    def of(cls, scores: Floats, groups: Integers | None = None) -> Self:
        """Sort (N,) scores, inside (N,) groups when given."""
        keys = np.zeros(len(scores), np.int64) if groups is None else groups
        order = np.lexsort((scores, keys)).astype(np.int64)
        sorted_scores, sorted_keys = scores[order], keys[order]
        new_group = _starts(sorted_keys)
        new_run = new_group | _starts(sorted_scores)
        run_start = np.flatnonzero(new_run)
        group_start = np.flatnonzero(new_group[run_start])
        group_of_run = np.cumsum(new_group[run_start]) - 1
        return cls(order, run_start, group_start, group_of_run)

    def sums(self, weights: Floats) -> Floats:
        """Sum (..., N) row weights inside each run -> (..., R)."""
        if not len(self.run_start):
            return np.zeros((*weights.shape[:-1], 0))
        return np.asarray(np.add.reduceat(weights[..., self.order], self.run_start, axis=-1))


@dataclass(frozen=True, slots=True)
class GroupedAUC:
    """GAUC and what it was taken over: groups with both classes, groups dropped, share of the impressions kept."""

    value: float
    groups: int
    dropped: int
    impressions_kept: float


def _starts(values: NDArray[np.generic]) -> NDArray[np.bool_]:
    """True where a value differs from the one before it, and at the first."""
    starts = np.ones(len(values), dtype=np.bool_)
    starts[1:] = values[1:] != values[:-1]
    return starts


def auc_of_runs(positives: Floats, negatives: Floats) -> Floats:
    """AUC of run sums sorted by score, ties counted half; (..., R) twice -> (...,), NaN where a class is absent."""
    below = np.cumsum(negatives, axis=-1) - 0.5 * negatives
    pairs = positives.sum(axis=-1) * negatives.sum(axis=-1)
    ordered = np.asarray((positives * below).sum(axis=-1))
    return np.asarray(np.divide(ordered, pairs, out=np.full_like(ordered, np.nan), where=np.asarray(pairs) > 0))


def gauc_of_runs(runs: ScoreRuns, positives: Floats, negatives: Floats) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """GAUC of run sums: the value (...,), which groups count (..., G) and the weight of each group (..., G)."""

    def by_group(values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, runs.group_start, axis=-1))

    cumulative = np.cumsum(negatives, axis=-1)
    before_group = (cumulative - negatives)[..., runs.group_start]
    below = cumulative - 0.5 * negatives - before_group[..., runs.group_of_run]
    positive_sum, negative_sum = by_group(positives), by_group(negatives)
    pairs = positive_sum * negative_sum
    counts = pairs > 0
    group_auc = np.divide(by_group(positives * below), pairs, out=np.zeros_like(pairs), where=counts)
    weight = positive_sum + negative_sum
    total = np.asarray((weight * counts).sum(axis=-1))
    summed = np.asarray((weight * group_auc).sum(axis=-1))
    value = np.divide(summed, total, out=np.full_like(summed, np.nan), where=total > 0)
    return value, counts, weight


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Probability that a positive row scores above a negative one, ties counted half.

    Shapes: labels, scores, weights (B,). Rows with a NaN label or weight 0 are left out. NaN if a class is absent.

    Raises:
        ValueError: if a column is malformed.
    """
    rows = scored_rows(labels, scores, weights)
    runs = ScoreRuns.of(rows.scores)
    return float(auc_of_runs(runs.sums(rows.positives), runs.sums(rows.negatives)))


def gauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, weights: ArrayLike | None = None) -> GroupedAUC:
    """Mean AUC over the groups that have both classes, weighted by their impressions.

    Source: Zhu et al. 2017, Optimized Cost per Click in Taobao Display Advertising, arXiv:1703.02091.

    Shapes: labels, scores, groups, weights (B,). Value NaN if no group has both classes.

    Raises:
        ValueError: if a column is malformed.
    """
    rows = scored_rows(labels, scores, weights)
    if not len(rows.labels):
        return GroupedAUC(math.nan, 0, 0, math.nan)
    runs = ScoreRuns.of(rows.scores, key_codes(groups, rows, "groups"))
    value, counts, weight = gauc_of_runs(runs, runs.sums(rows.positives), runs.sums(rows.negatives))
    kept = int(counts.sum())
    return GroupedAUC(float(value), kept, len(counts) - kept, float((weight * counts).sum() / weight.sum()))


def ndcg_at_k(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike, k: int) -> float:
    """Mean over requests with a positive label of DCG@k / ideal DCG@k, gain = label, discount 1 / log2(1 + rank).

    Rows of equal score share the mean discount of the ranks they occupy.

    Source: Jarvelin and Kekalainen 2002, Cumulated Gain-Based Evaluation of IR Techniques.

    Shapes: labels, scores, requests (B,). NaN if no request has a positive label.

    Raises:
        ValueError: if a column is malformed or k is not positive.
    """
    rows = scored_rows(labels, scores)
    request_codes = key_codes(requests, rows, "requests")
    discount = _expected_seats(rows.scores, request_codes, _discounts(k))
    ideal = _expected_seats(rows.labels, request_codes, _discounts(k))
    gained = np.bincount(request_codes, rows.labels * discount)
    best = np.bincount(request_codes, rows.labels * ideal)
    counts = best > 0
    return float(np.mean(gained[counts] / best[counts])) if counts.any() else math.nan


def recall_at_k(labels: ArrayLike, scores: ArrayLike, requests: ArrayLike, k: int) -> float:
    """Mean over requests with a positive of the share of the positives among the k best scores.

    Rows of equal score share the seats that remain, so no order among them is assumed.

    Shapes: labels, scores, requests (B,). NaN if no request has a positive.

    Raises:
        ValueError: if a column is malformed or k is not positive.
    """
    rows = scored_rows(labels, scores)
    request_codes = key_codes(requests, rows, "requests")
    seats = _expected_seats(rows.scores, request_codes, _seats(k))
    found = np.bincount(request_codes, rows.labels * seats)
    positives = np.bincount(request_codes, rows.labels)
    counts = positives > 0
    return float(np.mean(found[counts] / positives[counts])) if counts.any() else math.nan


def _seats(k: int) -> Floats:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return np.ones(k)


def _discounts(k: int) -> Floats:
    return _seats(k) / np.log2(np.arange(2, k + 2))


def _expected_seats(scores: Floats, groups: Integers, value_of_rank: Floats) -> Floats:
    """Mean of value_of_rank (k,) over the ranks that a row's run of ties occupies in its group; (N,) -> (N,)."""
    if not len(scores):
        return np.zeros(0)
    runs = ScoreRuns.of(-scores, groups)
    first_row = runs.run_start[runs.group_start]
    row_run = np.repeat(np.arange(len(runs.run_start)), np.diff(np.append(runs.run_start, len(scores))))
    rank = np.arange(len(scores)) - first_row[runs.group_of_run[row_run]]
    value = np.where(rank < len(value_of_rank), value_of_rank[np.minimum(rank, len(value_of_rank) - 1)], 0.0)
    mean = np.add.reduceat(value, runs.run_start) / np.diff(np.append(runs.run_start, len(scores)))
    spread = np.empty(len(scores))
    spread[runs.order] = mean[row_run]
    return spread

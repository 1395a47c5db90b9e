"""Checked input columns of every metric, so that each metric itself reads like its formula."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Rows that count: finite scores, known labels, positive weights.

    Shapes: all (N,); labels and scores float64, weights float64 > 0; kept is the (B,) mask of the rows given.
    """

    labels: Floats
    scores: Floats
    weights: Floats
    kept: NDArray[np.bool_]

    @property
    def positives(self) -> Floats:
        """Weight of the positive share of each row, (N,)."""
        return self.weights * self.labels

    @property
    def negatives(self) -> Floats:
        """Weight of the negative share of each row, (N,)."""
        return self.weights * (1.0 - self.labels)


def scored_rows(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> ScoredRows:
    """Check the columns and leave out rows without a label (NaN) or without weight.

    Shapes: labels, scores and weights (B,); labels in [0, 1] or NaN.

    Raises:
        ValueError: if shapes differ, a label lies outside [0, 1], a weight is negative or not finite, or the score
            of a row that counts is NaN.
    """
    label_column = np.asarray(labels, dtype=np.float64)
    score_column = np.asarray(scores, dtype=np.float64)
    if label_column.ndim != 1 or label_column.shape != score_column.shape:
        raise ValueError(f"labels {label_column.shape} and scores {score_column.shape} must be columns of one length")
    weight_column = np.ones_like(label_column) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight_column.shape != label_column.shape:
        raise ValueError(f"weights {weight_column.shape} must have the shape of the labels {label_column.shape}")
    if not np.isfinite(weight_column).all() or (weight_column < 0).any():
        raise ValueError("weights must be finite and not negative")
    kept = ~np.isnan(label_column) & (weight_column > 0)
    rows = ScoredRows(label_column[kept], score_column[kept], weight_column[kept], kept)
    if ((rows.labels < 0) | (rows.labels > 1)).any():
        raise ValueError("labels must lie in [0, 1], or be NaN where the task has no label")
    if np.isnan(rows.scores).any():
        raise ValueError("scores must not be NaN")
    return rows


def codes(values: ArrayLike) -> Integers:
    """Number the distinct values of a key column 0, 1, ... in sorted order; (B,) -> (B,) int64."""
    column = np.asarray(values)
    if column.ndim != 1:
        raise ValueError(f"a key column must have one dimension, got shape {column.shape}")
    return np.unique(column, return_inverse=True)[1].astype(np.int64)


def key_codes(values: ArrayLike, rows: ScoredRows, name: str) -> Integers:
    """Codes of the key of the rows that count.

    Raises:
        ValueError: if the key column is not as long as the labels.
    """
    column = np.asarray(values)
    if column.shape != rows.kept.shape:
        raise ValueError(f"{name} {column.shape} must have the shape of the labels {rows.kept.shape}")
    return codes(column[rows.kept])

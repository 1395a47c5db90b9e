"""Whether intervals hold what they promise, where the truth is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.uplift_columns import table


@dataclass(frozen=True, slots=True)
class IntervalQuality:
    """Share of true values inside their intervals (bounds included) and the mean width, also of each column."""

    coverage: float
    mean_width: float
    coverage_by_column: tuple[float, ...]
    width_by_column: tuple[float, ...]


def interval_quality(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> IntervalQuality:
    """Coverage and width of intervals of mu (one column an arm) or of effects.

    Shapes: truth, low, high (B,) or (B, K).

    Raises:
        ValueError: if an array is malformed or has a NaN, or a lower bound lies above its upper bound.
    """
    given = np.asarray(truth, dtype=np.float64)
    shape = given.shape if given.ndim == 2 else (given.size,)
    true_values, lows, highs = (
        table(part, name, shape).reshape(shape[0], -1)
        for part, name in ((given, "truth"), (low, "low"), (high, "high"))
    )
    if (lows > highs).any():
        raise ValueError(f"low must not lie above high, as in {int((lows > highs).sum())} of {lows.size} intervals")
    inside = (lows <= true_values) & (true_values <= highs)
    width = highs - lows
    return IntervalQuality(
        coverage=float(inside.mean()),
        mean_width=float(width.mean()),
        coverage_by_column=tuple(inside.mean(axis=0).tolist()),
        width_by_column=tuple(width.mean(axis=0).tolist()),
    )

"""Errors of dose-response curves where the true ones are known."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.columns import Floats
from training.metrics.uplift_columns import column, table

# The published numbers integrate over 65 samples; on fewer a trapezoid cuts the tops of the error off.
_FEWEST_POINTS: Final = 65


def mise(curves: ArrayLike, true_curves: ArrayLike, doses: ArrayLike) -> float:
    """Mean over rows and treatments of the integral over the dose of the squared error, by trapezoids.

    Every step has its own width, so the grid may be uneven and the integral has no factor of G / (G - 1). Papers
    print the root.

    Source: Schwab et al. 2020, arXiv:1902.00981. Differs from it: the exact step width.

    Shapes: curves, true_curves (B, K, G), doses (G,) increasing, at least 65.

    Raises:
        ValueError: if an array is malformed or has a NaN, or the grid is too coarse or does not increase.
    """
    grid = column(doses, "doses")
    if len(grid) < _FEWEST_POINTS:
        raise ValueError(f"doses must have at least {_FEWEST_POINTS} points, got {len(grid)}")
    steps = np.diff(grid)
    if (steps <= 0).any():
        raise ValueError("doses must increase from point to point")
    predicted, truth = _curves(curves, true_curves)
    if predicted.shape[2] != len(grid):
        raise ValueError(f"curves must have {len(grid)} points like the doses, got {predicted.shape[2]}")
    error = (predicted - truth) ** 2
    return float(np.mean((error[..., 1:] + error[..., :-1]) @ steps / 2))


def amse(adrf: ArrayLike, true_adrf: ArrayLike) -> float:
    """Mean over the test doses of the squared error of the average dose-response function.

    Source: Nie et al. 2021, VCNet and Functional Targeted Regularization, arXiv:2103.07861.

    Shapes: adrf, true_adrf (G,).

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    predicted = column(adrf, "adrf")
    return float(np.mean((predicted - column(true_adrf, "true_adrf", len(predicted))) ** 2))


def dose_policy_error(curves: ArrayLike, true_curves: ArrayLike) -> float:
    """Mean over rows and treatments of the squared outcome lost at the dose that looks best; ties: the smaller dose.

    Source: Schwab et al. 2020, arXiv:1902.00981. Differs from it: the best dose is sought on the grid.

    Shapes: curves, true_curves (B, K, G) on one grid.

    Raises:
        ValueError: if an array is malformed or has a NaN.
    """
    predicted, truth = _curves(curves, true_curves)
    chosen = np.take_along_axis(truth, predicted.argmax(axis=2)[..., None], axis=2)[..., 0]
    return float(np.mean((truth.max(axis=2) - chosen) ** 2))


def policy_error(curves: ArrayLike, true_curves: ArrayLike) -> float:
    """Mean over rows of the squared outcome lost at the treatment and dose that look best together.

    Ties go to the earlier treatment and the smaller dose.

    Source: Schwab et al. 2020, arXiv:1902.00981. Differs from it: the best dose is sought on the grid.

    Shapes: curves, true_curves (B, K, G) on one grid.

    Raises:
        ValueError: if an array is malformed or has a NaN.
    """
    predicted, truth = (part.reshape(len(part), -1) for part in _curves(curves, true_curves))
    chosen = np.take_along_axis(truth, predicted.argmax(axis=1)[:, None], axis=1)[:, 0]
    return float(np.mean((truth.max(axis=1) - chosen) ** 2))


def _curves(curves: ArrayLike, true_curves: ArrayLike) -> tuple[Floats, Floats]:
    predicted = table(curves, "curves", (None, None, None))
    return predicted, table(true_curves, "true_curves", predicted.shape)

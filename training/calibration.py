"""Calibrators fitted on validation logits; the bundle applies them (`bundle.correct`).

The logits must already describe the unsampled population: undo the sampling first, as serving does.
"""

import math
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.isotonic import IsotonicRegression

from bundle.correct import Identity, Isotonic, Platt, Temperature, sigmoid
from training.metrics import logloss
from training.metrics.columns import Floats, ScoredRows, key_codes, scored_rows

Method = Literal["platt", "temperature", "isotonic", "none", "auto"]
FittedCalibrator = Identity | Platt | Temperature | Isotonic

# From the simplest: an equal logloss goes to the earlier one.
_METHODS: Final[tuple[Method, ...]] = ("none", "temperature", "platt", "isotonic")
# The slope must stay positive or the order of scores would flip; scores that carry nothing end up at this slope.
_LOWEST_SLOPE: Final = 0.01
_NEWTON_STEPS: Final = 50


def fit_calibrator(
    method: Method,
    logits: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike | None = None,
    users: ArrayLike | None = None,
    folds: int = 5,
) -> FittedCalibrator:
    """Fit one task's calibrator.

    Args:
        method: `auto` takes the one whose logloss is best when cross-validated by user.
        logits: (B,) corrected validation logits.
        labels: (B,), NaN where the task has no label.
        weights: (B,) or None.
        users: (B,) key that folds keep together; only `auto` reads it (None: every row by itself).
        folds: of `auto`.

    Returns:
        The calibrator; Identity where the rows have one class only, because nothing can be fitted then.

    Raises:
        ValueError: if a column is malformed, a logit is not finite, or the method is unknown.
    """
    rows = scored_rows(labels, logits, weights)
    if not np.isfinite(rows.scores).all():
        raise ValueError("logits must be finite")
    if method not in (*_METHODS, "auto"):
        raise ValueError(f"unknown calibration method {method!r}, expected one of {(*_METHODS, 'auto')}")
    if not (rows.positives.sum() > 0 and rows.negatives.sum() > 0):
        return Identity()
    if method == "auto":
        keys = np.arange(len(rows.labels)) if users is None else key_codes(users, rows, "users")
        method = _best_method(rows, keys, folds)
    return _fit(method, rows.scores, rows.labels, rows.weights)


def _best_method(rows: ScoredRows, users: NDArray[np.int64], folds: int) -> Method:
    """The method with the lowest logloss on users it was not fitted on."""
    distinct = int(users.max()) + 1
    # Shuffled with a fixed seed: ids often follow the time of registration.
    fold_of = np.random.default_rng(0).permutation(distinct)[users] % folds
    best: Method = "none"
    lowest = math.inf
    for method in _METHODS:
        predictions = np.empty(len(rows.labels))
        for fold in range(folds):
            out = fold_of == fold
            fitted = _fit(method, rows.scores[~out], rows.labels[~out], rows.weights[~out])
            predictions[out] = fitted.apply(rows.scores[out])
        loss = logloss(rows.labels, predictions, rows.weights)
        if loss < lowest - 1e-9:
            best, lowest = method, loss
    return best


def _fit(method: Method, logits: Floats, labels: Floats, weights: Floats) -> FittedCalibrator:
    if method == "none" or not ((weights * labels).sum() > 0 and (weights * (1 - labels)).sum() > 0):
        return Identity()
    if method == "platt":
        slope, intercept = fit_line(logits, labels, weights, with_intercept=True)
        return Platt(a=slope, b=intercept)
    if method == "temperature":
        slope, _ = fit_line(logits, labels, weights, with_intercept=False)
        return Temperature(temperature=1.0 / slope)
    return _fit_isotonic(logits, labels, weights)


def fit_line(logits: Floats, labels: Floats, weights: Floats, *, with_intercept: bool) -> tuple[float, float]:
    """Slope and intercept of sigmoid(a z + b) with the least logloss, by damped Newton steps; a is at least 0.01.

    Source: Platt 1999, Probabilistic Outputs for Support Vector Machines. Differs from it: targets stay 0 and 1, and
    a prior worth one row holds (a, b) near (1, 0), which keeps separable scores finite.

    Shapes: all (N,).
    """
    design = np.stack([logits, np.ones_like(logits)], axis=1) if with_intercept else logits[:, None]
    total = float(weights.sum())
    start = np.array([1.0, 0.0])[: design.shape[1]]
    prior = 1.0 / total

    def loss(line: Floats) -> float:
        z = design @ line
        rows = np.logaddexp(0.0, z) - labels * z
        return float(weights @ rows) / total + 0.5 * prior * float(((line - start) ** 2).sum())

    line, now = start, loss(start)
    for _ in range(_NEWTON_STEPS):
        p = sigmoid(design @ line)
        gradient = design.T @ (weights * (p - labels)) / total + prior * (line - start)
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design / total + prior * np.eye(len(line))
        step = np.linalg.solve(curvature, gradient)
        scale = 1.0
        while scale > 1e-6 and loss(line - scale * step) > now:
            scale *= 0.5
        line = line - scale * step
        after = loss(line)
        if now - after < 1e-12:
            break
        now = after
    if line[0] >= _LOWEST_SLOPE:
        return float(line[0]), float(line[1]) if with_intercept else 0.0
    if not with_intercept:
        return _LOWEST_SLOPE, 0.0
    rate = float(np.average(labels, weights=weights))
    # At so small a slope the curve is all but flat, so the intercept is that of the base rate.
    return _LOWEST_SLOPE, math.log(rate / (1 - rate)) - _LOWEST_SLOPE * float(np.average(logits, weights=weights))


def _fit_isotonic(logits: Floats, labels: Floats, weights: Floats) -> Isotonic:
    """Monotone curve through pooled rates, kept off 0 and 1 by one pseudo-row so that no later row costs infinity."""
    room = 1.0 / (float(weights.sum()) + 2.0)
    curve = IsotonicRegression(y_min=room, y_max=1.0 - room, out_of_bounds="clip")
    curve.fit(sigmoid(logits), labels, sample_weight=weights)
    x, first = np.unique(np.asarray(curve.X_thresholds_, dtype=np.float64), return_index=True)
    y = np.maximum.accumulate(np.asarray(curve.y_thresholds_, dtype=np.float64)[first])
    return Isotonic(x_knots=tuple(x.tolist()), y_knots=tuple(y.tolist()))

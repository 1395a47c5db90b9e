"""Whether a network predicts nothing: where training across environments ends when its penalty wins over everything.

A network whose predictions are near zero has no gradient with respect to their scale, so its penalty is as small as at
the invariant solution, and nothing but its fit to the training rows tells the two apart.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from training.errors import NullPredictor
from training.metrics import auc, logloss

# Share of the constant's error that a network must take away: less is the size of rounding and of luck.
LEAST_SKILL: Final = 1e-3
STANDARD_ERRORS: Final = 2.0


def refuse_null_predictor(
    targets: NDArray[Any],
    predictions: NDArray[Any],
    weights: NDArray[Any],
    outcome: Literal["binary", "continuous"],
    name: str,
) -> None:
    """Fail a training whose network is no better than a constant on its own training rows.

    For a binary outcome it must rank better than chance (AUC above one half by two standard errors) and its log loss
    must be below the base rate's; for a continuous one its R2 must be above 0. Rank alone would not do: logits of
    0.001 times the right ones rank just as well.

    Args:
        targets: (N,), 0 or 1 for a binary outcome.
        predictions: (N,), probabilities for a binary outcome.
        weights: (N,); rows of weight 0 are not looked at.
        outcome: kind of the target.
        name: of the task or outcome, for the message.

    Raises:
        NullPredictor: saying what was measured.
    """
    counted = weights > 0
    y, f, w = (np.asarray(column, dtype=np.float64)[counted] for column in (targets, predictions, weights))
    found = _binary(y, f, w) if outcome == "binary" else _continuous(y, f, w)
    if found is not None:
        raise NullPredictor(
            f"the network predicts nothing about {name!r} ({found} on its own training rows): "
            "lower invariance.lambda_max or make invariance.warm_start longer"
        )


def _continuous(y: NDArray[np.float64], f: NDArray[np.float64], w: NDArray[np.float64]) -> str | None:
    spread = float(np.average((y - np.average(y, weights=w)) ** 2, weights=w))
    r2 = 1 - float(np.average((y - f) ** 2, weights=w)) / spread if spread > 0 else 0.0
    return f"R2 is {r2:.4f}" if not r2 > LEAST_SKILL else None


def _binary(y: NDArray[np.float64], f: NDArray[np.float64], w: NDArray[np.float64]) -> str | None:
    positives, negatives = float((y > 0.5).sum()), float((y <= 0.5).sum())
    if not positives or not negatives:
        return "there is one class only"
    labels = (y > 0.5).astype(np.float64)
    # Of the Mann-Whitney statistic under no association.
    error = math.sqrt((positives + negatives + 1) / (12 * positives * negatives))
    area = auc(labels, f, w)
    if not area > 0.5 + STANDARD_ERRORS * error:
        return f"AUC is {area:.4f}, chance is 0.5 +- {STANDARD_ERRORS * error:.4f}"
    constant = logloss(labels, np.full_like(f, np.average(labels, weights=w)), w)
    reached = logloss(labels, f, w)
    return (
        f"log loss is {reached:.4f}, the base rate's {constant:.4f}"
        if not reached < (1 - LEAST_SKILL) * constant
        else None
    )

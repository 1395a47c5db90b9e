"""Losses that choose between effect models without a single counterfactual: everything here was observed or fitted.

The nuisances (mean outcome, propensity, outcome by arm) must be fitted on other rows than those compared on, and be
the same for all candidates, or the comparison is of nuisances.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.columns import Floats
from training.metrics.uplift_columns import Measured, arm_codes, column, contrast, probabilities, table

_DISTANCES_AT_ONCE: Final = 4_000_000
# Squared distances come from a matrix product: duplicates differ by rounding, and must stay ties.
_DISTANCE_TOLERANCE: Final = 1e-9


def r_loss(
    outcome: ArrayLike,
    treatment: ArrayLike,
    effects: ArrayLike,
    mean_outcome: ArrayLike,
    propensity: ArrayLike,
) -> float:
    """Mean of ((y - m) - sum over arms (1[t = k] - g_k) effect_k)^2, m the mean outcome given the features alone.

    With two arms it is ((y - m) - (t - g) cate)^2. Adding a constant to all effects of a row changes nothing.

    Source: Nie and Wager 2021, Quasi-Oracle Estimation of Heterogeneous Treatment Effects, arXiv:1712.04912.

    Shapes: outcome, treatment, mean_outcome (B,), effects (B, K) against control (its own column is 0), propensity
    (B, K).

    Raises:
        ValueError: if an array is malformed or has a NaN.
    """
    outcomes = column(outcome, "outcome")
    g = probabilities(propensity, "propensity", len(outcomes))
    tau = table(effects, "effects", g.shape)
    arms = arm_codes(treatment, "treatment", g.shape[1], len(outcomes))
    surprise = (arms[:, None] == np.arange(g.shape[1])) - g
    residual = outcomes - column(mean_outcome, "mean_outcome", len(outcomes)) - (surprise * tau).sum(axis=1)
    return float(np.mean(residual**2))


def doubly_robust_loss(effect_scores: ArrayLike, cate: ArrayLike) -> float:
    """Mean squared distance of the effects to the doubly robust pseudo-effects.

    Its noise does not depend on the model, so differences between models mean more than the value.

    Source: Kennedy 2023, Towards optimal doubly robust estimation of heterogeneous causal effects, arXiv:2004.14497.

    Shapes: effect_scores of `uplift_doubly_robust.effect_scores`, cate (B,).

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    scores = column(effect_scores, "effect_scores")
    return float(np.mean((scores - column(cate, "cate", len(scores))) ** 2))


def nearest_neighbour_pehe(
    features: ArrayLike, outcome: ArrayLike, cate: ArrayLike, treated: ArrayLike, control: ArrayLike | None = None
) -> Measured:
    """Root of the mean squared distance of the effects to the difference with the nearest row of the other arm.

    Features are scaled to unit variance; neighbours at one distance give their mean outcome. Infinite with a warning
    where an arm has no rows, so that such a comparison never chooses a model.

    Source: Johansson, Shalit and Sontag 2016, Learning Representations for Counterfactual Inference, arXiv:1605.03661.

    Shapes: features (B, D), outcome, cate, treated, control (B,); rows of neither arm are left out.

    Raises:
        ValueError: if an array is malformed or has a NaN.
    """
    rows = contrast(outcome, treated, control)
    matrix = table(features, "features", (len(rows.kept), None))[rows.kept]
    predicted = column(cate, "cate", len(rows.kept))[rows.kept]
    if rows.treated.all() or not rows.treated.any():
        arm = "control" if rows.treated.all() else "treated"
        return Measured(math.inf, (f"no row is {arm}, so no row has a neighbour in the other arm",))
    spread = matrix.std(axis=0)
    scaled = (matrix - matrix.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    effect = np.empty(len(predicted))
    for side, sign in ((rows.treated, 1.0), (~rows.treated, -1.0)):
        matched = _nearest_outcome(scaled[side], scaled[~side], rows.outcome[~side])
        effect[side] = sign * (rows.outcome[side] - matched)
    return Measured(math.sqrt(np.mean((effect - predicted) ** 2)))


def _nearest_outcome(points: Floats, others: Floats, outcome: Floats) -> Floats:
    """Mean outcome (P,) of the rows of others (Q, D) that lie nearest to each of points (P, D)."""
    found = np.empty(len(points))
    own, their = (points**2).sum(axis=1), (others**2).sum(axis=1)
    block = max(1, _DISTANCES_AT_ONCE // len(others))
    for start in range(0, len(points), block):
        part = slice(start, start + block)
        distance = own[part, None] + their - 2 * points[part] @ others.T
        nearest = distance.min(axis=1, keepdims=True)
        scale = 1.0 + own[part, None] + their.max()
        ties = distance <= nearest + _DISTANCE_TOLERANCE * scale
        found[part] = (ties @ outcome) / ties.sum(axis=1)
    return found

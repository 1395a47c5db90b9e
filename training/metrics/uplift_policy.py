"""What a rule that assigns treatments would have earned."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.uplift_columns import Measured, arm_codes, column, mask, probabilities, table
from training.metrics.uplift_doubly_robust import TRUNCATION, ArmPredictions, Estimate


def policy_risk(
    outcome: ArrayLike, treated: ArrayLike, cate: ArrayLike, randomised: ArrayLike | None = None
) -> Measured:
    """One minus the mean outcome of treating exactly where the predicted effect is positive, on randomised rows.

    1 - (E[y | pi = 1, t = 1] P(pi = 1) + E[y | pi = 0, t = 0] P(pi = 0)), pi = 1[cate > 0]

    A cell without rows contributes 0 with a warning.

    Source: Shalit, Johansson and Sontag 2017, arXiv:1606.03976.

    Shapes: outcome in [0, 1], treated, cate, randomised (B,); without randomised, all rows count.

    Raises:
        ValueError: if a column is malformed or has a NaN, an outcome lies outside [0, 1] or no row is randomised.
    """
    outcomes = column(outcome, "outcome")
    if ((outcomes < 0) | (outcomes > 1)).any():
        raise ValueError("outcome must lie in [0, 1] for the policy risk; use a policy value for amounts")
    arms = mask(treated, "treated", len(outcomes)).astype(np.int64)
    rule = (column(cate, "cate", len(outcomes)) > 0).astype(np.int64)
    used = np.ones_like(arms, dtype=np.bool_)
    if randomised is not None:
        used = mask(randomised, "randomised", len(outcomes))
    if not used.any():
        raise ValueError("no row is randomised, so the policy risk has nothing to be measured on")
    value = randomised_policy_value(outcomes[used], arms[used], rule[used], arms=2)
    return Measured(1.0 - value.value, value.warnings)


def randomised_policy_value(outcome: ArrayLike, treatment: ArrayLike, policy: ArrayLike, arms: int) -> Measured:
    """Mean outcome under a policy from rows treated at random: sum over arms of P(pi = k) E[y | pi = k, t = k].

    Each part of the rows is weighed by its own arm shares, so these may be unknown. A cell without rows contributes 0
    with a warning.

    Shapes: outcome, treatment, policy (B,), arm numbers 0..arms-1.

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    outcomes = column(outcome, "outcome")
    given = arm_codes(treatment, "treatment", arms, len(outcomes))
    wanted = arm_codes(policy, "policy", arms, len(outcomes))
    value, warnings = 0.0, []
    for arm in range(arms):
        assigned = wanted == arm
        cell = assigned & (given == arm)
        if cell.any():
            value += float(assigned.mean()) * float(outcomes[cell].mean())
        else:
            warnings.append(
                f"of the {int(assigned.sum())} rows that the policy gives arm {arm} none received it, so it adds 0"
            )
    return Measured(value, tuple(warnings))


def policy_value_ipw(
    outcome: ArrayLike,
    treatment: ArrayLike,
    policy: ArrayLike,
    propensity: ArrayLike,
    *,
    truncation: tuple[float, float] = TRUNCATION,
    level: float = 0.95,
) -> Estimate:
    """Mean outcome under a policy, rows that followed it weighted by 1 / propensity and the weights normalised.

    Normalised weights move with the outcome when a constant is added to it. 0 with a warning where no row followed.

    Source: Swaminathan and Joachims 2015, The Self-Normalized Estimator for Counterfactual Learning.

    Shapes: outcome, treatment, policy (B,), propensity (B, K).

    Raises:
        ValueError: if an array is malformed or has a NaN, or truncation or level are out of range.
    """
    given = probabilities(propensity, "propensity", len(column(outcome, "outcome")))
    rows = ArmPredictions.of(outcome, treatment, np.zeros_like(given), given, truncation)
    wanted = arm_codes(policy, "policy", given.shape[1], len(rows.outcome))
    weight = (rows.treatment == wanted) / rows.propensity[np.arange(len(wanted)), wanted]
    truncated = rows.truncated(wanted)
    if not weight.any():
        return Estimate(
            0.0, 0.0, 0.0, 0.0, truncated, ("no row received the arm of the policy, so its value counts 0",)
        )
    value = float(weight @ rows.outcome / weight.sum())
    # Linearised: the ratio's error is the mean of w (y - value) over the mean of w.
    spread = Estimate.of(weight * (rows.outcome - value) / weight.mean(), truncated, (), level)
    reach = NormalDist().inv_cdf((1 + level) / 2) * spread.standard_error
    return Estimate(value, spread.standard_error, value - reach, value + reach, truncated, spread.warnings)


def policy_value_doubly_robust(
    outcome: ArrayLike,
    treatment: ArrayLike,
    policy: ArrayLike,
    mu: ArrayLike,
    propensity: ArrayLike,
    *,
    truncation: tuple[float, float] = TRUNCATION,
    level: float = 0.95,
) -> Estimate:
    """Mean outcome under a policy by A-IPW scores of the arm that it gives each row.

    Source: Dudik, Langford and Li 2011, Doubly Robust Policy Evaluation and Learning, arXiv:1103.4601.

    Shapes: outcome, treatment, policy (B,), mu, propensity (B, K).

    Raises:
        ValueError: if an array is malformed or has a NaN, or truncation or level are out of range.
    """
    rows = ArmPredictions.of(outcome, treatment, mu, propensity, truncation)
    wanted = arm_codes(policy, "policy", rows.mu.shape[1], len(rows.outcome))
    empty = rows.empty(tuple(int(arm) for arm in np.unique(wanted)))
    return Estimate.of(rows.scores(wanted), rows.truncated(wanted), empty, level)


def known_policy_value(mu: ArrayLike, policy: ArrayLike) -> float:
    """Mean true outcome of the arm that the policy gives each row, where every mean is known.

    Shapes: mu (B, K) true means, policy (B,).

    Raises:
        ValueError: if an array is malformed or has a NaN.
    """
    means = table(mu, "mu", (None, None))
    wanted = arm_codes(policy, "policy", means.shape[1], len(means))
    return math.fsum(means[np.arange(len(wanted)), wanted]) / len(wanted)

"""Average effects that stay right when either the outcome model or the propensity model is right: A-IPW and TMLE.

Predictions must come from folds or rows that the models were not fitted on, or the standard errors are too small.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.columns import Floats, Integers
from training.metrics.uplift_columns import Booleans, arm_codes, column, probabilities, table

TRUNCATION: Final = (0.01, 0.99)
# The smallest weight is 1 / 0.99, so at this epsilon every fluctuated probability is 0 or 1 to the last bit.
_LARGEST_EPSILON: Final = 64.0
# Keeps the logit of a saturated prediction finite; 1e-6 is far below what any outcome rate resolves.
_MU_CLIP: Final = 1e-6
_HALVINGS: Final = 80


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its normal interval; truncated is the share of rows whose propensity met a bound."""

    value: float
    standard_error: float
    low: float
    high: float
    truncated: float
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Floats, truncated: float, warnings: tuple[str, ...], level: float) -> Self:
        """Mean of independent values (B,), with a standard error of 0 and a warning for a single row.

        Raises:
            ValueError: if level is outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie in (0, 1), got {level}")
        value, error = float(values.mean()), 0.0
        if len(values) > 1:
            error = float(values.std(ddof=1)) / math.sqrt(len(values))
        else:
            warnings = (*warnings, "one row has no spread, so its standard error counts 0")
        reach = NormalDist().inv_cdf((1 + level) / 2) * error
        return cls(value, error, value - reach, value + reach, truncated, warnings)


@dataclass(frozen=True, slots=True)
class ArmPredictions:
    """Rows with what was predicted for each arm; propensity is inside the truncation.

    Shapes: outcome (B,), treatment (B,) arm numbers, mu and propensity (B, K).
    """

    outcome: Floats
    treatment: Integers
    mu: Floats
    propensity: Floats
    untruncated: Floats

    @classmethod
    def of(
        cls,
        outcome: ArrayLike,
        treatment: ArrayLike,
        mu: ArrayLike,
        propensity: ArrayLike,
        truncation: tuple[float, float],
    ) -> Self:
        """Check and truncate; arms are not rescaled to sum to 1 afterwards.

        Raises:
            ValueError: if an array is malformed or has a NaN, or truncation is not 0 < low < high <= 1.
        """
        outcomes = column(outcome, "outcome")
        given = probabilities(propensity, "propensity", len(outcomes))
        means = table(mu, "mu", given.shape)
        arms = arm_codes(treatment, "treatment", given.shape[1], len(outcomes))
        low, high = truncation
        if not 0 < low < high <= 1:
            raise ValueError(f"truncation must satisfy 0 < low < high <= 1, got {truncation}")
        return cls(outcomes, arms, means, np.clip(given, low, high), given)

    def scores(self, arms: Integers) -> Floats:
        """A-IPW score of the mean outcome had each row received its arm in (B,) -> (B,).

        mu_a + 1[t = a] / g_a (y - mu_a)
        """
        rows = np.arange(len(arms))
        mu = self.mu[rows, arms]
        weight = (self.treatment == arms) / self.propensity[rows, arms]
        return np.asarray(mu + weight * (self.outcome - mu))

    def truncated(self, arms: Integers) -> float:
        """Share of rows whose propensity of an arm in (B,) or (B, A) met a bound."""
        wanted = arms.reshape(len(self.outcome), -1)
        moved = np.take_along_axis(self.propensity != self.untruncated, wanted, axis=1)
        return float(moved.any(axis=1).mean())

    def empty(self, arms: tuple[int, ...]) -> tuple[str, ...]:
        """A sentence for each of the arms that no row received."""
        return tuple(
            f"no row received arm {arm}, so its mean is the model's prediction and the standard error is too small"
            for arm in arms
            if not (self.treatment == arm).any()
        )

    def check_arms(self, arm: int, control: int) -> None:
        """Refuse arms that do not exist or do not differ.

        Raises:
            ValueError: if so.
        """
        count = self.mu.shape[1]
        if arm == control or not (0 <= arm < count and 0 <= control < count):
            raise ValueError(f"arm and control must be two different numbers from 0 to {count - 1}: {arm}, {control}")

    def pair(self, arm: int, control: int) -> Integers:
        """The two arms repeated for every row, (B, 2)."""
        return np.tile(np.array([arm, control], dtype=np.int64), (len(self.outcome), 1))


def effect_scores(
    outcome: ArrayLike,
    treatment: ArrayLike,
    mu: ArrayLike,
    propensity: ArrayLike,
    *,
    arm: int = 1,
    control: int = 0,
    truncation: tuple[float, float] = TRUNCATION,
) -> Floats:
    """Doubly robust pseudo-effect of each row, arm minus control: its mean over any rows estimates their effect.

    Shapes: outcome, treatment (B,), mu, propensity (B, K) -> (B,) in units of the outcome.

    Raises:
        ValueError: if an array is malformed or has a NaN, or the arms or the truncation are out of range.
    """
    rows = ArmPredictions.of(outcome, treatment, mu, propensity, truncation)
    rows.check_arms(arm, control)
    pair = rows.pair(arm, control)
    return rows.scores(pair[:, 0]) - rows.scores(pair[:, 1])


def aipw(
    outcome: ArrayLike,
    treatment: ArrayLike,
    mu: ArrayLike,
    propensity: ArrayLike,
    *,
    arm: int = 1,
    control: int = 0,
    truncation: tuple[float, float] = TRUNCATION,
    level: float = 0.95,
) -> Estimate:
    """Average effect of an arm against control by augmented inverse propensity weighting.

    Source: Robins, Rotnitzky and Zhao 1994, Estimation of Regression Coefficients When Some Regressors Are Not Always
    Observed. The propensity is truncated here and nowhere else.

    Shapes: outcome, treatment (B,), mu, propensity (B, K).

    Raises:
        ValueError: if an array is malformed or has a NaN, or the arms, truncation or level are out of range.
    """
    rows = ArmPredictions.of(outcome, treatment, mu, propensity, truncation)
    rows.check_arms(arm, control)
    pair = rows.pair(arm, control)
    scores = rows.scores(pair[:, 0]) - rows.scores(pair[:, 1])
    return Estimate.of(scores, rows.truncated(pair), rows.empty((arm, control)), level)


def tmle(
    outcome: ArrayLike,
    treatment: ArrayLike,
    mu: ArrayLike,
    propensity: ArrayLike,
    *,
    binary: bool,
    arm: int = 1,
    control: int = 0,
    truncation: tuple[float, float] = TRUNCATION,
    level: float = 0.95,
) -> Estimate:
    """Average effect of an arm against control by targeted maximum likelihood, one fluctuation an arm.

    Each arm's prediction moves along h_k = 1 / g_k until sum over its rows of h_k (y - mu_k) is 0: on the logit scale
    for binary outcomes, which keeps means inside [0, 1], on the outcome's own scale otherwise.

    Source: van der Laan and Rubin 2006, Targeted Maximum Likelihood Learning. Differs from it: K arms.

    Shapes: outcome, treatment (B,), mu, propensity (B, K).

    Raises:
        ValueError: if an array is malformed or has a NaN, an outcome or mu lies outside [0, 1] where binary, or the
            arms, truncation or level are out of range.
    """
    rows = ArmPredictions.of(outcome, treatment, mu, propensity, truncation)
    rows.check_arms(arm, control)
    if binary and not all(((part >= 0) & (part <= 1)).all() for part in (rows.outcome, rows.mu)):
        raise ValueError("outcome and mu must lie in [0, 1] for a binary outcome; give probabilities, not logits")
    warnings = list(rows.empty((arm, control)))
    scores = np.zeros(len(rows.outcome))
    for number, sign in ((arm, 1.0), (control, -1.0)):
        received, weight = rows.treatment == number, 1.0 / rows.propensity[:, number]
        mu_k, observed = rows.mu[:, number], rows.outcome[received]
        if received.any():
            mu_k = _fluctuated(mu_k, weight, received, rows.outcome, binary=binary)
            if binary and (observed == observed[0]).all():
                warnings.append(f"every outcome of arm {number} is {observed[0]:g}, so its fluctuation has no limit")
        scores += sign * (mu_k + received * weight * (rows.outcome - mu_k))
    return Estimate.of(scores, rows.truncated(rows.pair(arm, control)), tuple(warnings), level)


def _fluctuated(mu: Floats, weight: Floats, received: Booleans, outcome: Floats, *, binary: bool) -> Floats:
    """Predictions (B,) of one arm, moved so that its weighted residuals over the rows that received it sum to 0."""
    h, y = weight[received], outcome[received]
    if not binary:
        return np.asarray(mu + weight * float(h @ (y - mu[received])) / float(h @ h))
    clipped = np.clip(mu, _MU_CLIP, 1 - _MU_CLIP)
    offset = np.log(clipped) - np.log1p(-clipped)
    low, high = -_LARGEST_EPSILON, _LARGEST_EPSILON
    # The sum of residuals falls as epsilon grows, so halving cannot miss its only zero.
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if float(h @ (y - _sigmoid(offset[received] + middle * h))) > 0:
            low = middle
        else:
            high = middle
    return _sigmoid(offset + (low + high) / 2 * weight)


def _sigmoid(logits: Floats) -> Floats:
    # tanh cannot overflow, and weights of 100 times epsilon can be far outside what exp takes.
    return 0.5 + 0.5 * np.tanh(0.5 * logits)

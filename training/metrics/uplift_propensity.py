"""Quality of propensities, and calibration of the outcome predicted for the treatment that was received."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.probability import CLIP, ece
from training.metrics.ranking import auc
from training.metrics.uplift_columns import arm_codes, column, probabilities, table

BINS: Final = 15
OVERLAP: Final = (0.05, 0.95)


@dataclass(frozen=True, slots=True)
class PropensityQuality:
    """How well propensities describe who was treated.

    Attributes:
        auc: of each arm against all others, (K,); near 0.5 in an experiment, near 1 without overlap.
        logloss: mean of -log propensity of the arm received, in nats.
        ece: of each arm, 15 bins of equal mass, (K,).
        share_outside: rows with any arm's propensity outside [0.05, 0.95].
        warnings: arms without an AUC, which counts 0.5.
    """

    auc: tuple[float, ...]
    logloss: float
    ece: tuple[float, ...]
    share_outside: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FactualCalibration:
    """ECE of mu of the arm received: over all rows, and by arm with None where no row received it."""

    ece: float
    by_arm: tuple[float | None, ...]
    warnings: tuple[str, ...] = ()


def propensity_quality(treatment: ArrayLike, propensity: ArrayLike, bins: int = BINS) -> PropensityQuality:
    """AUC, log loss, ECE and overlap of propensities.

    Shapes: treatment (B,) arm numbers, propensity (B, K).

    Raises:
        ValueError: if an array is malformed or has a NaN, rows do not sum to 1 or bins is not positive.
    """
    rows = len(column(treatment, "treatment"))
    g = probabilities(propensity, "propensity", rows)
    arms = arm_codes(treatment, "treatment", g.shape[1])
    received = arms[:, None] == np.arange(g.shape[1])
    areas, warnings = [], []
    for arm in range(g.shape[1]):
        area = auc(received[:, arm], g[:, arm])
        if np.isnan(area):
            which = "every" if received[:, arm].all() else "no"
            warnings.append(f"{which} row received arm {arm}, so its AUC counts 0.5")
        areas.append(0.5 if np.isnan(area) else area)
    chosen = np.clip(g[np.arange(rows), arms], CLIP, 1.0 - CLIP)
    outside = (g < OVERLAP[0]) | (g > OVERLAP[1])
    return PropensityQuality(
        auc=tuple(areas),
        logloss=float(-np.mean(np.log(chosen))),
        ece=tuple(ece(received[:, arm], g[:, arm], bins=bins) for arm in range(g.shape[1])),
        share_outside=float(outside.any(axis=1).mean()),
        warnings=tuple(warnings),
    )


def factual_ece(outcome: ArrayLike, treatment: ArrayLike, mu: ArrayLike, bins: int = BINS) -> FactualCalibration:
    """ECE, bins of equal mass, of the probability predicted for the arm that each row received.

    Shapes: outcome in [0, 1] and treatment (B,), mu (B, K) probabilities.

    Raises:
        ValueError: if an array is malformed or has a NaN, a value lies outside [0, 1] or bins is not positive.
    """
    outcomes = column(outcome, "outcome")
    means = table(mu, "mu", (len(outcomes), None))
    arms = arm_codes(treatment, "treatment", means.shape[1], len(outcomes))
    factual = means[np.arange(len(arms)), arms]
    by_arm: list[float | None] = []
    warnings = []
    for arm in range(means.shape[1]):
        rows = arms == arm
        by_arm.append(ece(outcomes[rows], factual[rows], bins=bins) if rows.any() else None)
        if not rows.any():
            warnings.append(f"no row received arm {arm}, so its calibration is unknown")
    return FactualCalibration(ece(outcomes, factual, bins=bins), tuple(by_arm), tuple(warnings))

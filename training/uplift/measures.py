"""Metrics of one model's predictions on the rows of one split, as plain values for reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.metrics import Interval, auc, logloss
from training.metrics.uplift_bootstrap import RankingIntervals, paired_ranking_intervals, ranking_intervals
from training.metrics.uplift_calibration import uplift_calibration, uplift_calibration_of_scores
from training.metrics.uplift_doubly_robust import aipw, effect_scores, tmle
from training.metrics.uplift_effect import ate_error, att_error, sqrt_pehe
from training.metrics.uplift_policy import (
    known_policy_value,
    policy_risk,
    policy_value_doubly_robust,
    policy_value_ipw,
    randomised_policy_value,
)
from training.metrics.uplift_propensity import factual_ece, propensity_quality
from training.metrics.uplift_selection import doubly_robust_loss, nearest_neighbour_pehe, r_loss

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Report = dict[str, Any]
# The nearest neighbour of every row is sought among all others: quadratic in the rows.
_NEIGHBOUR_ROWS: Final = 4000


@dataclass(frozen=True, slots=True)
class Observed:
    """What happened to the rows of one split.

    Attributes:
        outcome: (N,) in its own unit.
        treatment: (N,) arm received.
        users: (N,) what the bootstrap resamples.
        features: (N, D) numbers, for neighbours; D may be 0.
        arms: K names.
        known: (K,) whether an arm had training rows; others are left out of every choice.
        binary: whether the outcome is 0 or 1.
        truth: what is known of outcomes that did not happen, by name.
        replicates: of the bootstrap; 0 gives no intervals.
    """

    outcome: Float64
    treatment: Int64
    users: NDArray[np.uint64]
    features: Float64
    arms: tuple[str, ...]
    known: NDArray[np.bool_]
    binary: bool
    truth: Mapping[str, NDArray[Any]]
    replicates: int

    def contrasted(self) -> list[int]:
        """Arms that can be compared with the control: both have rows here and had rows in training."""
        has_rows = np.bincount(self.treatment, minlength=len(self.arms)) > 0
        usable = has_rows & self.known
        return [arm for arm in range(1, len(self.arms)) if usable[arm] and usable[0]]

    def policy(self, mu: Float64) -> Int64:
        """The arm with the best predicted outcome, (N,); ties go to the earlier arm."""
        return np.asarray(np.where(self.known, mu, -np.inf).argmax(axis=1), dtype=np.int64)

    def true_effect(self, arm: int) -> Float64 | None:
        """The noiseless effect of an arm, (N,), where it is known."""
        mu = self.truth.get("mu")
        return None if mu is None else np.asarray(mu[:, arm] - mu[:, 0], dtype=np.float64)


def ranking_report(rows: Observed, effect: Float64, arm: int) -> tuple[Report, list[str]]:
    """Qini, AUUC and uplift at the top for one arm against the control, each with an interval."""
    found = ranking_intervals(
        rows.outcome,
        effect,
        rows.treatment == arm,
        rows.treatment == 0,
        units=rows.users,
        replicates=max(rows.replicates, 1),
    )
    return _intervals(found, rows.replicates), list(found.warnings)


def gain_report(rows: Observed, effect: Float64, other: Float64, arm: int) -> Report:
    """The same metrics, one model minus another on the same resampled users."""
    found = paired_ranking_intervals(
        rows.outcome,
        effect,
        other,
        rows.treatment == arm,
        rows.treatment == 0,
        units=rows.users,
        replicates=max(rows.replicates, 1),
    )
    return _intervals(found, rows.replicates)


def truth_report(rows: Observed, effect: Float64, arm: int) -> Report:
    """Errors against the true effects; empty where they are unknown. Never against noisy outcomes, but in the mean."""
    true_effect = rows.true_effect(arm)
    if true_effect is not None:
        return {
            "sqrt_pehe": sqrt_pehe(effect, true_effect),
            "ate_error": ate_error(effect, true_effect),
            "att_error": plain(att_error(effect, true_effect, rows.treatment == arm)),
        }
    potential = rows.truth.get("potential")
    if potential is None:
        return {}
    return {"ate_error": ate_error(effect, np.asarray(potential[:, arm] - potential[:, 0], dtype=np.float64))}


def effect_report(rows: Observed, mu: Float64, propensity: Float64 | None, arm: int) -> tuple[Report, list[str]]:
    """The average effect as predicted, as the difference in means, and doubly robust; calibration by decile."""
    effect = mu[:, arm] - mu[:, 0]
    own = rows.treatment == arm
    control = rows.treatment == 0
    calibration = uplift_calibration(effect, rows.outcome, own, control)
    found: Report = {
        "rows": int(own.sum()),
        "control_rows": int(control.sum()),
        "predicted": float(effect.mean()),
        "difference_in_means": difference_in_means(rows.outcome, own, control),
        "calibration": plain(calibration),
    }
    warnings = list(calibration.warnings)
    if propensity is not None:
        scores = effect_scores(rows.outcome, rows.treatment, mu, propensity, arm=arm)
        found["aipw"] = plain(aipw(rows.outcome, rows.treatment, mu, propensity, arm=arm))
        found["tmle"] = plain(tmle(rows.outcome, rows.treatment, mu, propensity, arm=arm, binary=rows.binary))
        found["calibration_doubly_robust"] = plain(uplift_calibration_of_scores(effect, scores))
        found["doubly_robust_loss"] = doubly_robust_loss(scores, effect)
    if rows.features.shape[1] and len(rows.features) <= _NEIGHBOUR_ROWS:
        neighbours = nearest_neighbour_pehe(rows.features, rows.outcome, effect, own, control)
        found["nearest_neighbour_pehe"] = plain(neighbours)
    return found, warnings


def difference_in_means(outcome: Float64, treated: NDArray[np.bool_], control: NDArray[np.bool_]) -> Report:
    """Mean outcome of the treated minus that of the controls, with a normal 95 % interval."""
    first, second = outcome[treated], outcome[control]
    value = float(first.mean() - second.mean())
    if min(len(first), len(second)) < 2:
        return {"value": value, "low": None, "high": None}
    error = math.sqrt(float(first.var(ddof=1)) / len(first) + float(second.var(ddof=1)) / len(second))
    return {"value": value, "low": value - 1.96 * error, "high": value + 1.96 * error}


def factual_report(rows: Observed, predicted: Float64, mu: Float64) -> tuple[Report, list[str]]:
    """How well the outcomes that happened are predicted.

    Shapes: predicted (N,), for the arm and dose received; mu (N, K).
    """
    if not rows.binary:
        error = rows.outcome - predicted
        spread = float(rows.outcome.var())
        return {
            "rmse": float(np.sqrt(np.mean(error**2))),
            "r2": 1 - float(np.mean(error**2)) / spread if spread > 0 else None,
        }, []
    calibration = factual_ece(rows.outcome, rows.treatment, mu)
    return {
        "logloss": plain(logloss(rows.outcome, predicted)),
        "auc": plain(auc(rows.outcome, predicted)),
        "ece": plain(calibration.ece),
        "ece_by_arm": plain(dict(zip(rows.arms, calibration.by_arm, strict=True))),
    }, list(calibration.warnings)


def propensity_report(rows: Observed, mu: Float64, propensity: Float64) -> tuple[Report, list[str]]:
    """Quality of the propensities, and the R-loss that uses them."""
    found = propensity_quality(rows.treatment, propensity)
    mean_outcome = (propensity * mu).sum(axis=1)
    return {
        "auc": plain(dict(zip(rows.arms, found.auc, strict=True))),
        "logloss": plain(found.logloss),
        "ece": plain(dict(zip(rows.arms, found.ece, strict=True))),
        "share_outside": plain(found.share_outside),
        "r_loss": plain(r_loss(rows.outcome, rows.treatment, mu - mu[:, :1], mean_outcome, propensity)),
    }, list(found.warnings)


def policy_report(rows: Observed, mu: Float64, propensity: Float64 | None) -> Report:
    """What giving everyone the arm with the best prediction would earn, beside giving everyone one arm."""
    policy = rows.policy(mu)
    arms = len(rows.arms)
    found: Report = {
        "shares": {arm: float((policy == number).mean()) for number, arm in enumerate(rows.arms)},
        "value_if_randomised": plain(randomised_policy_value(rows.outcome, rows.treatment, policy, arms)),
        "arm_means": {
            arm: float(rows.outcome[rows.treatment == number].mean()) if (rows.treatment == number).any() else None
            for number, arm in enumerate(rows.arms)
        },
    }
    if propensity is not None:
        found["value_ipw"] = plain(policy_value_ipw(rows.outcome, rows.treatment, policy, propensity))
        found["value_doubly_robust"] = plain(
            policy_value_doubly_robust(rows.outcome, rows.treatment, policy, mu, propensity)
        )
    if "mu" in rows.truth:
        found["true_value"] = known_policy_value(rows.truth["mu"], policy)
        found["best_true_value"] = float(np.asarray(rows.truth["mu"]).max(axis=1).mean())
    if arms == 2 and rows.binary and "randomised" in rows.truth:
        effect = mu[:, 1] - mu[:, 0]
        found["policy_risk"] = plain(policy_risk(rows.outcome, rows.treatment == 1, effect, rows.truth["randomised"]))
    return found


def _intervals(found: RankingIntervals, replicates: int) -> Report:
    return {name: interval_values(interval, replicates) for name, interval in found.metrics.items()}


def interval_values(interval: Interval, replicates: int) -> Report:
    """Value and bounds; no bounds where nothing was resampled."""
    bounded = replicates > 0 and interval.replicates > 0
    return {
        "value": plain(interval.value),
        "low": plain(interval.low) if bounded else None,
        "high": plain(interval.high) if bounded else None,
    }


def plain(value: Any) -> Any:
    """Dataclasses, tuples and NumPy numbers as JSON has them; None where a number is not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    return value

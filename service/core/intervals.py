"""Intervals of effects by the method that a request asks for, as far as the bundle can give one."""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from bundle import effects
from bundle.conformal import Conformal
from bundle.treatment import UpliftPart
from service.core.question import Asked, Method

Float = NDArray[np.float64]


class Intervals:
    """What a bundle has to make intervals of.

    Args:
        part: What the manifest says about treatments.
        conformal: Residuals, where the bundle has them.
    """

    def __init__(self, part: UpliftPart, conformal: Conformal | None) -> None:
        self._part = part
        self._conformal = _standing_in(conformal) if part.reference_dose is not None and conformal else conformal
        self._sampled: Method | None = None if part.samples is None else part.samples.method

    def of_effects(
        self, asked: Asked, outcomes: Float, propensity: Float, samples: Callable[[], Float]
    ) -> tuple[Float, Float]:
        """Lower and upper ends (U, A) of the effects asked for; NaN where no interval is available.

        Args:
            asked: The question, with an interval.
            outcomes: (U, K).
            propensity: (U, K), NaN where none is estimated.
            samples: Draws outcome samples (M, U, K); called where a method needs them.
        """
        interval = asked.question.interval
        lower = np.full((len(outcomes), len(asked.names)), np.nan)
        upper = lower.copy()
        if interval is None:
            return lower, upper
        methods = [self._method(name, interval.method) for name in asked.names]
        own = effects.effects(outcomes)[:, asked.columns - 1]
        drawn = samples() if self._sampled is not None and self._sampled in methods else None
        for method in {method for method in methods if method is not None}:
            if method == "conformal":
                low, high = self._by_conformal(interval.level, outcomes, propensity)
            elif drawn is not None:
                low, high = _by_samples(method, interval.level, drawn)
            else:
                continue
            places = [place for place, chosen in enumerate(methods) if chosen == method]
            lower[:, places] = low[:, asked.columns[places] - 1]
            upper[:, places] = high[:, asked.columns[places] - 1]
        if self._part.outcome.kind == "binary":
            lower, upper = np.maximum(lower, -1.0), np.minimum(upper, 1.0)
        # Samples and the plain run round apart; an interval without its own estimate would help nobody.
        known = ~(np.isnan(lower) | np.isnan(upper) | np.isnan(own))
        return np.where(known, np.minimum(lower, own), np.nan), np.where(known, np.maximum(upper, own), np.nan)

    def _method(self, treatment: str, wanted: Method | None) -> Method | None:
        """How an arm's interval is made; None where it cannot be."""
        part = self._part
        against = treatment if part.reference_dose is not None else part.control
        if part.arms[treatment].low_support or part.arms[against].low_support:
            # Too few rows for residuals, and dropout knows nothing of how few they were.
            return "ensemble" if self._sampled == "ensemble" else None
        available: list[Method] = []
        if self._conformal is not None:
            available.append("conformal")
        if self._sampled is not None:
            available.append(self._sampled)
        if wanted is not None:
            return wanted if wanted in available else None
        return available[0] if available else None

    def _by_conformal(self, level: float, outcomes: Float, propensity: Float) -> tuple[Float, Float]:
        if self._conformal is None:
            raise ValueError("the bundle has no residuals")
        shares = propensity
        if self._part.propensity == "none":
            shares = np.full(outcomes.shape, 1 / outcomes.shape[1])  # as at calibration: everybody counts the same
        shares = effects.clipped(shares, self._part.propensity_clip)
        return self._conformal.effect_interval(level, outcomes, shares)


def _standing_in(conformal: Conformal) -> Conformal:
    """Where the control is a dose of the treatment, nobody was in the control: the treated rows' residuals are its."""
    return Conformal((conformal.residuals[1], *conformal.residuals[1:]), (conformal.weights[1], *conformal.weights[1:]))


def _by_samples(method: Method, level: float, drawn: Float) -> tuple[Float, Float]:
    """Ends (U, K - 1) from outcome samples (M, U, K); an effect is taken inside each sample."""
    each = effects.effects(drawn)
    broken = np.isnan(each).any(axis=0)
    tail = (1 - level) / 2
    if method == "mc_dropout":
        low, high = np.quantile(np.where(broken, 0.0, each), [tail, 1 - tail], axis=0)
    else:
        # Five members have no 2.5 % quantile: a normal spread around their mean, widened for their number.
        half = student_quantile(1 - tail, len(each) - 1) * np.sqrt(1 + 1 / len(each)) * each.std(axis=0, ddof=1)
        low, high = each.mean(axis=0) - half, each.mean(axis=0) + half
    return np.where(broken, np.nan, low), np.where(broken, np.nan, high)


def student_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t by the Cornish-Fisher expansion; exact for one and two degrees of freedom.

    Source: Abramowitz and Stegun 26.7.5. Within 1 % of the true value up to p = .995 from three degrees on.
    """
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z, n = NormalDist().inv_cdf(p), float(freedom)
    terms = (
        z,
        (z**3 + z) / (4 * n),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3),
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4),
    )
    return math.fsum(terms)

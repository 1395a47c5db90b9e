"""Intervals of a trained network: residuals on rows kept from training, and samples of networks that can sample."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundle.conformal import Conformal, fit_conformal
from bundle.effects import clipped, effects, outcomes
from bundle.treatment import Samples
from models.uplift.ensemble import Ensemble
from training.datasets import Part
from training.metrics.uplift_intervals import interval_quality
from training.uplift.encoding import encode_uplift, outcomes_of
from training.uplift.measures import Observed, Report, plain
from training.uplift.predict import Predictions, Predictor
from training.uplift.trained import TrainedUplift

Float64 = NDArray[np.float64]
PROPENSITY_CLIP: Final = (0.01, 0.99)
MC_SAMPLES: Final = 50
LEVEL: Final = 0.9


@runtime_checkable
class DropsByNoise(Protocol):
    """A network that samples outcomes with dropout drawn from explicit noise."""

    noise_width: int

    def sample(self, *inputs: Tensor) -> Tensor:
        """Outcomes (M, U, K) from the five inputs and noise (M, U, W)."""
        ...


def samples_of(opened: TrainedUplift) -> Samples | None:
    """The samples that the network can give, or None."""
    network = opened.network
    if isinstance(network, Ensemble):
        return Samples(method="ensemble", count=len(network.members))
    if isinstance(network, DropsByNoise):
        return Samples(
            method="mc_dropout", count=MC_SAMPLES, noise_width=network.noise_width, seed=opened.config.train.seed
        )
    return None


def sampled_outcomes(opened: TrainedUplift, samples: Samples, inputs: tuple[Tensor, ...]) -> Float64:
    """Outcome samples in the outcome's own unit, (M, N, K)."""
    network = opened.network
    with torch.no_grad():
        if isinstance(network, Ensemble):
            found = network.sample(*inputs)
        elif isinstance(network, DropsByNoise):
            shape = (samples.count, len(inputs[0]), samples.noise_width)
            noise = np.random.default_rng(samples.seed).random(shape, dtype=np.float32)
            found = network.sample(*inputs, torch.from_numpy(noise))
        else:
            raise ValueError(f"{type(network).__name__} does not sample")
    return outcomes(found.double().numpy(), opened.scales.outcome)


def calibrated(opened: TrainedUplift) -> Conformal:
    """Absolute residuals on the validation rows that nothing in training looked at, weighted by 1 / propensity.

    The rows are half of the validation rows, arm by arm; early stopping saw the other half only.
    """
    part = opened.calibration_part()
    arms = len(opened.scales.arms)
    if not len(part):
        return Conformal(tuple(np.empty(0) for _ in range(arms)), tuple(np.empty(0) for _ in range(arms)))
    predictor = opened.predictor
    found = factual_predictions(opened, predictor, part)
    own = found.outcomes[np.arange(len(part)), part.treatment]
    residuals = np.abs(outcomes_of(part, opened.scales.outcome.name) - own)
    return fit_conformal(residuals, part.treatment, shares_of(found, arms))


def factual_predictions(opened: TrainedUplift, predictor: Predictor, part: Part) -> Predictions:
    """Predictions with every row's own dose in the arm it received."""
    rows = encode_uplift(opened.encoder, part, opened.scales)
    return predictor(rows.inputs, predictor.doses(part.treatment, rows.dose.numpy()))


def shares_of(found: Predictions, arms: int) -> Float64:
    """Clipped propensities, (N, K); where none is estimated everybody counts the same."""
    shares = np.full((len(found.outcomes), arms), 1 / arms) if found.propensity is None else found.propensity
    return clipped(shares, PROPENSITY_CLIP)


def conformal_report(rows: Observed, found: Predictions, own: Float64, conformal: Conformal) -> Report:
    """How often conformal intervals hold what they are for: the outcomes seen, and the true effects where known.

    Shapes: own (N,), the prediction for the arm and dose received.
    """
    arms = len(rows.arms)
    shares = shares_of(found, arms)
    half = conformal.width(LEVEL, shares)[np.arange(len(own)), rows.treatment]
    known = np.isfinite(half)
    report: Report = {"level": LEVEL, "without_interval": float((~known).mean())}
    if known.any():
        quality = interval_quality(rows.outcome[known], (own - half)[known], (own + half)[known])
        report["outcome"] = {"coverage": quality.coverage, "mean_width": quality.mean_width}
    low, high = conformal.effect_interval(LEVEL, found.outcomes, shares)
    for arm in rows.contrasted():
        truth = rows.true_effect(arm)
        usable = np.isfinite(low[:, arm - 1]) & np.isfinite(high[:, arm - 1])
        if truth is not None and usable.any():
            quality = interval_quality(truth[usable], low[usable, arm - 1], high[usable, arm - 1])
            report[f"effect of {rows.arms[arm]}"] = {"coverage": quality.coverage, "mean_width": quality.mean_width}
    return plain(report)  # type: ignore[no-any-return]


def samples_report(rows: Observed, drawn: Float64, method: str) -> Report:
    """Width of the middle share ``LEVEL`` of the effect samples, and how often it holds the true effect where known.

    Shapes: drawn (M, N, K).
    """
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(effects(drawn), [tail, 1 - tail], axis=0)
    report: Report = {"level": LEVEL, "method": method, "samples": len(drawn)}
    for arm in rows.contrasted():
        truth = rows.true_effect(arm)
        width = float((high - low)[:, arm - 1].mean())
        report[f"effect of {rows.arms[arm]}"] = {"mean_width": width}
        if truth is not None:
            quality = interval_quality(truth, low[:, arm - 1], high[:, arm - 1])
            report[f"effect of {rows.arms[arm]}"]["coverage"] = quality.coverage
    return plain(report)  # type: ignore[no-any-return]

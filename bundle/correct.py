"""Logits to probabilities in float64: undo sampling, shift priors, calibrate.

A network exports raw logits because float32 sigmoids saturate; everything after the graph happens here, once.
Sources: He et al. 2014 (ADKDD), Elkan 2001, Saerens et al. 2002, Platt 1999, Zadrozny & Elkan 2002,
Guo et al. 2017 (arXiv:1706.04599), Ktena et al. 2019 (arXiv:1907.06558).
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from bundle.errors import NonFiniteLogits

Float = NDArray[np.float64]
LOWEST: Final = float(np.finfo(np.float64).tiny)
HIGHEST: Final = float(np.nextafter(1.0, 0.0))
_FAKE_NEGATIVE_LIMIT: Final = -1e-6


def sigmoid(logit: ArrayLike) -> Float:
    """1 / (1 + exp(-z)), any shape, to full precision in both tails and without overflow."""
    z = np.asarray(logit, dtype=np.float64)
    # exp of a non-positive number cannot overflow; each half of the line uses the form that loses no digits there.
    with np.errstate(under="ignore"):
        small = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, small) / (1.0 + small))


def logit(p: ArrayLike) -> Float:
    """The inverse of `sigmoid`, log p - log(1 - p), any shape; 0 and 1 give -inf and inf.

    Raises:
        ValueError: outside [0, 1].
    """
    probability = _probabilities("p", p)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(probability) - np.log1p(-probability))


def undo_negative_downsampling(p: ArrayLike, rate: ArrayLike) -> Float:
    """Click probability when a share `rate` of the negatives was kept: p / (p + (1 - p) / rate).

    Args:
        p: (...) probabilities learned on the sampled data.
        rate: keep rate of the negatives, above 0; 1 returns p itself.

    Raises:
        ValueError: for p outside [0, 1] or a rate that is not positive.
    """
    probability, kept = _probabilities("p", p), _rates(rate)
    odds = probability * kept  # the formula times rate: no division by a tiny rate
    return np.where(kept == 1.0, probability, odds / (odds + (1.0 - probability)))


def undo_negative_downsampling_logit(logit: ArrayLike, rate: ArrayLike) -> Float:
    """The same in logits, z + log(rate): nothing saturates. The sign is opposite to the one in training.

    Raises:
        ValueError: for a rate that is not positive.
    """
    return np.asarray(np.asarray(logit, dtype=np.float64) + np.log(_rates(rate)))


def undo_fake_negative_logit(logit: ArrayLike) -> Float:
    """Logit of p when every impression was first logged as a negative (odds = p): v - log(1 - exp v).

    A biased probability of one half or more belongs to no p below 1, so v is held at -1e-6.
    """
    v = np.minimum(np.asarray(logit, dtype=np.float64), _FAKE_NEGATIVE_LIMIT)
    with np.errstate(under="ignore"):
        return np.asarray(v - np.log(-np.expm1(v)))


def prior_shift_logit(logit: ArrayLike, train_prior: ArrayLike, serve_prior: ArrayLike) -> Float:
    """Move to another base rate, z + logit(serve_prior) - logit(train_prior); each class keeps its distribution.

    Raises:
        ValueError: if a prior is not inside (0, 1).
    """
    return np.asarray(
        np.asarray(logit, dtype=np.float64)
        + _prior_logit("serve_prior", serve_prior)
        - _prior_logit("train_prior", train_prior)
    )


def platt_scale(logit: ArrayLike, a: float, b: float) -> Float:
    """sigmoid(a z + b).

    Raises:
        ValueError: if a is not positive, which would reverse the order of scores.
    """
    if not a > 0:
        raise ValueError(f"a must be positive, got {a}")
    with np.errstate(over="ignore"):  # an infinity is the right answer, its sigmoid is 0 or 1
        return sigmoid(a * np.asarray(logit, dtype=np.float64) + b)


def temperature_scale(logit: ArrayLike, temperature: float) -> Float:
    """sigmoid(z / temperature).

    Raises:
        ValueError: if the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    with np.errstate(over="ignore"):
        return sigmoid(np.asarray(logit, dtype=np.float64) / temperature)


def isotonic_fit(p: ArrayLike, y: ArrayLike) -> Float:
    """Pool adjacent violators: the non-decreasing fit of y to p with least squares, equal weights.

    Args:
        p: (N,) scores in any order; equal scores are pooled first and get one value.
        y: (N,) labels.

    Returns:
        (N,) fitted values, in the order of `p`.

    Raises:
        ValueError: if the shapes differ, there is no point, or a value is not finite.
    """
    scores, labels = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if scores.shape != labels.shape or scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"p and y must be equally long columns, got {scores.shape} and {labels.shape}")
    if not (np.isfinite(scores).all() and np.isfinite(labels).all()):
        raise ValueError("p and y must be finite")
    _, point, counts = np.unique(scores, return_inverse=True, return_counts=True)
    sums: list[float] = []
    weights: list[float] = []
    blocks: list[int] = []  # distinct scores in each block
    for total, weight in zip(np.bincount(point, weights=labels).tolist(), counts.tolist(), strict=True):
        size = 1
        while sums and sums[-1] * weight >= total * weights[-1]:
            total, weight, size = total + sums.pop(), weight + weights.pop(), size + blocks.pop()
        sums.append(total)
        weights.append(weight)
        blocks.append(size)
    fitted = np.repeat(np.array(sums) / np.array(weights), blocks)
    return np.asarray(fitted[point], dtype=np.float64)


def isotonic_apply(p: ArrayLike, x_knots: ArrayLike, y_knots: ArrayLike) -> Float:
    """Linear interpolation between knots, constant outside them. Plateaus tie scores: rank by the logit instead.

    Raises:
        ValueError: if the knots are not equally long columns with increasing x.
    """
    x, y = np.asarray(x_knots, dtype=np.float64), np.asarray(y_knots, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or len(x) == 0 or np.any(np.diff(x) <= 0):
        raise ValueError("x_knots and y_knots must be equally long and x_knots must increase")
    return np.asarray(np.interp(np.asarray(p, dtype=np.float64), x, y))


def _probabilities(name: str, values: ArrayLike) -> Float:
    array = np.asarray(values, dtype=np.float64)
    if np.any((array < 0) | (array > 1)):
        raise ValueError(f"{name} must lie in [0, 1]")
    return array


def _rates(rate: ArrayLike) -> Float:
    array = np.asarray(rate, dtype=np.float64)
    if not np.all((array > 0) & np.isfinite(array)):
        raise ValueError("rate must be positive and finite")
    return array


def _prior_logit(name: str, prior: ArrayLike) -> Float:
    array = np.asarray(prior, dtype=np.float64)
    if not np.all((array > 0) & (array < 1)):
        raise ValueError(f"{name} must lie inside (0, 1)")
    return logit(array)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Identity(_Settings):
    """No calibration: sigmoid(z)."""

    kind: Literal["identity"] = "identity"

    def apply(self, logit: ArrayLike) -> Float:
        """Probabilities of logits, any shape."""
        return sigmoid(logit)


class Platt(_Settings):
    """sigmoid(a z + b)."""

    kind: Literal["platt"] = "platt"
    a: float = Field(gt=0)
    b: float

    def apply(self, logit: ArrayLike) -> Float:
        """Probabilities of logits, any shape."""
        return platt_scale(logit, self.a, self.b)


class Temperature(_Settings):
    """sigmoid(z / temperature)."""

    kind: Literal["temperature"] = "temperature"
    temperature: float = Field(gt=0)

    def apply(self, logit: ArrayLike) -> Float:
        """Probabilities of logits, any shape."""
        return temperature_scale(logit, self.temperature)


class Isotonic(_Settings):
    """A monotone curve from sigmoid(z) to probability."""

    kind: Literal["isotonic"] = "isotonic"
    x_knots: tuple[float, ...] = Field(min_length=1)
    y_knots: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _monotone(self) -> Self:
        x, y = np.array(self.x_knots), np.array(self.y_knots)
        if len(x) != len(y) or np.any(np.diff(x) <= 0):
            raise ValueError("x_knots must increase and be as many as y_knots")
        if np.any(np.diff(y) < 0) or y[0] < 0 or y[-1] > 1:
            raise ValueError("y_knots must not decrease and lie in [0, 1]")
        return self

    def apply(self, logit: ArrayLike) -> Float:
        """Probabilities of logits, any shape."""
        return isotonic_apply(sigmoid(logit), self.x_knots, self.y_knots)


Calibrator = Annotated[Identity | Platt | Temperature | Isotonic, Field(discriminator="kind")]


class TaskCorrection(_Settings):
    """What stands between one task's logit and its probability.

    `rate` is the share of negatives that training kept; `calibrator_without_history` replaces the calibrator where
    the history was lost.
    """

    rate: float = Field(default=1.0, gt=0)
    train_prior: float | None = Field(default=None, gt=0, lt=1)
    serve_prior: float | None = Field(default=None, gt=0, lt=1)
    calibrator: Calibrator = Identity()
    calibrator_without_history: Calibrator | None = None

    @model_validator(mode="after")
    def _both_priors(self) -> Self:
        if (self.train_prior is None) != (self.serve_prior is None):
            raise ValueError("train_prior and serve_prior come together")
        return self


_PLAIN: Final = TaskCorrection()


class Correction(_Settings):
    """How a bundle's logits become probabilities. Sampling is undone exactly once.

    Mode `training`: the loss saw corrected logits, so nothing is undone here. `serving`: undone here. `none`: the
    data was not sampled, so every rate must be 1.
    """

    mode: Literal["training", "serving", "none"] = "none"
    tasks: dict[str, TaskCorrection] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _rates_belong_to_a_mode(self) -> Self:
        for task, correction in self.tasks.items():
            if self.mode == "none" and correction.rate != 1.0:
                raise ValueError(f"task {task!r} has rate {correction.rate} but the mode is 'none'")
        return self

    def probabilities(
        self, logits: NDArray[np.floating], tasks: Sequence[str], without_history: bool = False
    ) -> dict[str, Float]:
        """Corrected, calibrated probabilities by task.

        Order: undo sampling, shift the prior, calibrate. Each task is corrected by itself; a product of tasks must
        be taken of these results, because a correction of the product would shift both factors.

        Args:
            logits: (..., K) raw logits of the graph.
            tasks: the K tasks in the order of the last axis.
            without_history: use the calibrators fitted for a lost history.

        Returns:
            task -> (...) float64, finite and strictly inside (0, 1). Infinite logits give the nearest such number.

        Raises:
            NonFiniteLogits: for NaN.
            ValueError: if the last axis does not hold one logit a task.
        """
        if logits.shape[-1:] != (len(tasks),):
            raise ValueError(f"logits of shape {logits.shape} do not hold {len(tasks)} tasks")
        out = {}
        for column, task in enumerate(tasks):
            z = np.asarray(logits[..., column], dtype=np.float64)
            if np.count_nonzero(np.isnan(z)):  # on a slate a fraction of what any() costs
                raise NonFiniteLogits(f"the network returned NaN for task {task!r}")
            settings = self.tasks.get(task, _PLAIN)
            if self.mode == "serving":
                z = undo_negative_downsampling_logit(z, settings.rate)
            if settings.train_prior is not None and settings.serve_prior is not None:
                z = prior_shift_logit(z, settings.train_prior, settings.serve_prior)
            lost = settings.calibrator_without_history
            calibrator = lost if without_history and lost is not None else settings.calibrator
            out[task] = np.minimum(np.maximum(calibrator.apply(z), LOWEST), HIGHEST)
        return out

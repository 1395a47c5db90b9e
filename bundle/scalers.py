"""Fitted number encoders, one column at a time for fitting and a whole side at once for encoding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, get_args

import numpy as np
from numpy.typing import NDArray

from bundle.errors import FeatureError, FeatureProblem
from bundle.schema import NumberScale

QUANTILES: Final = 1001
# A value thousands of deviations out carries no information and could reach the network as an infinity in float32.
SCALED_LIMIT: Final = 1e4
RAW_LIMIT: Final = 1e9


@dataclass(frozen=True, slots=True)
class Scaler:
    """A fitted number encoder.

    Attributes:
        kind: standardise | quantile | log | none.
        mean: of the training values (of their signed logarithms with `log`).
        std: their deviation, 1 where it is 0 so that a constant column becomes zeros.
        knots: (Q, 2) distinct training quantiles and their mean rank in [0, 1]; empty unless `quantile`.
    """

    kind: NumberScale
    mean: float
    std: float
    knots: NDArray[np.float64]

    @classmethod
    def fit(cls, kind: NumberScale, values: NDArray[np.float64], name: str) -> Self:
        """Statistics of a training column (any shape); NaN is left out.

        Raises:
            FeatureError: if the values are too large for their mean or deviation to be finite.
        """
        known = values[~np.isnan(values)]
        if kind == "log":
            known = signed_log(known)
        if len(known) == 0:
            return cls(kind, 0.0, 1.0, _knots(np.zeros(1)) if kind == "quantile" else np.empty((0, 2)))
        with np.errstate(over="ignore", invalid="ignore"):
            mean, std = float(known.mean()), float(known.std())
        if not (np.isfinite(mean) and np.isfinite(std)):
            raise FeatureError([FeatureProblem(f"/{name}", "not_finite", "values are too large to be averaged")])
        # A deviation that is rounding noise beside the mean would blow the same noise up into a feature.
        if std <= 1e-12 * max(1.0, abs(mean)):
            std = 1.0
        return cls(kind, mean, std, _knots(known) if kind == "quantile" else np.empty((0, 2)))

    def encode(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Scaled values, any shape; NaN becomes what the training mean becomes (the median with `quantile`)."""
        return ScalerBank([self]).encode(values[..., None])[..., 0]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; floats keep every bit."""
        out: dict[str, Any] = {"kind": self.kind, "mean": self.mean, "std": self.std}
        return out | ({"knots": self.knots.tolist()} if self.kind == "quantile" else {})

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: if the numbers could not have been fitted.
        """
        knots = np.array(data.get("knots", []), dtype=np.float64).reshape(-1, 2)
        scaler = cls(data["kind"], float(data["mean"]), float(data["std"]), knots)
        if scaler.kind not in get_args(NumberScale) or not np.isfinite(scaler.mean) or not 0 < scaler.std < np.inf:
            raise ValueError("a scaler has an unknown kind or no finite mean and positive deviation")
        ranks = len(knots) > 0 and bool(np.isfinite(knots).all()) and bool(np.all(np.diff(knots[:, 0]) > 0))
        if ranks != (scaler.kind == "quantile"):
            raise ValueError("a scaler's quantiles do not increase")
        return scaler


class ScalerBank:
    """The scalers of N columns, applied together: a request has one value a column, so calls are what costs."""

    def __init__(self, scalers: Sequence[Scaler]) -> None:
        raw = np.array([scaler.kind == "none" for scaler in scalers], dtype=np.bool_)
        mean = np.array([scaler.mean for scaler in scalers], dtype=np.float64)
        self._shift = np.where(raw, 0.0, mean)
        self._scale = np.array([1.0 if scaler.kind == "none" else scaler.std for scaler in scalers], dtype=np.float64)
        self._limit = np.where(raw, RAW_LIMIT, SCALED_LIMIT)
        self._lowest = -self._limit
        self._missing = np.where(raw, np.clip(mean, -RAW_LIMIT, RAW_LIMIT), 0.0)
        self._logs = [place for place, scaler in enumerate(scalers) if scaler.kind == "log"]
        self._ranks = [(place, scaler.knots) for place, scaler in enumerate(scalers) if scaler.kind == "quantile"]

    def encode(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """Raw columns (..., N) with NaN for missing to scaled (..., N) float32 without NaN."""
        work = values
        if self._logs:
            work = values.copy()
            work[..., self._logs] = signed_log(values[..., self._logs])
        with np.errstate(over="ignore"):  # the difference of two huge numbers may overflow; the limit catches it
            scaled = np.asarray(work - self._shift)
            np.divide(scaled, self._scale, out=scaled)
        np.minimum(np.maximum(scaled, self._lowest, out=scaled), self._limit, out=scaled)
        for place, knots in self._ranks:
            scaled[..., place] = np.interp(values[..., place], knots[:, 0], knots[:, 1]) - 0.5
        absent = np.isnan(values)
        if np.count_nonzero(absent):
            np.copyto(scaled, self._missing, where=absent)
        return scaled.astype(np.float32, order="C")


def signed_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """sign(x) log(1 + |x|): tames heavy tails and keeps the sign."""
    return np.asarray(np.copysign(np.log1p(np.abs(values)), values), dtype=np.float64)


def _knots(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks = np.linspace(0.0, 1.0, QUANTILES)
    quantiles = np.quantile(values, ranks)
    distinct, index = np.unique(quantiles, return_inverse=True)
    # A value that fills many quantiles gets the middle of their ranks, else its rank would depend on the search.
    return np.column_stack([distinct, np.bincount(index, weights=ranks) / np.bincount(index)])

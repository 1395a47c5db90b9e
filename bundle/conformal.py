"""Conformal intervals: how far outcomes lay from the predictions on rows that training held out.

Weighted split conformal (Tibshirani, Barber, Candes, Ramdas 2019, arXiv:1904.06019; for potential outcomes Lei and
Candes 2021, arXiv:2006.06138): a row seen in arm k counts 1 / P(k | x), so that the rows of one arm stand for
everybody. The intervals hold an outcome, not its mean, with at least their level. Where the level asks for more rows
than there are, there is no interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.arrays import read_npz, write_npz

Float = NDArray[np.float64]
CONFORMAL_FILE: Final = "conformal.npz"
# A level times a sum of equal weights may land a rounding error above the whole number that it is.
_SLACK: Final = 1e-12


@dataclass(frozen=True)
class Conformal:
    """Held out residuals by arm.

    Attributes:
        residuals: one array an arm, ascending, on the outcome's own scale.
        weights: how often each of them counts, 1 / propensity.
    """

    residuals: tuple[Float, ...]
    weights: tuple[Float, ...]

    def __post_init__(self) -> None:
        if len(self.residuals) != len(self.weights):
            raise ValueError(f"{len(self.residuals)} arms of residuals, but {len(self.weights)} of weights")
        for arm, (far, often) in enumerate(zip(self.residuals, self.weights, strict=True)):
            if far.shape != often.shape or far.ndim != 1 or far.dtype != np.float64 or often.dtype != np.float64:
                raise ValueError(f"arm {arm}: residuals and weights must be two equally long float64 columns")
            if not (np.isfinite(far).all() and np.isfinite(often).all() and (far >= 0).all() and (often > 0).all()):
                raise ValueError(f"arm {arm}: residuals must be finite and not negative, weights positive")
            if (far[1:] < far[:-1]).any():
                raise ValueError(f"arm {arm}: residuals must ascend")

    @cached_property
    def _reached(self) -> tuple[Float, ...]:
        return tuple(np.cumsum(weights) for weights in self.weights)

    def width(self, level: float, propensity: Float) -> Float:
        """Half width of every arm's interval, (U, K); NaN where the rows do not reach the level.

        Args:
            level: share of outcomes that the interval should hold, inside (0, 1).
            propensity: (U, K), clipped as the calibration's was.

        Raises:
            ValueError: for a level outside (0, 1) or another number of arms.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be inside (0, 1), got {level}")
        if propensity.ndim != 2 or propensity.shape[1] != len(self.residuals):
            raise ValueError(f"propensity of shape {propensity.shape} does not hold {len(self.residuals)} arms")
        out = np.full(propensity.shape, np.nan)
        for arm, (residuals, reached) in enumerate(zip(self.residuals, self._reached, strict=True)):
            if len(residuals) == 0:
                continue
            # The user's own weight stands at infinity: the residual that nobody has seen yet.
            own = 1.0 / propensity[:, arm]
            wanted = level * (reached[-1] + own)
            place = np.searchsorted(reached, wanted * (1 - _SLACK))
            known = (place < len(residuals)) & np.isfinite(own)
            out[:, arm] = np.where(known, residuals[np.minimum(place, len(residuals) - 1)], np.nan)
        return out

    def interval(self, level: float, outcomes: Float, propensity: Float) -> tuple[Float, Float]:
        """Intervals of the outcomes (U, K): lower and upper ends (U, K), NaN where there is none.

        Raises:
            ValueError: see ``width``; also where outcomes have another shape.
        """
        _same_shape(outcomes, propensity)
        half = self.width(level, propensity)
        return outcomes - half, outcomes + half

    def effect_interval(self, level: float, outcomes: Float, propensity: Float) -> tuple[Float, Float]:
        """Intervals of the effects (U, K - 1) against the control; conservative.

        Half of what may go wrong is given to each of the two outcomes (Bonferroni).

        Raises:
            ValueError: see ``interval``.
        """
        lower, upper = self.interval(1 - (1 - level) / 2, outcomes, propensity)
        return lower[:, 1:] - upper[:, :1], upper[:, 1:] - lower[:, :1]

    def save(self, path: Path) -> None:
        """Write ``conformal.npz``."""
        arrays = {f"residuals_{arm}": values for arm, values in enumerate(self.residuals)}
        write_npz(path, arrays | {f"weights_{arm}": values for arm, values in enumerate(self.weights)})

    @classmethod
    def load(cls, path: Path, arms: int) -> Self:
        """Read what ``save`` wrote.

        Raises:
            ValueError: if the file is damaged or is for another number of arms.
            OSError: if it cannot be read.
        """
        arrays = read_npz(path)
        names: Sequence[str] = [f"{kind}_{arm}" for kind in ("residuals", "weights") for arm in range(arms)]
        if set(arrays) != set(names):
            raise ValueError(f"{path.name}: does not hold the residuals of {arms} arms")
        found = [arrays[name] for name in names]
        return cls(tuple(found[:arms]), tuple(found[arms:]))


def fit_conformal(residuals: ArrayLike, treatment: ArrayLike, propensity: Float) -> Conformal:
    """Residuals of rows that training did not see, sorted by arm.

    Args:
        residuals: (N,) absolute difference of outcome and prediction for the arm received, on the outcome's own scale.
        treatment: (N,) the arm received, 0 to K - 1.
        propensity: (N, K) clipped away from 0.

    Raises:
        ValueError: if lengths differ, an arm does not exist, a residual is negative or not finite, or a propensity is
            not positive.
    """
    far, arm = np.asarray(residuals, dtype=np.float64), np.asarray(treatment)
    if far.ndim != 1 or arm.shape != far.shape or propensity.ndim != 2 or len(propensity) != len(far):
        raise ValueError(f"residuals {far.shape}, treatment {arm.shape}, propensity {propensity.shape} do not fit")
    if arm.dtype.kind not in "iu" or (len(arm) and (arm.min() < 0 or arm.max() >= propensity.shape[1])):
        raise ValueError(f"treatment must be whole numbers from 0 to {propensity.shape[1] - 1}")
    received = propensity[np.arange(len(far)), arm]
    if not (received > 0).all():
        raise ValueError("propensity of the arm received must be positive")
    sorted_residuals, sorted_weights = [], []
    for k in range(propensity.shape[1]):
        rows = np.flatnonzero(arm == k)
        rows = rows[np.argsort(far[rows], kind="stable")]
        sorted_residuals.append(far[rows])
        sorted_weights.append(1.0 / received[rows].astype(np.float64))
    return Conformal(tuple(sorted_residuals), tuple(sorted_weights))


def _same_shape(outcomes: Float, propensity: Float) -> None:
    if outcomes.shape != propensity.shape:
        raise ValueError(f"outcomes {outcomes.shape} and propensity {propensity.shape} must have one shape (U, K)")

"""What the metrics count of the answers to one /uplift request."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bundle.effects import OVERLAP

Float = NDArray[np.float64]


class Tally(NamedTuple):
    """Numbers of users, and mean effects.

    Attributes:
        users: U.
        unknown: Effects that are no number.
        effects: By treatment, the mean of those that are; None where none is.
        overlap: By flag of ``bundle.effects.OVERLAP``, pairs of user and treatment.
        arms: Users who were recommended nothing, the control, and each treatment.
    """

    users: int
    unknown: int
    effects: Sequence[float | None]
    overlap: Sequence[int]
    arms: Sequence[int]

    @classmethod
    def of(cls, effects: Float, overlap: NDArray[np.int8], arm: NDArray[np.int64]) -> Self:
        """Count answers: effects (U, A), overlap (U, A), and the recommended arm (U,), -1 for nothing."""
        unknown = np.isnan(effects)
        users, treatments = effects.shape
        counts = (users - np.count_nonzero(unknown, axis=0)).tolist()
        sums = np.where(unknown, 0.0, effects).sum(axis=0).tolist()
        return cls(
            users=users,
            unknown=int(unknown.sum()),
            effects=[total / count if count else None for total, count in zip(sums, counts, strict=True)],
            overlap=np.bincount(overlap.ravel(), minlength=len(OVERLAP)).tolist(),
            arms=np.bincount(arm + 1, minlength=2 + treatments).tolist(),
        )

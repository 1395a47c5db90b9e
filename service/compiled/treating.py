"""What a graph returns about users and treatments, worked out by compiled code in one pass over the users.

For questions without doses, intervals and budgets. ``service.core.treating`` defines the answer, and works it out
itself for all others, and where anything is no number. Letters: U users, K treatments of the graph, A of them asked.
"""

import ctypes
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundle.effects import OVERLAP, VIOLATED_BELOW, WEAK_BELOW
from bundle.treatment import OutcomeScale
from service.compiled.library import ADDRESS, compiled_function

Float = NDArray[np.float64]
# Numbers, or bytes, of no meaning behind what compiled code writes or reads; see texts.h.
BEHIND: Final = 32


class _Treating(ctypes.Structure):
    """``Treating`` of treating.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("users", "arms", "asked")),
        *((name, ctypes.c_void_p) for name in ("columns", "outcomes", "propensity", "lost")),
        *((name, ctypes.c_double) for name in ("mean", "sd", "weak", "violated")),
        ("extrapolates", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("numbers", "overlap", "recommended")),
        *((name, ctypes.c_void_p) for name in ("effect_sums", "overlap_counts", "arm_counts")),
    )


class Asking(NamedTuple):
    """What is asked of all users.

    Attributes:
        columns: (1 + A) int64 of the graph, the control's first.
        extrapolates: Treatments may be recommended whatever their propensity.
        lost: (U,) bool, who must not get any treatment; None for nobody.
    """

    columns: NDArray[np.int64]
    extrapolates: bool
    lost: NDArray[np.bool_] | None


class PlainAnswers(NamedTuple):
    """The answers for U users; see ``service.core.treating.Treated``.

    Attributes:
        numbers: All of the following for each user, side by side, and ``BEHIND`` zeros.
        outcomes, effects: (U, 1 + A), (U, A).
        propensity: (U, 1 + A); None where the bundle estimates none.
        overlap: (U, A) int8.
        arm, gain: (U,) of the recommendation.
        effect_sums: Of each treatment, (A,).
        overlap_counts: Of each flag.
        arm_counts: Of nothing, the control and each treatment.
    """

    numbers: Float
    outcomes: Float
    effects: Float
    propensity: Float | None
    overlap: NDArray[np.int8]
    arm: NDArray[np.int64]
    gain: Float
    effect_sums: list[float]
    overlap_counts: list[int]
    arm_counts: list[int]


class PlainTreater:
    """Works out answers for one bundle. Holds no state of its own; safe to share between threads.

    Args:
        outcome: Its scale.
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
    """

    def __init__(self, outcome: OutcomeScale, path: Path | None = None) -> None:
        self._treat = compiled_function("ctrlift_treat", (ADDRESS,), path)
        binary = outcome.kind == "binary"
        self._scale = (0.0, 0.0) if binary else (outcome.mean, outcome.sd)

    def answers(
        self, outcomes: NDArray[np.float32], logits: NDArray[np.float32] | None, asking: Asking
    ) -> PlainAnswers | None:
        """The answers; None where something is no number.

        Args:
            outcomes: (U, K) on the scale of the loss.
            logits: (U, K) of the propensities; None where the bundle estimates none.
            asking: The question.
        """
        users, arms = outcomes.shape
        asked = len(asking.columns) - 1
        width = 2 + 2 * asked + (0 if logits is None else 1 + asked)
        flat = np.empty(users * width + BEHIND)
        flat[-BEHIND:] = 0
        numbers = flat[:-BEHIND].reshape(users, width)
        overlap = np.empty((users, asked), dtype=np.int8)
        arm = np.empty(users, dtype=np.int64)
        sums, counts = np.zeros(asked), np.zeros(len(OVERLAP) + 2 + asked, dtype=np.int64)
        given: tuple[NDArray[Any] | None, ...] = (asking.columns, outcomes, logits, asking.lost)
        held = [None if array is None else np.ascontiguousarray(array) for array in given]
        counted = counts.ctypes.data
        question = _Treating(
            *(users, arms, asked),
            *(None if array is None else array.ctypes.data for array in held),
            *self._scale,
            *(WEAK_BELOW, VIOLATED_BELOW, asking.extrapolates),
            *(array.ctypes.data for array in (flat, overlap, arm, sums)),
            *(counted, counted + len(OVERLAP) * counts.itemsize),
        )
        if self._treat(ctypes.byref(question)) != 0:
            return None
        listed = counts.tolist()
        return PlainAnswers(
            numbers=flat,
            outcomes=numbers[:, : 1 + asked],
            effects=numbers[:, 1 + asked : 1 + 2 * asked],
            propensity=None if logits is None else numbers[:, 1 + 2 * asked : -1],
            overlap=overlap,
            arm=arm,
            gain=numbers[:, -1],
            effect_sums=sums.tolist(),
            overlap_counts=listed[: len(OVERLAP)],
            arm_counts=listed[len(OVERLAP) :],
        )

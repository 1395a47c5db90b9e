"""What /uplift is worked out from and what comes of it, as columns. Letters: see ``service.core.treating``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.population import UpliftQuery
from bundle.user_columns import StoredLike, UserColumns
from service.compiled.treating import PlainAnswers
from service.core.question import Asked
from service.core.recommending import Recommended
from service.core.tally import Tally
from service.core.version import Stage

Float = NDArray[np.float64]
Flags = NDArray[np.bool_]
Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Curve:
    """Outcomes of one treatment along doses in its own unit: doses (G,), outcomes (U, G), supported (U, G)."""

    doses: Float
    outcomes: Float
    supported: Flags


@dataclass(frozen=True, slots=True)
class Treated:
    """The answers for U users; NaN stands for what is not known.

    Attributes:
        asked: The question.
        outcomes: (U, 1 + A), the control first.
        effects: (U, A), exactly the treatments' outcomes minus the control's.
        propensity: (U, 1 + A) as estimated; None where the bundle estimates none.
        overlap: (U, A) indices into ``bundle.effects.OVERLAP``.
        intervals: Lower and upper ends (U, A) of the effects; None where none were asked for.
        curves: By place of a treatment with a dose, as the reply shows them.
        recommended: Treatment, dose and gain of each user, and the budget.
        tally: What the metrics count of all this.
        notes: Remark -> (U,) whom it concerns.
        warnings: Remarks that concern everybody.
        unseen: Field -> number of values without a row of their own.
        seconds: Time of each stage.
        plain: The same from compiled code, where it gave all of them.
    """

    asked: Asked
    outcomes: Float
    effects: Float
    propensity: Float | None
    overlap: NDArray[np.int8]
    intervals: tuple[Float, Float] | None
    curves: dict[int, Curve]
    recommended: Recommended
    tally: Tally
    notes: dict[str, Flags]
    warnings: list[str]
    unseen: dict[str, int]
    seconds: dict[Stage, float]
    plain: PlainAnswers | None = None


@dataclass(frozen=True, slots=True)
class Users:
    """Whom to answer for: the query, what the store holds, and whose stored features could not be read."""

    query: UpliftQuery | UserColumns
    stored: Sequence[StoredLike | None] | None = None
    lost: Flags | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """U users as the graph takes them: a few arrays, and none of the values that they were made of.

    Attributes:
        user_ids: (U,) as budgets need them; empty where nobody asked for one.
        inputs: Of the graph.
        notes: Remark about what was given -> (U,) whom it concerns.
        lost: (U,) whose stored features could not be read; None where nothing was.
        unseen: Field -> number of values without a row of their own.
        seconds: That it took.
    """

    user_ids: Sequence[str | None]
    inputs: Inputs
    notes: dict[str, Flags]
    lost: Flags | None
    unseen: dict[str, int]
    seconds: float


def feature_notes(missing: Mapping[str, Flags], unseen: Mapping[str, Flags]) -> dict[str, Flags]:
    """Remarks about what was given, by feature whose value is missing and whose value training did not see."""
    notes = {f"missing_feature:{name}": flags for name, flags in missing.items()}
    return notes | {f"unseen_value:{name}": flags for name, flags in unseen.items()}

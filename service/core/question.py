"""What /uplift is asked beside its users, and the check of that against what a bundle knows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bundle import effects
from bundle.treatment import DoseScale, UpliftPart
from bundle.uplift_inputs import default_dose
from service.errors import InvalidFeatures, Problem

Float = NDArray[np.float64]
Method = Literal["mc_dropout", "ensemble", "conformal"]

DOSE_OUT_OF_RANGE: Final = "dose_out_of_range"
# Points of the grid on which the best dose is looked for where the request names none.
OWN_GRID: Final = 21


@dataclass(frozen=True, slots=True)
class Interval:
    """The share of cases that an interval should hold, and how it is made (None: the best that the bundle has)."""

    level: float
    method: Method | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one treatment: ``base`` plus dose times ``per_dose``."""

    base: float = 0.0
    per_dose: float = 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent; costs by treatment, and what one unit of the outcome is worth."""

    total: float
    costs: Mapping[str, Cost]
    value_per_outcome: float = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """As it came; None means that the bundle decides."""

    treatments: tuple[str, ...] | None = None
    doses: Mapping[str, float] = field(default_factory=dict)
    dose_grid: int | None = None
    interval: Interval | None = None
    budget: Budget | None = None
    allow_extrapolation: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that fits its bundle. A is the number of treatments asked, in the order of the request.

    Attributes:
        names: (A,) treatments without the control.
        columns: (A,) their places among the bundle's K treatments.
        scales: (A,) their doses; None for a treatment without one.
        doses: (A,) in their own unit, the dose that outcomes are for; NaN where there is none.
        points: of the dose grid.
        shown: whether the reply shows the curve along the grid, at the doses asked, or not at all.
    """

    question: Question
    names: tuple[str, ...]
    columns: NDArray[np.int64]
    scales: tuple[DoseScale | None, ...]
    doses: Float
    points: int
    shown: Literal["grid", "doses", "none"]

    @property
    def dosed(self) -> tuple[int, ...]:
        """Places of the asked treatments that have a dose."""
        return tuple(place for place, scale in enumerate(self.scales) if scale is not None)

    def grid(self, place: int) -> Float:
        """The dose grid of one asked treatment in its own unit, (G,)."""
        scale = self.scales[place]
        if scale is None:
            raise ValueError(f"place must be of a treatment with a dose, got {place}")
        return effects.unscaled_doses(np.linspace(0.0, 1.0, self.points), scale)


def check(question: Question, part: UpliftPart) -> Asked:
    """Fit a question to a bundle.

    Raises:
        InvalidFeatures: With one problem for each thing that does not fit; an unknown treatment's lists the known ones.
    """
    problems: list[Problem] = []
    names = _names(question, part, problems)
    doses = _doses(question, part, names, problems)
    if question.budget is not None:
        problems += _unknown("/budget/costs", question.budget.costs, part)
    if problems:
        raise InvalidFeatures.of(problems)
    scales = tuple(part.doses.get(name) for name in names)
    shown: Literal["grid", "doses", "none"] = "none"
    if any(scale is not None for scale in scales):
        shown = "grid" if question.dose_grid is not None else ("doses" if question.doses else "none")
    return Asked(
        question=question,
        names=names,
        columns=np.array([part.treatments.index(name) for name in names], dtype=np.int64),
        scales=scales,
        doses=doses,
        points=question.dose_grid or OWN_GRID,
        shown=shown,
    )


def _names(question: Question, part: UpliftPart, problems: list[Problem]) -> tuple[str, ...]:
    treatments = part.treatments[1:]
    if question.treatments is None:
        return treatments
    seen: list[str] = []
    for place, name in enumerate(question.treatments):
        pointer = f"/treatments/{place}"
        if name not in part.treatments:
            problems.append(_unknown_treatment(pointer, part))
        elif name in seen:
            problems.append(Problem(pointer, "schema", "the treatment is named twice"))
        else:
            seen.append(name)
    asked = tuple(name for name in seen if name != part.control)
    if not asked and not problems:
        sentence = f"name at least one treatment beside the control; known are {', '.join(treatments)}"
        problems.append(Problem("/treatments", "schema", sentence))
    return asked


def _doses(question: Question, part: UpliftPart, names: tuple[str, ...], problems: list[Problem]) -> Float:
    scales = [part.doses.get(name) for name in names]
    found = np.array([np.nan if scale is None else default_dose(scale) for scale in scales], dtype=np.float64)
    unknown = _unknown("/doses", question.doses, part)
    problems += unknown
    for name, dose in question.doses.items():
        pointer = f"/doses/{_escape(name)}"
        scale = part.doses.get(name)
        if name not in part.treatments:
            continue  # named above
        if scale is None:
            problems.append(Problem(pointer, "schema", "the treatment has no dose"))
        elif name not in names:
            problems.append(Problem(pointer, "schema", "the treatment is not among those asked for"))
        elif not np.isfinite(dose):
            problems.append(Problem(pointer, "not_finite", "the dose is not finite"))
        elif not effects.in_range(dose, scale):
            unit = f" {scale.unit}" if scale.unit else ""
            sentence = f"the model knows doses from {scale.low:g} to {scale.high:g}{unit}"
            problems.append(Problem(pointer, DOSE_OUT_OF_RANGE, sentence))
        else:
            found[names.index(name)] = dose
    return found


def _unknown(place: str, names: Mapping[str, object], part: UpliftPart) -> list[Problem]:
    return [_unknown_treatment(f"{place}/{_escape(name)}", part) for name in names if name not in part.treatments]


def _unknown_treatment(pointer: str, part: UpliftPart) -> Problem:
    return Problem(pointer, "treatment_unknown", f"the model knows the treatments {', '.join(part.treatments)}")


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")

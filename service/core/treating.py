"""Everything that /uplift says about a block of users, as columns: one run of the graph for all of them.

``ctrlift uplift`` calls the same function for the blocks of a file. Letters: U users, K treatments of the bundle, A
treatments asked for, G points of the dose grid.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle import effects
from bundle.population import Population, UpliftQuery, unseen_values
from bundle.treatment import DoseScale
from bundle.user_columns import StoredLike, UserColumns
from service.core.estimates import Predicted
from service.core.question import Asked
from service.core.recommending import Candidates, Recommended, recommend
from service.core.uplift_version import UpliftVersion
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
        notes: Remark -> (U,) whom it concerns.
        warnings: Remarks that concern everybody.
        unseen: Field -> number of values without a row of their own.
        seconds: Time of each stage.
    """

    asked: Asked
    outcomes: Float
    effects: Float
    propensity: Float | None
    overlap: NDArray[np.int8]
    intervals: tuple[Float, Float] | None
    curves: dict[int, Curve]
    recommended: Recommended
    notes: dict[str, Flags]
    warnings: list[str]
    unseen: dict[str, int]
    seconds: dict[Stage, float]


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


def treat(version: UpliftVersion, users: Users, asked: Asked) -> Treated:
    """Answer a question for a block of users.

    Raises:
        FeatureError: A feature does not fit the bundle's schema; the problems name JSON pointers.
        EngineError: A graph failed.
    """
    return treat_prepared(version, prepare(version, users, asked), asked)


def prepare(version: UpliftVersion, users: Users, asked: Asked) -> Prepared:
    """Encode a block of users.

    Raises:
        FeatureError: See ``treat``.
    """
    started = time.perf_counter()
    population = version.population(users.query, users.stored)
    encoded = version.encode(population)
    return Prepared(
        user_ids=() if asked.question.budget is None else users.query.user_ids,
        inputs=encoded.take(None),
        notes=_feature_notes(population, unseen_values(version.bundle.fitted, population.rows, encoded)),
        lost=users.lost,
        unseen=dict(encoded.unseen),
        seconds=time.perf_counter() - started,
    )


def treat_prepared(version: UpliftVersion, users: Prepared, asked: Asked) -> Treated:
    """Answer a question for a block of encoded users.

    Raises:
        EngineError: See ``treat``.
    """
    started = time.perf_counter()
    run = _Run(version, asked, users.inputs)
    ran_at = time.perf_counter()
    notes = dict(users.notes)
    estimates = run.estimates()
    eligible = run.eligible(estimates, users.lost, notes)
    intervals = run.intervals(notes) if asked.question.interval is not None else None
    recommended = recommend(asked, run.candidates(estimates, eligible), users.user_ids)
    if users.lost is not None:
        notes["features_unknown"] = users.lost
    return Treated(
        asked=asked,
        outcomes=estimates.outcomes,
        effects=estimates.effects,
        propensity=run.predicted.propensity[:, run.columns] if version.part.propensity == "estimated" else None,
        overlap=estimates.overlap,
        intervals=intervals,
        curves=run.shown(estimates),
        recommended=recommended,
        notes={text: flags for text, flags in notes.items() if flags.any()},
        warnings=_warnings(version, asked),
        unseen=users.unseen,
        seconds={"encode": users.seconds, "engine": ran_at - started, "correct": time.perf_counter() - ran_at},
    )


@dataclass(frozen=True, slots=True)
class _Estimates:
    outcomes: Float
    effects: Float
    overlap: NDArray[np.int8]
    curves: dict[int, Curve]
    at_dose: dict[int, Curve]


class _Run:
    """One run of the graph for a block of users and what is read off it."""

    def __init__(self, version: UpliftVersion, asked: Asked, inputs: Inputs) -> None:
        self.version, self.asked, self.inputs = version, asked, inputs
        self.users = len(inputs["user_ids"])
        self.columns = np.concatenate([[0], asked.columns])
        scaled = [_scaled(asked, place) for place in range(len(asked.names))]
        # Where the graph estimates a density, the doses themselves ride along at the end of the grid to get theirs.
        self.grid = np.concatenate([np.linspace(0.0, 1.0, asked.points), np.array(scaled)])
        self.doses = self._all_arms(np.broadcast_to(np.array(scaled), (self.users, len(asked.names))))
        self.predicted: Predicted = version.network.predict(inputs, self.doses, self.grid)
        self._blank_arms_without_rows()

    def _all_arms(self, asked: Float) -> Float:
        """Scaled doses (U, A) as the graph takes them, (U, K)."""
        doses = np.zeros((self.users, len(self.version.part.treatments)))
        doses[:, self.asked.columns] = asked
        return doses

    def _blank_arms_without_rows(self) -> None:
        """Training never saw them: what the graph returns for them is noise of its initial weights."""
        for column in arms_without_rows(self.version):
            self.predicted.outcomes[:, column] = np.nan
            self.predicted.curves[:, column] = np.nan

    def estimates(self) -> _Estimates:
        outcomes = self.predicted.outcomes[:, self.columns]
        curves, at_dose = {}, {}
        for place in self.asked.dosed:
            points = self.asked.points
            curves[place] = self._curve(place, self.asked.grid(place), slice(0, points))
            one = self._curve(place, self.asked.doses[place : place + 1], slice(points + place, points + place + 1))
            at_dose[place] = Curve(one.doses, outcomes[:, 1 + place, None], one.supported)
        return _Estimates(
            outcomes=outcomes,
            effects=effects.effects(outcomes),
            overlap=effects.overlap(self.predicted.propensity[:, self.asked.columns]),
            curves=curves,
            at_dose=at_dose,
        )

    def _curve(self, place: int, doses: Float, points: slice) -> Curve:
        column, scale = self.asked.columns[place], self.asked.scales[place]
        if scale is None:
            raise ValueError(f"place must be of a treatment with a dose, got {place}")
        outcomes = self.predicted.curves[:, column, points]
        density = None if self.predicted.density is None else self.predicted.density[:, column, points]
        supported = effects.supported(doses, scale, density)
        return Curve(doses, outcomes, np.broadcast_to(supported, outcomes.shape))

    def eligible(self, found: _Estimates, lost: Flags | None, notes: dict[str, Flags]) -> Flags:
        """Treatments (U, A) that may be recommended; notes why others may not."""
        known = ~np.isnan(found.effects)
        unsure = found.overlap == effects.VIOLATED
        if self.version.part.propensity == "estimated":
            unsure |= found.overlap == effects.UNKNOWN
        if not known.all():
            with_control = ~np.isnan(found.outcomes[:, 0])
            notes[f"non_finite:{self.version.part.control}"] = ~with_control
            for place, name in enumerate(self.asked.names):
                notes[f"non_finite:{name}"] = ~known[:, place] & with_control
        for place, curve in found.curves.items():
            notes[f"dose_unsupported:{self.asked.names[place]}"] = ~found.at_dose[place].supported[:, 0]
            known[:, place] = (curve.supported & ~np.isnan(curve.outcomes)).any(axis=1)
        if not self.asked.question.allow_extrapolation and unsure.any():
            for place, name in enumerate(self.asked.names):
                notes[f"recommendation_withheld:{name}"] = unsure[:, place] & known[:, place]
        open_to = known if self.asked.question.allow_extrapolation else known & ~unsure
        return open_to if lost is None else open_to & ~lost[:, None]

    def candidates(self, found: _Estimates, eligible: Flags) -> Candidates:
        def at(scaled: Float) -> Float:
            ends = np.array([0.0, 1.0])
            predicted = self.version.network.predict(self.inputs, self._all_arms(scaled), ends)
            return np.asarray(predicted.outcomes[:, self.asked.columns])

        return Candidates(
            control=found.outcomes[:, 0],
            outcomes=found.outcomes[:, 1:],
            curves={place: (curve.outcomes, curve.supported) for place, curve in found.curves.items()},
            eligible=eligible,
            at=at,
        )

    def intervals(self, notes: dict[str, Flags]) -> tuple[Float, Float]:
        def samples() -> Float:
            network = self.version.network
            return network.samples(network.with_doses(self.inputs, self.doses, self.grid))

        lower, upper = self.version.intervals.of_effects(
            self.asked, self.predicted.outcomes, self.predicted.propensity, samples
        )
        for place, name in enumerate(self.asked.names):
            notes[f"no_interval:{name}"] = np.isnan(lower[:, place])
        return lower, upper

    def shown(self, found: _Estimates) -> dict[int, Curve]:
        if self.asked.shown == "grid":
            return found.curves
        return found.at_dose if self.asked.shown == "doses" else {}


def arms_without_rows(version: UpliftVersion) -> list[int]:
    """Columns of arms that training saw nobody in; a control that is a dose of the treatment needs no rows."""
    part = version.part
    first = 0 if part.reference_dose is None else 1
    return [column for column, name in enumerate(part.treatments) if column >= first and part.arms[name].rows == 0]


def _scaled(asked: Asked, place: int) -> float:
    scale: DoseScale | None = asked.scales[place]
    return 0.0 if scale is None else float(effects.scaled_doses(asked.doses[place], scale))


def _feature_notes(population: Population, unseen: dict[str, Flags]) -> dict[str, Flags]:
    notes = {f"missing_feature:{name}": flags for name, flags in population.missing.items()}
    return notes | {f"unseen_value:{name}": flags for name, flags in unseen.items()}


def _warnings(version: UpliftVersion, asked: Asked) -> list[str]:
    """What concerns every user: weaknesses of the bundle, and parts of the question that it has no answer to."""
    part, question, found = version.part, asked.question, list[str]()
    empty = {part.treatments[column] for column in arms_without_rows(version)}
    for name in (part.control, *asked.names):
        if name in empty:
            found.append(f"no_rows:{name}")
        elif part.arms[name].low_support and part.arms[name].rows > 0:
            found.append(f"low_support:{name}")
    if part.propensity == "none":
        found.append("propensity_not_estimated")
    if question.dose_grid is not None and not asked.dosed:
        found.append("no_doses")
    if question.budget is not None:
        found += (f"no_cost:{name}" for name in asked.names if name not in question.budget.costs)
    return found

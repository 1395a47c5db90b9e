"""Everything that /uplift says about a block of users, as columns: one run of the graph for all of them.

``ctrlift uplift`` calls the same function for the blocks of a file. Letters: U users, K treatments of the bundle, A
treatments asked for, G points of the dose grid.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bundle import effects
from bundle.population import unseen_values
from bundle.treatment import DoseScale
from service.compiled.population import PopulationEncoder
from service.compiled.treating import Asking
from service.compiled.users import UserBlock
from service.core.estimates import Predicted
from service.core.question import Asked
from service.core.recommending import Candidates, Recommended, recommend
from service.core.tally import Tally
from service.core.treated import Curve, Flags, Float, Inputs, Prepared, Treated, Users, feature_notes
from service.core.uplift_version import UpliftVersion


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
        notes=feature_notes(population.missing, unseen_values(version.bundle.fitted, population.rows, encoded)),
        lost=users.lost,
        unseen=dict(encoded.unseen),
        seconds=time.perf_counter() - started,
    )


def prepare_block(encoder: PopulationEncoder, users: UserBlock, lost: Flags | None, asked: Asked) -> Prepared:
    """Encode users that compiled code read."""
    started = time.perf_counter()
    encoded = encoder.encode(users)
    return Prepared(
        user_ids=() if asked.question.budget is None else users.user_ids,
        inputs=encoded.inputs,
        notes=feature_notes(encoded.missing, encoded.unseen_values),
        lost=lost,
        unseen=encoded.unseen,
        seconds=time.perf_counter() - started,
    )


def treat_prepared(version: UpliftVersion, users: Prepared, asked: Asked) -> Treated:
    """Answer a question for a block of encoded users.

    Raises:
        EngineError: See ``treat``.
    """
    started = time.perf_counter()
    # Most questions are about neither doses nor intervals nor budgets, and one pass over the users answers them.
    plain = version.treater is not None and asked.question.interval is None and asked.question.budget is None
    found = version.network.in_blocks(users.inputs) if plain else None
    ran_at = time.perf_counter()
    if found is not None and (treated := _treated_plainly(version, users, asked, found)) is not None:
        treated.seconds.update({"engine": ran_at - started, "correct": time.perf_counter() - ran_at})
        return treated
    run = _Run(version, asked, users.inputs, found)
    ran_at = time.perf_counter() if found is None else ran_at
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
        tally=Tally.of(estimates.effects, estimates.overlap, recommended.arm),
        notes={text: flags for text, flags in notes.items() if flags.any()},
        warnings=_warnings(version, asked),
        unseen=users.unseen,
        seconds={"encode": users.seconds, "engine": ran_at - started, "correct": time.perf_counter() - ran_at},
    )


def _treated_plainly(
    version: UpliftVersion, users: Prepared, asked: Asked, found: Mapping[str, NDArray[np.float32]]
) -> Treated | None:
    """The answers by compiled code, their times but for the encoder's left out; None where something is no number."""
    names, extrapolates = version.part.outputs, asked.question.allow_extrapolation
    if version.treater is None or not found.keys() >= set(names):
        return None
    logits = found[names[1]] if version.part.propensity == "estimated" else None
    asking = Asking(np.concatenate([[0], asked.columns]), extrapolates, users.lost)
    answers = version.treater.answers(found[names[0]], logits, asking)
    if answers is None:
        return None
    notes = dict(users.notes)
    if answers.overlap_counts[effects.VIOLATED] and not extrapolates:
        for place, name in enumerate(asked.names):
            notes[f"recommendation_withheld:{name}"] = answers.overlap[:, place] == effects.VIOLATED
    if users.lost is not None:
        notes["features_unknown"] = users.lost
    count = len(answers.arm)
    means = [total / count for total in answers.effect_sums]
    return Treated(
        asked=asked,
        outcomes=answers.outcomes,
        effects=answers.effects,
        propensity=answers.propensity,
        overlap=answers.overlap,
        intervals=None,
        curves={},
        recommended=Recommended(answers.arm, _no_doses(count), answers.gain, None),
        tally=Tally(count, 0, means, answers.overlap_counts, answers.arm_counts),
        notes={text: flags for text, flags in notes.items() if flags.any()},
        warnings=_warnings(version, asked),
        unseen=users.unseen,
        seconds={"encode": users.seconds},
        plain=answers,
    )


@lru_cache(maxsize=8)
def _no_doses(users: int) -> Float:
    """NaN for each user; requests come with the same number of users again and again."""
    return np.broadcast_to(np.nan, users)


@dataclass(frozen=True, slots=True)
class _Estimates:
    outcomes: Float
    effects: Float
    overlap: NDArray[np.int8]
    curves: dict[int, Curve]
    at_dose: dict[int, Curve]


class _Run:
    """One run of the graph for a block of users and what is read off it."""

    def __init__(
        self,
        version: UpliftVersion,
        asked: Asked,
        inputs: Inputs,
        found: Mapping[str, NDArray[np.float32]] | None,
    ) -> None:
        self.version, self.asked, self.inputs = version, asked, inputs
        self.users = len(inputs["user_ids"])
        self.columns = np.concatenate([[0], asked.columns])
        scaled = [_scaled(asked, place) for place in range(len(asked.names))]
        # Where the graph estimates a density, the doses themselves ride along at the end of the grid to get theirs.
        self.grid = np.concatenate([np.linspace(0.0, 1.0, asked.points), np.array(scaled)])
        self.doses = self._all_arms(np.broadcast_to(np.array(scaled), (self.users, len(asked.names))))
        network = version.network
        self.predicted: Predicted = (
            network.predict(inputs, self.doses, self.grid) if found is None else network.in_units(found)
        )
        self._blank_arms_without_rows()

    def _all_arms(self, asked: Float) -> Float:
        """Scaled doses (U, A) as the graph takes them, (U, K)."""
        doses = np.zeros((self.users, len(self.version.part.treatments)))
        doses[:, self.asked.columns] = asked
        return doses

    def _blank_arms_without_rows(self) -> None:
        """Training never saw them: what the graph returns for them is noise of its initial weights."""
        for column in self.version.empty_arms:
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


def _scaled(asked: Asked, place: int) -> float:
    scale: DoseScale | None = asked.scales[place]
    return 0.0 if scale is None else float(effects.scaled_doses(asked.doses[place], scale))


def _warnings(version: UpliftVersion, asked: Asked) -> list[str]:
    """What concerns every user: weaknesses of the bundle, and parts of the question that it has no answer to."""
    part, question, found = version.part, asked.question, list[str]()
    empty = {part.treatments[column] for column in version.empty_arms}
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

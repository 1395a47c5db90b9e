"""Metrics of a trained network of treatment effects on one split, beside simple models on the same rows.

Only here is the truth of a data set asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bundle.conformal import Conformal
from training.config import TrainingConfig
from training.datasets import Part
from training.run import RunFolder, write_json
from training.uplift.dose_measures import dose_report
from training.uplift.encoding import encode_uplift, labelled, outcomes_of
from training.uplift.intervals import (
    calibrated,
    conformal_report,
    sampled_outcomes,
    samples_of,
    samples_report,
)
from training.uplift.measures import (
    Observed,
    Report,
    effect_report,
    factual_report,
    gain_report,
    plain,
    policy_report,
    propensity_report,
    ranking_report,
    truth_report,
)
from training.uplift.predict import Predictions
from training.uplift.preparation import arm_warnings
from training.uplift.references import uplift_references
from training.uplift.report import write_evaluation_plots
from training.uplift.rows import UpliftRows
from training.uplift.trained import TrainedUplift, open_trained_uplift

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, slots=True)
class UpliftEvaluation:
    """What was found on one split; every part as JSON has it, None where a number is undefined.

    Attributes:
        split: train is in-sample, test out of sample.
        arms: by arm other than the control: rows, effect, ranking, truth. An arm that cannot be compared is absent.
        factual: of the outcomes that happened.
        policy: of giving everyone the arm with the best prediction.
        propensity: None where the network estimates none.
        doses: by arm with doses.
        intervals: conformal ones, and those of samples where the network gives some.
        references: simple models on the same rows.
    """

    split: str
    rows: int
    users: int
    bootstrap: int
    outcome: dict[str, Any]
    treatments: list[str]
    arms: dict[str, Report]
    factual: Report
    policy: Report
    propensity: Report | None
    doses: dict[str, Report]
    intervals: Report
    references: list[Report]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Measured:
    """The rows of one split with the network's answers.

    Attributes:
        part: raw rows; they all have an outcome.
        rows: encoded.
        observed: what happened, and what is known of what did not.
        found: predictions with every row's own dose in the arm received.
        default: predictions with every arm's default dose; effects and policies are of these.
    """

    part: Part
    rows: UpliftRows
    observed: Observed
    found: Predictions
    default: Predictions

    @property
    def own(self) -> NDArray[np.float64]:
        """The prediction for what was received, (N,)."""
        return self.found.outcomes[np.arange(len(self.part)), self.part.treatment]


def evaluate_uplift(folder: RunFolder, config: TrainingConfig, split: Split, *, bootstrap: int) -> UpliftEvaluation:
    """Evaluate a run and keep the result and its plots in the run folder.

    Raises:
        RunError: if the run cannot be read or belongs to other data.
    """
    opened = open_trained_uplift(folder, config)
    found, measured = evaluate_uplift_split(opened, split, bootstrap=bootstrap)
    write_json(folder.path / f"evaluation-{split}.json", found.to_dict())
    write_evaluation_plots(folder, found.to_dict(), measured.observed, measured.default)
    return found


def evaluate_uplift_split(
    opened: TrainedUplift, split: Split, *, bootstrap: int, learners: bool | None = None
) -> tuple[UpliftEvaluation, Measured]:
    """Metrics of the network and of the references on one split.

    Args:
        opened: the run.
        split: whose rows.
        bootstrap: replicates of the intervals.
        learners: whether to train the S- and the T-learner; by default what [evaluation] says.
    """
    measured = measure(opened, split, bootstrap)
    observed, predictions = measured.observed, measured.default
    mu, propensity = predictions.outcomes, predictions.propensity
    arms, warnings = arm_reports(observed, predictions)
    warnings = [*_few_rows(opened), *warnings]
    factual, more = factual_report(observed, measured.own, measured.found.outcomes)
    warnings += more
    known = propensity is not None and bool(arms)
    propensities: Report | None = None
    if known and propensity is not None:
        propensities, more = propensity_report(observed, mu, propensity)
        warnings += more
    wanted = opened.config.evaluation.references if learners is None else learners
    evaluation = UpliftEvaluation(
        split=split,
        rows=len(measured.part),
        users=len(np.unique(measured.part.users)),
        bootstrap=bootstrap,
        outcome={"name": opened.scales.outcome.name, "kind": opened.scales.outcome.kind},
        treatments=list(opened.scales.arms),
        arms=arms,
        factual=plain(factual),
        policy=plain(policy_report(observed, mu, propensity)) if arms else {},
        propensity=propensities,
        doses=doses_of(opened, measured),
        intervals=intervals_of(opened, measured, calibrated(opened)),
        references=list(reference_reports(opened, measured, learners=wanted)) if arms else [],
        warnings=list(dict.fromkeys(warnings)),
    )
    return evaluation, measured


def measure(opened: TrainedUplift, split: Split, bootstrap: int) -> Measured:
    """The labelled rows of one split with the network's answers."""
    whole, name = opened.dataset.part(split), opened.scales.outcome.name
    kept = labelled(whole, name)
    part = whole.take(kept)
    rows = encode_uplift(opened.encoder, part, opened.scales)
    predictor = opened.predictor
    observed = Observed(
        outcome=outcomes_of(part, name),
        treatment=part.treatment,
        users=part.users,
        features=rows.inputs[1].double().numpy(),
        arms=opened.scales.arms,
        known=opened.rows > 0,
        binary=opened.scales.outcome.kind == "binary",
        truth=_truth_of(opened, split, kept, len(whole)),
        replicates=bootstrap,
    )
    own = predictor.doses(part.treatment, rows.dose.numpy())
    return Measured(part, rows, observed, predictor(rows.inputs, own), predictor(rows.inputs))


def _truth_of(opened: TrainedUplift, split: Split, kept: NDArray[np.int64], rows: int) -> dict[str, NDArray[Any]]:
    """The truth of the labelled rows; what belongs to no row, such as a grid of doses, stays as it is."""
    truth = opened.dataset.truth(split)
    return {
        name: values if name == "dose_grid" or len(values) != rows else values[kept] for name, values in truth.items()
    }


def arm_reports(observed: Observed, predictions: Predictions) -> tuple[dict[str, Report], list[str]]:
    """Everything about each arm against the control."""
    found: dict[str, Report] = {}
    warnings: list[str] = []
    mu = predictions.outcomes
    for arm in observed.contrasted():
        effect = mu[:, arm] - mu[:, 0]
        effects, first = effect_report(observed, mu, predictions.propensity, arm)
        ranking, second = ranking_report(observed, effect, arm)
        found[observed.arms[arm]] = plain(
            {"effect": effects, "ranking": ranking, "truth": truth_report(observed, effect, arm)}
        )
        warnings += [f"{observed.arms[arm]}: {text}" for text in (*first, *second)]
    return found, warnings


def doses_of(opened: TrainedUplift, measured: Measured) -> dict[str, Report]:
    """Reports on the curves; nothing for networks without doses."""
    if not opened.doses:
        return {}
    return dose_report(opened, measured.rows.inputs, dict(measured.observed.truth), measured.part.dose)


def intervals_of(opened: TrainedUplift, measured: Measured, conformal: Conformal) -> Report:
    """How good the intervals are that the bundle would give."""
    found: Report = {"conformal": conformal_report(measured.observed, measured.found, measured.own, conformal)}
    samples = samples_of(opened)
    if samples is not None:
        drawn = sampled_outcomes(opened, samples, measured.rows.inputs)
        found["samples"] = samples_report(measured.observed, drawn, samples.method)
    return found


def reference_reports(opened: TrainedUplift, measured: Measured, *, learners: bool) -> Iterator[Report]:
    """Each reference on the same rows: its metrics, and how far the network is above it on the same resampled users."""
    observed, mu = measured.observed, measured.default.outcomes
    for reference in uplift_references(opened, measured.rows, learners=learners):
        arms: Report = {}
        for arm in observed.contrasted():
            effect, own = reference.outcomes[:, arm] - reference.outcomes[:, 0], mu[:, arm] - mu[:, 0]
            arms[observed.arms[arm]] = {
                "predicted": float(effect.mean()),
                "ranking": ranking_report(observed, effect, arm)[0],
                "gain": gain_report(observed, own, effect, arm),
                "truth": truth_report(observed, effect, arm),
            }
        predicted = reference.outcomes[np.arange(len(mu)), observed.treatment]
        yield plain(
            {
                "name": reference.name,
                "arms": arms,
                "factual": factual_report(observed, predicted, reference.outcomes)[0],
            }
        )


def _few_rows(opened: TrainedUplift) -> list[str]:
    counts = dict(zip(opened.scales.arms, opened.rows.tolist(), strict=True))
    return arm_warnings(opened.config, counts)

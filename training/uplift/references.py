"""Simple models trained on the same rows as the network: an S-learner, a T-learner, the difference in means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from training.objectives.catalog import OBJECTIVES
from training.uplift.encoding import encode_uplift
from training.uplift.fit import fit_plan
from training.uplift.network import NetworkPlan, build_uplift_network
from training.uplift.predict import Predictor
from training.uplift.preparation import halves, labelled_part, one_class_softness, softened
from training.uplift.rows import UpliftRows
from training.uplift.trained import TrainedUplift

LEARNERS: Final = {"S-learner": "s_learner", "T-learner": "t_learner"}
DIFFERENCE: Final = "difference in means"


@dataclass(frozen=True, slots=True)
class UpliftReference:
    """A simple model's outcomes (N, K) for the rows of one split; doses are not looked at."""

    name: str
    outcomes: NDArray[np.float64]


def uplift_references(opened: TrainedUplift, rows: UpliftRows, *, learners: bool) -> list[UpliftReference]:
    """Fit the references on the training rows and ask them about others.

    Args:
        opened: the run whose data, halves of the validation rows and seed they share.
        rows: to predict for.
        learners: also the S- and the T-learner, with the defaults of their objectives; that takes as long as a
            training.
    """
    found = [UpliftReference(DIFFERENCE, np.tile(arm_means(opened), (len(rows), 1)))]
    if not learners:
        return found
    seed = opened.config.train.seed
    valid = labelled_part(opened.dataset, "valid")
    train = encode_uplift(opened.encoder, labelled_part(opened.dataset, "train"), opened.scales)
    watched = encode_uplift(opened.encoder, valid.take(halves(valid.treatment, seed)[0]), opened.scales)
    if opened.scales.outcome.kind == "binary":
        softness, _ = one_class_softness(train, opened.scales)
        train, watched = softened(train, softness), softened(watched, softness)
    shared = {name: opened.plan.options[name] for name in ("layout", "treatments", "outcome")}
    for name, network_name in LEARNERS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_uplift_network(NetworkPlan(network_name, shared))
            entry = OBJECTIVES[network_name]
            plan = entry.plan(network, entry.settings(), train)
        fit_plan(network, plan, train, watched, seed=seed)
        predictor = Predictor(network, opened.scales.outcome, np.zeros(len(opened.scales.arms)))
        found.append(UpliftReference(name, predictor(rows.inputs).outcomes))
    return found


def arm_means(opened: TrainedUplift) -> NDArray[np.float64]:
    """Mean training outcome of each arm in its own unit, (K,); that of all rows for an arm without any."""
    part = labelled_part(opened.dataset, "train")
    outcome = part.labels[opened.scales.outcome.name].astype(np.float64)
    means = np.full(len(opened.scales.arms), float(outcome.mean()))
    for arm in np.unique(part.treatment):
        means[arm] = outcome[part.treatment == arm].mean()
    return means

"""What training DRNet means: the factual loss, and the variants that balance the treatments."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from models.uplift.drnet import DRNet
from training.objectives.balance import imbalance
from training.objectives.factual import outcome_losses, parameters_of, weighted_mean
from training.objectives.propensity import propensity_stage
from training.objectives.settings import PropensitySchedule, Schedule
from training.uplift.plan import Loss, Phase, Plan, Stage
from training.uplift.rows import UpliftRows


class DRNetSettings(Schedule):
    """How DRNet is trained.

    Attributes:
        balance: ``none``; ``matching`` adds to every batch, for every other treatment, its training row nearest in
            propensity (+PM); ``wasserstein`` and ``mmd`` add the distance between the treatments' base outputs.
        balance_weight: of that distance.
        propensity: of the propensity network's stage, which comes first.
    """

    epochs: PositiveInt = 300
    balance: Literal["none", "matching", "wasserstein", "mmd"] = "none"
    balance_weight: NonNegativeFloat = 1.0
    propensity: PropensitySchedule = PropensitySchedule()


def plan(network: DRNet, settings: DRNetSettings, train: UpliftRows) -> Plan:
    """The propensity network where there is one, then the outcomes.

    Strata without training rows are given to their nearest neighbour's head (``DRNet.answer_from``).

    Source: Schwab et al. 2020, arXiv:1902.00981. Differs from it: the dropout's entropy in bits.

    Args:
        network: as built; it is told which strata have rows.
        settings: see there.
        train: the training rows.

    Raises:
        ValueError: if matching is asked for where there is no propensity.
    """
    estimated = network.config.propensity == "estimated"
    if settings.balance == "matching" and not estimated:
        raise ValueError("balance 'matching' needs a propensity, which data with a reference_dose has not")
    network.answer_from(stratum_counts(network, train))
    stages: list[Stage] = []
    propensity = nn.ModuleList([network.propensity_encoder, network.propensity])
    if estimated:
        stages.append(
            propensity_stage(propensity, lambda rows: network.propensity_logits(rows.inputs), settings.propensity)
        )
    held = {id(parameter) for parameter in propensity.parameters()}
    phase = Phase(
        name="outcomes",
        parameters=tuple(parameter for parameter in parameters_of([network]) if id(parameter) not in held),
        loss=_loss(network, settings, train),
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    stages.append(
        Stage(
            name="outcomes",
            phases=(phase,),
            validation=lambda rows: _factual(network, rows),
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            patience=settings.patience,
            schedule=settings.schedule,
            gradient_clip=settings.gradient_clip,
        )
    )
    return Plan(tuple(stages))


def stratum_counts(network: DRNet, rows: UpliftRows) -> Tensor:
    """Rows of each treatment and stratum, (K, E) int64; those without a dose are counted at dose 0."""
    stratum = network.strata(rows.dose * network.dosed[rows.treatment])
    cells = network.treatments * network.strata.strata
    counts = torch.bincount(rows.treatment * network.strata.strata + stratum, minlength=cells)
    return counts.reshape(network.treatments, network.strata.strata)


class NearestInPropensity:
    """For each row and each other treatment, the training row of that treatment whose chance of it is most alike.

    The chances are those of the network when first asked, which is after its propensity stage.

    Source: Schwab et al. 2018, Perfect Match, arXiv:1810.00656. Differs from it: nothing for one propensity a
    treatment.

    Args:
        network: with a propensity.
        train: the rows to match with.
    """

    def __init__(self, network: DRNet, train: UpliftRows) -> None:
        self._network = network
        self._arms = [train.arm(arm) for arm in range(network.treatments)]
        self._chances: list[Tensor] = []

    def __call__(self, rows: UpliftRows) -> list[tuple[UpliftRows, Tensor]]:
        """Matches (B rows) and their weights (B,), one pair for each treatment with rows; its own rows weigh 0."""
        if not self._chances:
            self._chances = [self._of(arm)[:, index] for index, arm in enumerate(self._arms)]
        chances = self._of(rows)
        found = []
        for index, (arm, known) in enumerate(zip(self._arms, self._chances, strict=True)):
            if len(arm):
                nearest = (chances[:, index : index + 1] - known).abs().argmin(1)
                found.append((arm.take(nearest), torch.where(rows.treatment == index, 0.0, rows.weight)))
        return found

    def _of(self, rows: UpliftRows) -> Tensor:
        with torch.no_grad():
            return torch.softmax(self._network.propensity_logits(rows.inputs), -1)


def _factual(network: DRNet, rows: UpliftRows) -> Tensor:
    return weighted_mean(_losses(network, rows)[0], rows.weight)


def _losses(network: DRNet, rows: UpliftRows) -> tuple[Tensor, Tensor]:
    outcome, base = network.received_outcome(rows.inputs, rows.treatment, rows.dose)
    return outcome_losses(outcome, rows.outcome, network.config.outcome), base


def _loss(network: DRNet, settings: DRNetSettings, train: UpliftRows) -> Loss:
    match settings.balance:
        case "matching":
            nearest = NearestInPropensity(network, train)

            def loss(rows: UpliftRows) -> Tensor:
                matches = nearest(rows)
                losses = [_losses(network, rows)[0], *(_losses(network, match)[0] for match, _ in matches)]
                return weighted_mean(torch.cat(losses), torch.cat([rows.weight, *(weight for _, weight in matches)]))

        case "wasserstein" | "mmd":
            distance: Literal["sinkhorn", "mmd"] = "mmd" if settings.balance == "mmd" else "sinkhorn"

            def loss(rows: UpliftRows) -> Tensor:
                losses, base = _losses(network, rows)
                apart = imbalance(base, rows.treatment, network.treatments, distance)
                return weighted_mean(losses, rows.weight) + settings.balance_weight * apart

        case "none":

            def loss(rows: UpliftRows) -> Tensor:
                return _factual(network, rows)

    return loss

"""What training DCN-PD means: the propensity network, then one phase a treatment, taking turns by epoch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from models.uplift.dcn_pd import DCNPD
from training.objectives.factual import kernel_penalty, outcome_losses, parameters_of, weighted_mean
from training.objectives.propensity import propensity_stage
from training.objectives.settings import PropensitySchedule, Schedule
from training.objectives.tarnet import noise_likelihood
from training.uplift.plan import Loss, Phase, Plan, Stage
from training.uplift.rows import UpliftRows


class DCNPDSettings(Schedule):
    """How DCN-PD is trained.

    Attributes:
        objective: ``factual`` sees the outcome of the received treatment. ``oracle_ite`` fits the difference between
            the received treatment's outcome and the others', which only a simulation knows.
        epochs: of all treatments together: with two, each has half of them.
        patience: rounds of all treatments without a better validation loss that are waited for.
        l2: penalty of the squared kernels of the layers in the phase.
        noise: as TARNet's: ``learned`` divides each treatment's loss by a variance that is learned with it.
        propensity: of the propensity network's stage.
    """

    objective: Literal["factual", "oracle_ite"] = "factual"
    epochs: PositiveInt = 400
    l2: NonNegativeFloat = 1e-4
    noise: Literal["fixed", "learned"] = "fixed"
    propensity: PropensitySchedule = PropensitySchedule()


@dataclass(frozen=True, slots=True)
class OracleRows(UpliftRows):
    """Rows of a simulation, with every treatment's outcome.

    Attributes:
        outcomes: (N, K) float32, on the scale of ``outcome``.
    """

    outcomes: Tensor

    @classmethod
    def of(cls, rows: UpliftRows, outcomes: Tensor, *, semi_synthetic: bool) -> OracleRows:
        """Rows together with what would have happened.

        Raises:
            ValueError: if the data is not flagged as semi-synthetic, or there is not one outcome a row and treatment.
        """
        if not semi_synthetic:
            raise ValueError("objective 'oracle_ite' must not be used unless the data says semi_synthetic = true")
        if outcomes.dim() != 2 or outcomes.size(0) != len(rows):
            raise ValueError(f"outcomes must be ({len(rows)}, K), got {tuple(outcomes.shape)}")
        return cls(**{field.name: getattr(rows, field.name) for field in fields(UpliftRows)}, outcomes=outcomes)

    def take(self, index: Tensor) -> OracleRows:
        """As ``UpliftRows``."""
        taken = UpliftRows.take(UpliftRows(*(getattr(self, field.name) for field in fields(UpliftRows))), index)
        return OracleRows.of(taken, self.outcomes[index], semi_synthetic=True)


def plan(network: DCNPD, settings: DCNPDSettings, train: UpliftRows) -> Plan:
    """Two stages: the propensity network, then the outcomes, the propensity network holding still.

    A treatment without rows has no phase. An optimiser a phase: a stack that belongs to no running phase is in no
    running optimiser, so neither momentum nor weight decay moves it.

    Source: Alaa, Weisz and van der Schaar 2017, arXiv:1706.05966, algorithm 1. Differs from it: K treatments take
    turns; early stopping on the sum of the treatments' factual validation losses.

    Args:
        network: as built.
        settings: see there.
        train: the training rows; their treatments are counted.

    Raises:
        ValueError: if ``oracle_ite`` is asked for and the rows are not those of a simulation, or the noise of a binary
            outcome is to be learned.
    """
    if settings.noise == "learned" and network.config.outcome == "binary":
        raise ValueError("noise must be fixed for a binary outcome, got 'learned'")
    if settings.objective == "oracle_ite" and not isinstance(train, OracleRows):
        raise ValueError("objective 'oracle_ite' needs data that says semi_synthetic = true; use 'factual'")
    arms = [arm for arm, rows in enumerate(train.counts(network.treatments).tolist()) if rows > 0]
    propensity = propensity_stage(
        torch.nn.ModuleList([network.propensity_encoder, network.propensity]),
        lambda rows: network.propensity_logits(rows.inputs),
        settings.propensity,
    )
    phases = tuple(_phase(network, settings, arm) for arm in arms)
    outcomes = Stage(
        name="outcomes",
        phases=phases,
        validation=_validation(network, arms),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        by="epoch",
        patience=settings.patience,
        schedule=settings.schedule,
        gradient_clip=settings.gradient_clip,
    )
    return Plan((propensity, outcomes))


def _phase(network: DCNPD, settings: DCNPDSettings, arm: int) -> Phase:
    """The phase of one treatment: everything shared, its own stack, and the variance of its noise."""
    modules = network.arm_modules(arm)
    log_variance = nn.Parameter(torch.zeros(()))
    learned = settings.noise == "learned"

    def loss(rows: UpliftRows) -> Tensor:
        if settings.objective == "oracle_ite":
            total = oracle_loss(network, rows, arm)
        else:
            total = arm_loss(network, rows, arm)
        if learned:
            total = noise_likelihood(total, log_variance)
        if settings.l2 > 0:
            total = total + settings.l2 * kernel_penalty(nn.ModuleList(modules))
        return total

    return Phase(
        name=network.config.treatments[arm],
        parameters=(*parameters_of(modules), *([log_variance] if learned else [])),
        loss=loss,
        arm=arm,
        optimizer=settings.optimizer,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )


def arm_loss(network: DCNPD, rows: UpliftRows, arm: int) -> Tensor:
    """Weighted mean loss of one treatment's rows under its own stack.

    Shapes: rows all of treatment ``arm``; returns ().
    """
    losses = outcome_losses(network.arm_outcome(rows.inputs, arm), rows.outcome, network.config.outcome)
    return weighted_mean(losses, rows.weight)


def oracle_loss(network: DCNPD, rows: UpliftRows, arm: int) -> Tensor:
    """Weighted mean over the other treatments j of ((mu_arm - mu_j) - (y_arm - y_j))^2: the simulation's effect.

    Probabilities where the outcome is binary. Only the arm's own stack is in the phase that minimises it.

    Shapes: returns ().

    Raises:
        ValueError: if the rows have no counterfactual outcomes.
    """
    if not isinstance(rows, OracleRows):
        raise ValueError("objective 'oracle_ite' needs rows with every treatment's outcome")
    if network.training:
        noise = torch.rand(len(rows), network.noise_width)
        predicted = network.sample(*[*rows.inputs, noise])
    else:
        predicted = network(*rows.inputs)[0]
    if network.config.outcome == "binary":
        predicted = torch.sigmoid(predicted)
    difference = (predicted[:, arm : arm + 1] - predicted) - (rows.outcomes[:, arm : arm + 1] - rows.outcomes)
    # The arm's own column is 0 - 0.
    return weighted_mean((difference**2).sum(-1) / (network.treatments - 1), rows.weight)


def _validation(network: DCNPD, arms: list[int]) -> Loss:
    def factual(rows: UpliftRows) -> Tensor:
        return torch.stack([arm_loss(network, rows.arm(arm), arm) for arm in arms]).sum()

    return factual

"""What training VCNet means: factual loss, density, and the curve of the targeted regularisation."""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from models.uplift.inputs import OutcomeKind
from models.uplift.vcnet import VCNet, VCNetOutputs
from training.objectives.factual import factual_loss, received, weighted_mean
from training.objectives.propensity import propensity_loss
from training.objectives.settings import Schedule
from training.uplift.plan import Phase, Plan, Stage
from training.uplift.rows import UpliftRows


class VCNetSettings(Schedule):
    """How VCNet is trained.

    Attributes:
        weight_decay: of the network; it is what keeps some hundred rows from being learned by heart.
        density_weight: alpha, of the log density of the dose and of the treatment.
        targeted: with functional targeted regularisation.
        targeting_weight: beta, of its loss.
        density_floor: smallest density that is divided by.
        momentum: of the network, with SGD.
        targeting_learning_rate, targeting_weight_decay: of the curve epsilon, by plain SGD.
    """

    learning_rate: PositiveFloat = 3e-3
    weight_decay: NonNegativeFloat = 1e-2
    density_weight: NonNegativeFloat = 0.5
    targeted: bool = True
    targeting_weight: NonNegativeFloat = 1.0
    density_floor: PositiveFloat = 0.01
    momentum: NonNegativeFloat = 0.0
    targeting_learning_rate: PositiveFloat = 1e-3
    targeting_weight_decay: NonNegativeFloat = 1e-3


def plan(network: VCNet, settings: VCNetSettings, train: UpliftRows) -> Plan:
    """One stage: the network, and, taking turns with it by step, the curve epsilon.

    Source: Nie et al. 2021, arXiv:2103.07861. Differs from it: early stopping on the factual loss.

    Args:
        network: as built.
        settings: see there.
        train: the training rows; not looked at.
    """
    objective = VCNetObjective(network, settings)
    curve = tuple(network.targeting.parameters())
    of_curve = {id(parameter) for parameter in curve}
    phases = [
        Phase(
            name="network",
            parameters=tuple(parameter for parameter in network.parameters() if id(parameter) not in of_curve),
            loss=objective.whole,
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
        )
    ]
    if settings.targeted:
        phases.append(
            Phase(
                name="targeting",
                parameters=curve,
                loss=objective.targeting,
                optimizer="sgd",
                learning_rate=settings.targeting_learning_rate,
                weight_decay=settings.targeting_weight_decay,
            )
        )
    stage = Stage(
        name="vcnet",
        phases=tuple(phases),
        validation=objective.factual,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        by="step",
        patience=settings.patience,
        schedule=settings.schedule,
        gradient_clip=settings.gradient_clip,
    )
    return Plan((stage,))


class VCNetObjective:
    """The losses of one network as functions of a batch, each a scalar."""

    def __init__(self, network: VCNet, settings: VCNetSettings) -> None:
        self._network = network
        self._settings = settings
        self._kind = network.config.outcome
        self._treatments = network.config.propensity == "estimated"

    def factual(self, rows: UpliftRows) -> Tensor:
        """Of the outcomes alone."""
        return factual_loss(self._outputs(rows).outcome, rows, self._kind)

    def targeting(self, rows: UpliftRows) -> Tensor:
        """Of the targeted regularisation alone, weighted."""
        return self._targeting(self._outputs(rows), rows)

    def whole(self, rows: UpliftRows) -> Tensor:
        """Of the network: outcomes, densities and, where it is on, the targeted regularisation."""
        outputs = self._outputs(rows)
        loss = factual_loss(outputs.outcome, rows, self._kind)
        density = density_loss(outputs.density, rows)
        if self._treatments:
            density = density + propensity_loss(outputs.propensity_logits, rows)
        loss = loss + self._settings.density_weight * density
        if self._settings.targeted:
            loss = loss + self._targeting(outputs, rows)
        return loss

    def _outputs(self, rows: UpliftRows) -> VCNetOutputs:
        # The row's dose stands under every treatment; only the received one's column is looked at.
        doses = rows.dose.unsqueeze(-1).expand(-1, self._network.treatments)
        return self._network.training_outputs(rows.inputs, doses)

    def _targeting(self, outputs: VCNetOutputs, rows: UpliftRows) -> Tensor:
        density = outputs.density
        if self._treatments:
            density = density * torch.softmax(outputs.propensity_logits, -1)
        loss = targeting_loss(outputs, density, rows, self._kind, self._settings.density_floor)
        return self._settings.targeting_weight * loss


def density_loss(density: Tensor, rows: UpliftRows) -> Tensor:
    """Weighted mean of -log(pi(s | x, t) + 1e-6).

    Shapes: density (B, K); returns ().
    """
    return weighted_mean(-torch.log(received(density, rows.treatment) + 1e-6), rows.weight)


def targeting_loss(outputs: VCNetOutputs, density: Tensor, rows: UpliftRows, kind: OutcomeKind, floor: float) -> Tensor:
    """Weighted mean of (y - mu_t(s, x) - eps_t(s) / pi)^2; mu is a probability where the outcome is binary.

    Source: Nie et al. 2021, arXiv:2103.07861, section 3.2. Differs from it: K treatments; pi is clipped from below at
    ``floor``, instead of 1e-6 added.

    Shapes: density (B, K), of treatment and dose given the user; returns ().
    """
    predicted = received(outputs.outcome, rows.treatment)
    if kind == "binary":
        predicted = torch.sigmoid(predicted)
    fluctuation = received(outputs.targeting, rows.treatment) / received(density, rows.treatment).clamp_min(floor)
    return weighted_mean((rows.outcome - predicted - fluctuation) ** 2, rows.weight)

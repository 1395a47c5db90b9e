"""The plans of TARNet and CFR."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from models.uplift.heads import OutcomeHead
from models.uplift.tarnet import RepresentationOutputs, TARNet
from training.objectives.balance import Balance, imbalance
from training.objectives.factual import arm_weights, factual_loss, kernel_penalty, parameters_of
from training.objectives.propensity import propensity_stage, scheduled
from training.objectives.settings import PropensitySchedule, Schedule
from training.uplift.plan import Phase, Plan, Stage
from training.uplift.rows import UpliftRows


class TARNetSettings(Schedule):
    """Factual loss, each arm by its own head.

    Attributes:
        reweight: every arm counts the same, however many rows it has.
        head_l2: penalty of the heads' squared kernels.
        representation_l2: penalty of the shared layers' squared kernels.
        noise: ``fixed`` takes the factual loss L as it is; ``learned`` takes L / s + log s with one s for all rows, the
            likelihood of a continuous outcome whose noise has an unknown variance. The penalties then weigh against
            what the features leave unexplained, not against the outcome's whole variance: where features say almost
            everything they weigh almost nothing.
        intercepts: a second stage fits the heads' last biases alone, to all training rows at once. Minibatches leave
            them where the last few rows pushed them, an error that all users share and no effect's average forgives.
        propensity: the stage of the propensity, which comes last and changes no outcome.
    """

    reweight: bool = False
    head_l2: NonNegativeFloat = 1e-4
    representation_l2: NonNegativeFloat = 0.0
    noise: Literal["fixed", "learned"] = "fixed"
    intercepts: bool = False
    propensity: PropensitySchedule = PropensitySchedule()


class CFRSettings(TARNetSettings):
    """TARNet's loss and a penalty of the distance between the treatments' representations.

    Attributes:
        alpha: weight of the penalty; 0 is TARNet.
        balance: ``mmd`` compares means, ``sinkhorn`` transports one sample to the other.
    """

    alpha: NonNegativeFloat = 1.0
    balance: Balance = "sinkhorn"


def noise_likelihood(loss: Tensor, log_variance: Tensor) -> Tensor:
    """L / s + log s: twice the negative log likelihood of Gaussian noise of variance s, up to a constant.

    Shapes: loss (), log_variance (); returns ().
    """
    return loss * torch.exp(-log_variance) + log_variance


def plan(network: TARNet, settings: TARNetSettings, train: UpliftRows) -> Plan:
    """The outcomes' stage, then the propensity's where the network has one.

    Raises:
        ValueError: if the noise of a binary outcome is to be learned.
    """
    arms = len(network.config.treatments)
    kind = network.config.outcome
    weights = arm_weights(train, arms) if settings.reweight else None
    if settings.noise == "learned" and kind == "binary":
        raise ValueError("noise must be fixed for a binary outcome, got 'learned'")
    log_variance = nn.Parameter(torch.zeros(()))

    def outputs(rows: UpliftRows) -> RepresentationOutputs:
        return network.training_outputs(*rows.inputs)

    def validation(rows: UpliftRows) -> Tensor:
        return factual_loss(outputs(rows).outcome, rows, kind, weights)

    def loss(rows: UpliftRows) -> Tensor:
        found = outputs(rows)
        total = factual_loss(found.outcome, rows, kind, weights)
        if settings.noise == "learned":
            total = noise_likelihood(total, log_variance)
        if settings.head_l2 > 0:
            total = total + settings.head_l2 * kernel_penalty(network.heads)
        if settings.representation_l2 > 0:
            total = total + settings.representation_l2 * kernel_penalty(network.representation)
        if isinstance(settings, CFRSettings) and settings.alpha > 0:
            balance = imbalance(found.representation, rows.treatment, arms, settings.balance)
            total = total + settings.alpha * balance
        return total

    parts = parameters_of([network.encoder, network.representation, network.heads])
    if settings.noise == "learned":
        parts = (*parts, log_variance)
    stages = [scheduled("outcome", Phase(name="outcome", parameters=parts, loss=loss), validation, settings)]
    if settings.intercepts:
        stages.append(_intercept_stage(network, train))
    if network.config.propensity == "estimated":
        stages.append(
            propensity_stage(network.propensity, lambda rows: outputs(rows).propensity_logits, settings.propensity)
        )
    return Plan(tuple(stages))


def _intercept_stage(network: TARNet, train: UpliftRows) -> Stage:
    """Full gradient steps on one number a head, with every arm counting the same so that all converge alike."""
    config = network.config
    weights = arm_weights(train, len(config.treatments))
    biases: list[nn.Parameter] = []
    for head in network.heads.heads:
        if isinstance(head, OutcomeHead) and head.output.bias is not None:
            biases.append(head.output.bias)

    def loss(rows: UpliftRows) -> Tensor:
        return factual_loss(network.training_outputs(*rows.inputs).outcome, rows, config.outcome, weights)

    phase = Phase(name="intercepts", parameters=tuple(biases), loss=loss, optimizer="sgd", learning_rate=0.5)
    return Stage(name="intercepts", phases=(phase,), validation=None, epochs=60, batch_size=0)

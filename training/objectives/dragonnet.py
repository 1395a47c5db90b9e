"""The plan of DragonNet: Adam until the validation loss stops falling, then SGD with small steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from models.uplift.dragonnet import DragonNet
from training.objectives.factual import factual_loss, kernel_penalty, parameters_of
from training.objectives.propensity import propensity_loss, scheduled
from training.objectives.settings import Schedule
from training.objectives.targeted import targeted_loss
from training.uplift.plan import Phase, Plan
from training.uplift.rows import UpliftRows


class FineTuning(Schedule):
    """The second stage.

    The learning rate is the authors' 1e-5 for losses summed over 64 rows, here for their mean.

    Attributes:
        momentum: Nesterov's.
        enabled: whether there is such a stage.
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "sgd"
    learning_rate: PositiveFloat = 6.4e-4
    batch_size: NonNegativeInt = 64
    epochs: PositiveInt = 300
    patience: NonNegativeInt = 40
    schedule: Literal["constant", "plateau"] = "plateau"
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    enabled: bool = True


class DragonNetSettings(Schedule):
    """Factual loss, propensity loss and targeted regularisation, all of one step.

    Attributes:
        alpha: weight of the propensity's loss.
        beta: weight of the targeted regularisation; 0 leaves epsilon at 0.
        squeeze: keeps the propensity's logarithm finite: g' = (g + c) / (1 + K c).
        head_l2: penalty of the heads' squared kernels; the authors' 0.01 for losses summed over 64 rows.
        fine_tuning: the second stage.
    """

    batch_size: NonNegativeInt = 64
    epochs: PositiveInt = 100
    patience: NonNegativeInt = 10
    schedule: Literal["constant", "plateau"] = "plateau"
    alpha: NonNegativeFloat = 1.0
    beta: NonNegativeFloat = 1.0
    squeeze: NonNegativeFloat = 0.001
    head_l2: NonNegativeFloat = 1.5e-4
    fine_tuning: FineTuning = FineTuning()


def plan(network: DragonNet, settings: DragonNetSettings, train: UpliftRows) -> Plan:
    """Two stages over the same loss; the better validation of each is what the next one starts from."""
    kind = network.config.outcome

    def validation(rows: UpliftRows) -> Tensor:
        found = network.training_outputs(*rows.inputs)
        return factual_loss(found.targeted if settings.beta > 0 else found.outcome, rows, kind)

    def loss(rows: UpliftRows) -> Tensor:
        found = network.training_outputs(*rows.inputs)
        total = factual_loss(found.outcome, rows, kind)
        if settings.alpha > 0:
            total = total + settings.alpha * propensity_loss(found.propensity_logits, rows, settings.squeeze)
        if settings.beta > 0:
            total = total + settings.beta * targeted_loss(found.targeted, rows, kind)
        if settings.head_l2 > 0:
            total = total + settings.head_l2 * kernel_penalty(network.heads)
        return total

    parameters = parameters_of([network])
    if settings.beta == 0:
        parameters = tuple(parameter for parameter in parameters if parameter is not network.epsilon)
    stages = [scheduled("adam", Phase(name="all", parameters=parameters, loss=loss), validation, settings)]
    tuning = settings.fine_tuning
    if tuning.enabled:
        phase = Phase(name="all", parameters=parameters, loss=loss, momentum=tuning.momentum)
        stages.append(scheduled("sgd", phase, validation, tuning))
    return Plan(tuple(stages))

"""Losses of the treatment that was received."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.objectives.factual import parameters_of, received, weighted_mean
from training.objectives.settings import Schedule
from training.uplift.plan import Phase, Stage
from training.uplift.rows import UpliftRows


def propensity_loss(logits: Tensor, rows: UpliftRows, squeeze: float = 0.0) -> Tensor:
    """- mean v log g'_t(x), with g' = (g + c) / (1 + K c) and c = ``squeeze``.

    Shapes: logits (B, K); returns ().
    """
    if squeeze == 0.0:
        losses = functional.cross_entropy(logits, rows.treatment, reduction="none")
    else:
        losses = -torch.log(received(squeezed(torch.softmax(logits, -1), squeeze), rows.treatment))
    return weighted_mean(losses, rows.weight)


def squeezed(propensity: Tensor, squeeze: float) -> Tensor:
    """(g + c) / (1 + K c): still sums to 1 and is nowhere 0.

    Shapes: propensity (B, K); returns (B, K).
    """
    return (propensity + squeeze) / (1.0 + squeeze * propensity.size(-1))


def propensity_stage(
    network: nn.Module, logits: Callable[[UpliftRows], Tensor], schedule: Schedule, name: str = "propensity"
) -> Stage:
    """The stage that trains a propensity network alone.

    Args:
        network: whose parameters are trained; everything else holds still.
        logits: of a batch, (B, K).
        schedule: of the stage.
        name: in logs.
    """

    def loss(rows: UpliftRows) -> Tensor:
        return propensity_loss(logits(rows), rows)

    return scheduled(name, Phase(name=name, parameters=parameters_of([network]), loss=loss), loss, schedule)


def scheduled(name: str, phase: Phase, validation: Callable[[UpliftRows], Tensor] | None, schedule: Schedule) -> Stage:
    """A stage of one phase under a schedule.

    Args:
        name: in logs.
        phase: its parameters and loss; the optimiser's options come from the schedule.
        validation: as ``Stage``.
        schedule: of the stage.
    """
    phase = Phase(
        name=phase.name,
        parameters=phase.parameters,
        loss=phase.loss,
        arm=phase.arm,
        optimizer=schedule.optimizer,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        momentum=phase.momentum,
    )
    return Stage(
        name=name,
        phases=(phase,),
        validation=validation,
        epochs=schedule.epochs,
        batch_size=schedule.batch_size,
        patience=schedule.patience,
        schedule=schedule.schedule,
        gradient_clip=schedule.gradient_clip,
    )

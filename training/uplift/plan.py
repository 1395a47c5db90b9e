"""What training a network means: stages one after another, each of one phase or of phases that take turns.

A plan says everything that differs between the papers' schedules, so that one loop carries all of them out:

    TARNet      one stage, one phase
    DragonNet   a stage with Adam, then one with SGD, over the same parameters
    DCN-PD      the propensity network; then the arms' phases, taking turns by epoch
    VCNet       the network and the targeting curve, taking turns by step
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.uplift.rows import UpliftRows

Loss = Callable[[UpliftRows], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One optimiser over some of the parameters. Everything else holds still while the phase runs.

    Attributes:
        name: in logs.
        parameters: the phase's own; a parameter may belong to several phases.
        loss: of a minibatch, a scalar; it runs with the network in train mode.
        arm: the phase sees only this arm's rows; None sees all.
        optimizer: a fresh one is made for every stage.
        learning_rate, weight_decay, momentum: of the optimiser; momentum is Nesterov's and for SGD alone.
    """

    name: str
    parameters: tuple[nn.Parameter, ...]
    loss: Loss
    arm: int | None = None
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Epochs of one or more phases, until they are over or the validation loss has stopped falling.

    The weights of the best validation are put back when the stage ends. Validation is looked at when every phase has
    had its turn, never in the middle of a cycle.

    Attributes:
        name: in logs.
        phases: taking turns ``by`` epoch or by step; one phase has every turn.
        validation: factual loss on the validation rows, network in eval mode; None keeps the last weights.
        epochs: most epochs; with turns by epoch this counts every phase's.
        batch_size: rows a step; 0 is the whole split at once.
        patience: validations without a better one that are waited for; 0 waits for ever.
        schedule: ``plateau`` halves the learning rate after ``plateau`` validations without a better one.
    """

    name: str
    phases: tuple[Phase, ...]
    validation: Loss | None
    epochs: int
    batch_size: int = 128
    by: Literal["epoch", "step"] = "epoch"
    patience: int = 10
    schedule: Literal["constant", "plateau"] = "constant"
    plateau: int = 5
    gradient_clip: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of one training, in order."""

    stages: tuple[Stage, ...]

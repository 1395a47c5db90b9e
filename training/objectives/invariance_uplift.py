"""A plan for treatment effects, trained across environments: the same stages, their losses wrapped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.uplift.inputs import OutcomeKind
from training.objectives.environment_loss import EnvironmentLoss
from training.objectives.factual import received
from training.objectives.invariance import environment_means, penalised, row_gradients, row_losses
from training.objectives.invariance_settings import InvarianceSection
from training.uplift.plan import Loss, Plan, Stage
from training.uplift.rows import UpliftRows

# The stages that fit the outcome; those of the propensity have no environment to be invariant across.
OUTCOME_STAGE: Final = "outcome"

Predict = Callable[[UpliftRows], Tensor]


class InvariantLoss:
    """A loss over rows, made the objective over their environments.

    Rows are weighted anew so that the wrapped loss, a weighted mean over rows, is the mean over environments (for
    GroupDRO its weighted mean); what else it holds, such as a penalty of kernels, stays as it is. The penalty of IRM
    has one scale for each arm's output: the gradient of R_e by the scale of arm k is a mean over all rows of e, 0 for
    the rows of other arms.

    Args:
        loss: of a minibatch; must be a mean that ``rows.weight`` weighs.
        predict: outcomes of a minibatch, (B, K), logits where the outcome is binary.
        outcome: kind of the outcome.
        objective: shared by all stages of a plan.
        penalty_weight: lambda of this stage.
    """

    def __init__(
        self, loss: Loss, predict: Predict, outcome: OutcomeKind, objective: EnvironmentLoss, penalty_weight: float
    ) -> None:
        self.loss = loss
        self.predict = predict
        self.outcome = outcome
        self.objective = objective
        self.penalty_weight = penalty_weight
        self._last: dict[str, Any] = {}

    def __call__(self, rows: UpliftRows) -> Tensor:
        """(R + lambda P), divided by lambda once it is above 1; ()."""
        weights = rows.weight[:, None]
        predicted = self.predict(rows)
        factual = received(predicted, rows.treatment)
        losses = row_losses(factual, rows.outcome, self.outcome)[:, None]
        risks = environment_means(losses, weights, rows.environment, self.objective.count)[:, 0]
        own = nn.functional.one_hot(rows.treatment, predicted.shape[1]).to(predicted.dtype)
        gradients = row_gradients(factual, rows.outcome, self.outcome)[:, None] * own
        penalty = self.objective.penalty(risks, gradients, weights.expand_as(gradients), rows.environment)
        shares = self.objective.shares(risks, active=self.penalty_weight > 0)
        risk = self.loss(replace(rows, weight=environment_weights(rows, shares)))
        self._last = {
            "penalty": float(penalty.detach()),
            "penalty_weight": self.penalty_weight,
            "risks": risks.detach().tolist(),
        }
        return penalised(risk, penalty, self.penalty_weight)

    def log_line(self) -> dict[str, Any]:
        """Penalty, its weight and the risks by environment of the last step."""
        return self._last

    def state_dict(self) -> dict[str, Any]:
        """What a resumed fit must know."""
        return self.objective.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        self.objective.load_state_dict(state)


def environment_weights(rows: UpliftRows, shares: Tensor) -> Tensor:
    """Row weights under which each environment weighs its share; the sum of all weights does not change.

    Shapes: shares (E,), sum 1; returns (B,).
    """
    weight = torch.zeros_like(shares, dtype=rows.weight.dtype).index_add(0, rows.environment, rows.weight)
    factor = shares.to(weight) * rows.weight.sum() / weight.clamp_min(torch.finfo(weight.dtype).tiny)
    return rows.weight * factor[rows.environment]


def invariant_plan(network: nn.Module, plan: Plan, section: InvarianceSection, train: UpliftRows) -> Plan:
    """The plan with every outcome stage trained across environments.

    The stage becomes up to three, each with an optimiser of its own, which is the reset that the switch of the penalty
    asks for: the warm start (lambda 0), the annealing (lambda 1), and the stage itself with lambda_max, the only one
    that validates. Steps of the section become whole epochs, rounded up.

    Raises:
        ValueError: if the rows are of one environment, or the plan has no outcome stage of all arms at once.
    """
    config = getattr(network, "config", None)
    if config is None or config.doses or not any(_is_outcome(stage) for stage in plan.stages):
        raise ValueError(
            "invariance needs a network whose outcome of all arms is fitted at once, without doses or members"
        )

    def predict(rows: UpliftRows) -> Tensor:
        outcome: Tensor = network(*rows.inputs)[0]
        return outcome

    count = int(train.environment.max()) + 1 if len(train) else 0
    stages: list[Stage] = []
    for stage in plan.stages:
        if not _is_outcome(stage):
            stages.append(stage)
            continue
        full_batch = stage.batch_size == 0 or len(train) <= stage.batch_size
        steps = 1 if full_batch else -(-len(train) // stage.batch_size)
        objective = EnvironmentLoss(section, count, full_batch=full_batch)
        for name, first, last in _spans(section):
            wrapped = _wrapped(stage, predict, config.outcome, objective, section.penalty_weight(first))
            if last is None:
                stages.append(wrapped)
            else:
                epochs = math.ceil((last - first) / steps)
                stages.append(
                    replace(
                        wrapped,
                        name=f"{stage.name}, {name}",
                        validation=None,
                        epochs=epochs,
                        patience=0,
                        schedule="constant",
                    )
                )
    return Plan(tuple(stages))


def _is_outcome(stage: Stage) -> bool:
    return stage.name == OUTCOME_STAGE and len(stage.phases) == 1 and stage.phases[0].arm is None


def _spans(section: InvarianceSection) -> list[tuple[str, int, int | None]]:
    """Name, first step and end of what comes before the objective is in force, then the objective itself."""
    if section.first_step == 0:
        return [("erm", 0, None)]
    spans: list[tuple[str, int, int | None]] = [("warm start", 0, section.warm_start)]
    if section.first_step > section.warm_start:
        spans.append(("annealing", section.warm_start, section.first_step))
    return [*spans, ("", section.first_step, None)]


def _wrapped(
    stage: Stage, predict: Predict, outcome: OutcomeKind, objective: EnvironmentLoss, penalty_weight: float
) -> Stage:
    phase = stage.phases[0]
    decay = phase.weight_decay
    # A decay that goes through the gradient is part of the loss and is divided by lambda with it; AdamW's is not.
    if phase.optimizer != "adamw" and objective.section.has_penalty:
        decay /= max(1.0, penalty_weight)
    loss = InvariantLoss(phase.loss, predict, outcome, objective, penalty_weight)
    return replace(stage, phases=(replace(phase, loss=loss, weight_decay=decay),))

"""The plans of the S-, T-, X- and DR-learner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor, nn

from models.uplift.inputs import OutcomeKind
from models.uplift.learners import UserPropensity
from models.uplift.meta_learners import DRLearner, SLearner, TLearner, XLearner
from training.objectives.factual import (
    absolute_kernels,
    arm_weights,
    factual_loss,
    kernel_penalty,
    parameters_of,
    weighted_mean,
)
from training.objectives.folds import row_folds
from training.objectives.propensity import propensity_stage, scheduled
from training.objectives.settings import PropensitySchedule, Schedule
from training.uplift.plan import Loss, Phase, Plan, Stage
from training.uplift.rows import UpliftRows


class LearnerSchedule(Schedule):
    """How long and how fast one regression of a learner learns, and which of its weights it keeps.

    Attributes:
        keep: ``best`` puts the weights of the lowest validation loss back, ``last`` takes them as they are after all
            epochs: where rows are few or noisy, the validation loss chooses an epoch by chance.

    Raises:
        ValueError: if a schedule or patience is to follow a validation loss that ``last`` does not look at.
    """

    keep: Literal["best", "last"] = "best"

    @model_validator(mode="after")
    def _check_keep(self) -> LearnerSchedule:
        if self.keep == "last" and (self.schedule == "plateau" or self.patience > 0):
            raise ValueError("keep 'last' looks at no validation loss: patience must be 0 and schedule constant")
        return self


class LearnerSettings(LearnerSchedule):
    """Factual loss of each regression.

    Attributes:
        l2: penalty of the squared kernels of every network that is being trained.
        reweight: every arm counts the same in the S-learner's loss, however many rows it has.
        propensity: the stage of the propensity.
    """

    l2: NonNegativeFloat = 1e-4
    reweight: bool = False
    propensity: PropensitySchedule = PropensitySchedule()


class EffectSchedule(LearnerSchedule):
    """The stage of an effect network.

    Attributes:
        l2: penalty of its squared kernels.
        l1: penalty of their absolute values; with linear effects it leaves few features in.
    """

    l2: NonNegativeFloat = 1e-4
    l1: NonNegativeFloat = 0.0


class XLearnerSettings(LearnerSettings):
    """The outcomes' stages as in the T-learner, then the effects'."""

    effects: EffectSchedule = EffectSchedule()


class DRLearnerSettings(LearnerSettings):
    """The outcomes' and propensities' stages a fold, then the effects'.

    Attributes:
        effects: the last stages.
        clip: lowest and highest propensity that a score divides by.
    """

    effects: EffectSchedule = EffectSchedule()
    clip: tuple[float, float] = Field(default=(0.01, 0.99))

    @model_validator(mode="after")
    def _check_clip(self) -> DRLearnerSettings:
        if not 0.0 < self.clip[0] < self.clip[1] <= 1.0:
            raise ValueError(f"clip must be two rising numbers in (0, 1], got {self.clip}")
        return self


def plan_s(network: SLearner, settings: LearnerSettings, train: UpliftRows) -> Plan:
    """One stage for all outcomes, one for the propensity."""
    kind = network.config.outcome
    weights = arm_weights(train, len(network.config.treatments)) if settings.reweight else None
    parts = [network.encoder, network.hidden, network.output]

    def validation(rows: UpliftRows) -> Tensor:
        return factual_loss(network.training_outputs(*rows.inputs).outcome, rows, kind, weights)

    stages = [_stage("outcome", parts, validation, settings, settings.l2)]
    return Plan((*stages, *_propensity(network.propensity, settings)))


def plan_t(network: TLearner, settings: LearnerSettings, train: UpliftRows) -> Plan:
    """One stage a treatment over its own rows, one for the propensity."""
    stages = _outcome_stages(network, settings, network.config.outcome)
    return Plan((*stages, *_propensity(network.propensity, settings)))


def plan_x(network: XLearner, settings: XLearnerSettings, train: UpliftRows) -> Plan:
    """The T-learner's stages, then two for each treatment but the control."""
    kind = network.config.outcome
    stages = [
        *_outcome_stages(network, settings, kind),
        *_propensity(network.propensity, settings),
    ]
    for k, name in enumerate(network.config.treatments[1:], start=1):
        for received, other, module in ((k, 0, network.of_treated[k - 1]), (0, k, network.of_controls[k - 1])):
            imputed = _imputed_effect_loss(network, module, received, other)
            label = f"effect of {name} on {network.config.treatments[received]} rows"
            stages.append(_effect_stage(label, module, imputed, settings.effects, received))
    return Plan(tuple(stages))


def plan_dr(network: DRLearner, settings: DRLearnerSettings, train: UpliftRows) -> Plan:
    """A T-learner a fold on the rows outside of it, then one effect stage for each treatment but the control."""
    kind = network.config.outcome
    stages: list[Stage] = []
    folds = len(network.folds)
    _check_folds(train, folds, len(network.config.treatments))
    for fold, learner in enumerate(network.folds):
        if not isinstance(learner, TLearner):
            raise TypeError(f"fold {fold} of a DR-learner must be a TLearner, got {type(learner).__name__}")
        label = f"fold {fold + 1}: " if folds > 1 else ""
        own = [*_outcome_stages(learner, settings, kind), *_propensity(learner.propensity, settings)]
        stages.extend(_outside(stage, label, fold, folds) for stage in own)
    for k, name in enumerate(network.config.treatments[1:], start=1):
        scored = _scored_effect_loss(network, k, settings.clip)
        stages.append(_effect_stage(f"effect of {name}", network.effects[k - 1], scored, settings.effects))
    return Plan(tuple(stages))


def doubly_robust_scores(
    outcome: Tensor, propensity: Tensor, rows: UpliftRows, arm: int, clip: tuple[float, float]
) -> Tensor:
    """mu_k - mu_0 + 1[t=k] (y - mu_k) / g_k - 1[t=0] (y - mu_0) / g_0, with g clipped.

    Source: Kennedy 2023, arXiv:2004.14497.

    Shapes: outcome, propensity (B, K), the former on the outcome's own scale (probabilities if binary); returns (B,).
    """
    bounded = propensity.clamp(clip[0], clip[1])
    of_arm = (rows.treatment == arm).to(outcome.dtype) * (rows.outcome - outcome[:, arm]) / bounded[:, arm]
    of_control = (rows.treatment == 0).to(outcome.dtype) * (rows.outcome - outcome[:, 0]) / bounded[:, 0]
    return outcome[:, arm] - outcome[:, 0] + of_arm - of_control


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Run a module as it answers, without dropout or gradients, and put its mode back."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


def _stage(
    name: str, modules: Sequence[nn.Module], loss: Loss, schedule: Schedule, l2: float, arm: int | None = None
) -> Stage:
    """A stage of one loss; the penalty is no part of its validation."""

    def penalised(rows: UpliftRows) -> Tensor:
        total = loss(rows)
        return total + l2 * torch.stack([kernel_penalty(module) for module in modules]).sum() if l2 > 0 else total

    phase = Phase(name=name, parameters=parameters_of(modules), loss=penalised, arm=arm)
    keeps_last = isinstance(schedule, LearnerSchedule) and schedule.keep == "last"
    return scheduled(name, phase, None if keeps_last else loss, schedule)


def _effect_stage(name: str, module: nn.Module, loss: Loss, schedule: EffectSchedule, arm: int | None = None) -> Stage:
    stage = _stage(name, [module], loss, schedule, schedule.l2, arm)
    if schedule.l1 == 0:
        return stage
    (phase,) = stage.phases

    def sparse(rows: UpliftRows) -> Tensor:
        return phase.loss(rows) + schedule.l1 * absolute_kernels(module)

    return replace(stage, phases=(replace(phase, loss=sparse),))


def _propensity(network: nn.Module, settings: LearnerSettings) -> tuple[Stage, ...]:
    if not isinstance(network, UserPropensity):
        return ()

    def logits(rows: UpliftRows) -> Tensor:
        found: Tensor = network(*rows.inputs)
        return found

    return (propensity_stage(network, logits, settings.propensity),)


def _outside(stage: Stage, label: str, fold: int, folds: int) -> Stage:
    """The stage without the rows of a fold; validation rows are nobody's training rows and all stay."""
    if folds == 1:
        return stage
    phases = tuple(replace(phase, loss=_without_fold(phase.loss, fold, folds)) for phase in stage.phases)
    return replace(stage, name=f"{label}{stage.name}", phases=phases)


def _without_fold(loss: Loss, fold: int, folds: int) -> Loss:
    return lambda rows: loss(rows.take(row_folds(rows, folds) != fold))


def _check_folds(rows: UpliftRows, folds: int, treatments: int) -> None:
    """Every fold's networks need rows of every arm that there is."""
    own = row_folds(rows, folds)
    seen = rows.counts(treatments) > 0
    for fold in range(folds if folds > 1 else 0):
        outside = rows.take(own != fold).counts(treatments) > 0
        if bool((seen & ~outside).any()):
            arm = int((seen & ~outside).nonzero()[0, 0])
            raise ValueError(
                f"folds must leave rows of every treatment to learn from, got {folds}: fold {fold + 1} holds all rows "
                f"of treatment {arm}; users with equal features are in one fold"
            )


def _outcome_stages(network: TLearner | XLearner, settings: LearnerSettings, kind: OutcomeKind) -> list[Stage]:
    stages = []
    for arm, name in enumerate(network.config.treatments):
        module = network.outcomes[arm]
        stages.append(_stage(f"outcome of {name}", [module], _arm_loss(module, arm, kind), settings, settings.l2, arm))
    return stages


def _arm_loss(module: nn.Module, arm: int, kind: OutcomeKind) -> Loss:
    def loss(rows: UpliftRows) -> Tensor:
        own = rows.arm(arm)
        every: Tensor = module(*own.inputs)
        alone = replace(own, treatment=torch.zeros_like(own.treatment))
        return factual_loss(every, alone, kind)

    return loss


def _imputed_effect_loss(network: XLearner, module: nn.Module, received: int, other: int) -> Loss:
    """Squared error against y - mu_0 on treated rows and mu_k - y on the control's."""

    def loss(rows: UpliftRows) -> Tensor:
        own = rows.arm(received)
        with evaluating(network.outcomes[other]):
            imputed = network.outcomes[other](*own.inputs)[:, 0]
        if network.binary:
            imputed = torch.sigmoid(imputed)
        target = own.outcome - imputed if other == 0 else imputed - own.outcome
        return weighted_mean((module(*own.inputs)[:, 0] - target) ** 2, own.weight)

    return loss


def _scored_effect_loss(network: DRLearner, arm: int, clip: tuple[float, float]) -> Loss:
    """Squared error against the doubly robust scores of the networks that did not see the row."""

    def loss(rows: UpliftRows) -> Tensor:
        with evaluating(network.folds):
            found = [fold(*rows.inputs) for fold in network.folds]
        own = row_folds(rows, len(found)).view(1, -1, 1).expand(1, -1, found[0][0].size(1))
        outcome = torch.stack([pair[0] for pair in found]).gather(0, own)[0]
        logits = torch.stack([pair[1] for pair in found]).gather(0, own)[0]
        if network.binary:
            outcome = torch.sigmoid(outcome)
        scores = doubly_robust_scores(outcome, torch.softmax(logits, -1), rows, arm, clip)
        return weighted_mean((network.effects[arm - 1](*rows.inputs)[:, 0] - scores) ** 2, rows.weight)

    return loss

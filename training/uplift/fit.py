"""Carrying out a plan: stage by stage, epoch by epoch, the same weights from the same seed.

Everything random in an epoch (order of the rows, dropout) is drawn from a seed made of (seed, stage, epoch). So a fit
that goes on from the end of some epoch needs no generator's state, and ends with the weights it would have had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from training.environments import environment_batches
from training.errors import Diverged
from training.uplift.plan import Loss, Phase, Plan, Stage
from training.uplift.rows import UpliftRows
from training.uplift.standing import Checkpoint, FitReport, RemembersSteps, SaysMore, StageReport, Standing, State
from training.uplift.weights import Weights

Log = Callable[[Mapping[str, Any]], None]
# Odd multipliers far apart: neighbouring seeds, stages and epochs must not share a stream.
_SEED_STEPS: Final = (1_000_003, 10_007)


def fit_plan(
    network: nn.Module,
    plan: Plan,
    train: UpliftRows,
    valid: UpliftRows,
    *,
    seed: int,
    log: Log | None = None,
    checkpoint: Checkpoint | None = None,
) -> FitReport:
    """Train a network as its plan says; it is left in eval mode with the weights that the stages kept.

    With turns by step every minibatch is given to each phase in turn (a phase of one arm sees the batch's rows of that
    arm); with turns by epoch every epoch is one phase's. A cycle of turns that was begun is ended: one that would
    pass ``stage.epochs`` is not begun, except for the first.

    Args:
        network: with its initial weights.
        plan: its parameters may lie outside the network too; they are trained and restored like the others.
        train: rows to fit.
        valid: rows for the stages' validation losses, never stepped on.
        seed: of the rows' order and of dropout; torch's global generator is left as it was.
        log: told about every epoch and validation, as the lines of ``metrics.jsonl``.
        checkpoint: makes the fit resumable.

    Raises:
        ValueError: if the plan cannot be carried out on these rows.
        Diverged: if a training or validation loss is not a finite number.
    """
    return PlanFit(network, plan, train, valid, seed, log or _silent).run(checkpoint)


class PlanFit:
    """One fit in progress: the weights, the stage's optimisers and the standing."""

    def __init__(
        self, network: nn.Module, plan: Plan, train: UpliftRows, valid: UpliftRows, seed: int, log: Log
    ) -> None:
        for stage in plan.stages:
            _check_stage(stage, train, valid)
        self.plan = plan
        self.weights = Weights(network, plan)
        self.train, self.valid = train, valid
        self.seed = seed
        self.log = log
        self.standing = Standing()
        self.optimizers: list[torch.optim.Optimizer] = []
        self.kept: State | None = None

    def run(self, checkpoint: Checkpoint | None) -> FitReport:
        """Every stage that is not over yet."""
        restored = checkpoint.restore() if checkpoint is not None else None
        if restored is not None:
            self.load_state(restored)
        elif self.plan.stages:
            self.optimizers = [_optimizer(phase) for phase in self.plan.stages[0].phases]
        started = time.perf_counter() - self.standing.seconds
        self.weights.network.train()
        while self.standing.stage < len(self.plan.stages):
            stage = self.plan.stages[self.standing.stage]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._epoch_seed())
                self.run_epoch(stage)
            self.standing.seconds = time.perf_counter() - started
            if self.standing.epoch % _cycle(stage) == 0:
                self.validate(stage)
                if self._is_over(stage):
                    self.finish_stage(stage)
            if checkpoint is not None:
                checkpoint.save(self.standing.step, self.state)
        self.weights.network.eval()
        reports = tuple(StageReport(**report) for report in self.standing.reports)
        return FitReport(reports, self.standing.step, self.standing.seconds)

    def run_epoch(self, stage: Stage) -> None:
        """One pass over the rows of the epoch's phase, or over all rows where phases take turns by step."""
        standing = self.standing
        loss_sum, rows_seen, phase = 0.0, 0, stage.phases[0]
        for number, batch in self._turns(stage):
            phase = stage.phases[number]
            loss_sum += self._step(stage, phase, self.optimizers[number], batch) * len(batch)
            rows_seen += len(batch)
        standing.epoch += 1
        if rows_seen:  # an arm may be missing where the configuration allows it; its phase then has nothing to say
            self.log(
                {
                    **self._line("epoch", stage),
                    "phase": phase.name if stage.by == "epoch" else "all",
                    "loss": loss_sum / rows_seen,
                    "rows": rows_seen,
                    "learning_rate": phase.learning_rate * standing.rate,
                    **(phase.loss.log_line() if isinstance(phase.loss, SaysMore) else {}),
                }
            )

    def _step(self, stage: Stage, phase: Phase, optimizer: torch.optim.Optimizer, batch: UpliftRows) -> float:
        with self.weights.only(phase):
            loss = phase.loss(batch)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise Diverged(
                    f"the loss of stage {stage.name}, phase {phase.name} is {value} in epoch "
                    f"{self.standing.epoch + 1}: lower objective.learning_rate"
                )
            if loss.requires_grad:  # a batch without a row that the loss looks at has nothing to teach
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                if stage.gradient_clip > 0:
                    nn.utils.clip_grad_norm_(phase.parameters, stage.gradient_clip)
                optimizer.step()
                # Shared parameters must not carry this phase's gradient into another phase's step.
                optimizer.zero_grad(set_to_none=True)
        self.standing.step += 1
        return value

    def _turns(self, stage: Stage) -> Iterator[tuple[int, UpliftRows]]:
        """Number of the phase and its minibatch, for every step of the epoch."""
        if stage.by == "epoch":
            number = self.standing.epoch % len(stage.phases)
            arm = stage.phases[number].arm
            rows = self.train if arm is None else self.train.arm(arm)
            yield from ((number, batch) for batch in self._batches(rows, stage.batch_size))
            return
        for batch in self._batches(self.train, stage.batch_size):
            for number, phase in enumerate(stage.phases):
                own = batch if phase.arm is None else batch.arm(phase.arm)
                if len(own):
                    yield number, own

    def _batches(self, rows: UpliftRows, batch_size: int) -> Iterator[UpliftRows]:
        """The rows in the epoch's order, in minibatches; 0 is all at once.

        Where all arms are seen together and rows have environments, every minibatch holds rows of each environment.
        """
        if batch_size == 0 or len(rows) <= batch_size:
            if len(rows):
                yield rows
            return
        if rows is self.train and int(rows.environment.max()) > 0:
            generator = np.random.default_rng(self._epoch_seed())
            for indices in environment_batches(rows.environment.numpy(), batch_size, generator):
                yield rows.take(torch.from_numpy(indices))
            return
        order: Tensor = torch.randperm(len(rows))
        for first in range(0, len(order), batch_size):
            yield rows.take(order[first : first + batch_size])

    def validate(self, stage: Stage) -> None:
        """Look at the validation loss; keep the weights if it is the lowest so far."""
        if stage.validation is None:
            return
        standing = self.standing
        value = self._validation_loss(stage.validation)
        if not math.isfinite(value):
            raise Diverged(f"the validation loss of stage {stage.name} is {value} after epoch {standing.epoch}")
        best = standing.best is None or value < standing.best
        if best:
            standing.best, standing.best_epoch, standing.stale = value, standing.epoch, 0
            self.kept = self.weights.copied()
        else:
            standing.stale += 1
            if stage.schedule == "plateau" and standing.stale % stage.plateau == 0:
                standing.rate /= 2
                self._set_rates(stage)
        self.log({**self._line("validation", stage), "valid": value, "best": best})

    @torch.no_grad()
    def _validation_loss(self, loss: Loss) -> float:
        self.weights.network.eval()
        value = float(loss(self.valid))
        self.weights.network.train()
        return value

    def _is_over(self, stage: Stage) -> bool:
        standing = self.standing
        out_of_patience = 0 < stage.patience <= standing.stale
        return out_of_patience or standing.epoch + _cycle(stage) > stage.epochs

    def finish_stage(self, stage: Stage) -> None:
        """Put the best weights back, and begin the next stage with optimisers of its own."""
        standing = self.standing
        if self.kept is not None:
            self.weights.put_back(self.kept)
        report = StageReport(
            name=stage.name,
            epochs=standing.epoch,
            best_epoch=standing.best_epoch if standing.best is not None else standing.epoch,
            best=standing.best,
            stopped_early=0 < stage.patience <= standing.stale,
        )
        self.log({**self._line("stage", stage), **asdict(report)})
        self.standing = Standing(
            stage=standing.stage + 1,
            step=standing.step,
            seconds=standing.seconds,
            reports=[*standing.reports, asdict(report)],
        )
        self.kept = None
        following = self.plan.stages[self.standing.stage : self.standing.stage + 1]
        self.optimizers = [_optimizer(phase) for stage in following for phase in stage.phases]

    def state(self) -> State:
        """Tensors and plain values from which ``load_state`` goes on."""
        return {
            "standing": asdict(self.standing),
            "weights": self.weights.copied(),
            "kept": self.kept,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "losses": [loss.state_dict() for loss in self._remembering()],
        }

    def load_state(self, state: State) -> None:
        """Go back to what ``state`` gave."""
        self.standing = Standing(**state["standing"])
        self.weights.put_back(state["weights"])
        self.kept = state["kept"]
        current = self.plan.stages[self.standing.stage : self.standing.stage + 1]
        self.optimizers = [_optimizer(phase) for stage in current for phase in stage.phases]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for loss, remembered in zip(self._remembering(), state["losses"], strict=True):
            loss.load_state_dict(remembered)

    def _remembering(self) -> list[RemembersSteps]:
        """Losses of the stage in progress that have a state."""
        current = self.plan.stages[self.standing.stage : self.standing.stage + 1]
        losses: list[object] = [phase.loss for stage in current for phase in stage.phases]
        return [loss for loss in losses if isinstance(loss, RemembersSteps)]

    def _set_rates(self, stage: Stage) -> None:
        for phase, optimizer in zip(stage.phases, self.optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = phase.learning_rate * self.standing.rate

    def _epoch_seed(self) -> int:
        first, second = _SEED_STEPS
        return (self.seed * first + self.standing.stage) * second + self.standing.epoch

    def _line(self, kind: str, stage: Stage) -> dict[str, Any]:
        standing = self.standing
        return {
            "kind": kind,
            "stage": stage.name,
            "epoch": standing.epoch,
            "step": standing.step,
            "seconds": round(standing.seconds, 3),
        }


def _cycle(stage: Stage) -> int:
    """Epochs until every phase has had its turn."""
    return len(stage.phases) if stage.by == "epoch" else 1


def _optimizer(phase: Phase) -> torch.optim.Optimizer:
    members = list(phase.parameters)
    if phase.optimizer == "sgd":
        return torch.optim.SGD(
            members,
            lr=phase.learning_rate,
            momentum=phase.momentum,
            nesterov=phase.momentum > 0,
            weight_decay=phase.weight_decay,
            fused=True,
        )
    kind = torch.optim.AdamW if phase.optimizer == "adamw" else torch.optim.Adam
    return kind(members, lr=phase.learning_rate, weight_decay=phase.weight_decay, fused=True)


def _check_stage(stage: Stage, train: UpliftRows, valid: UpliftRows) -> None:
    if not stage.phases or any(not phase.parameters for phase in stage.phases):
        raise ValueError(f"stage {stage.name!r} must have phases with parameters")
    if stage.epochs < 1 or stage.batch_size < 0 or stage.plateau < 1:
        raise ValueError(
            f"stage {stage.name!r} must have epochs >= 1, batch_size >= 0 and plateau >= 1, got "
            f"{stage.epochs}, {stage.batch_size} and {stage.plateau}"
        )
    if not len(train):
        raise ValueError(f"stage {stage.name!r} needs training rows, got none")
    if stage.validation is not None and not len(valid):
        raise ValueError(f"stage {stage.name!r} needs validation rows, got none")


def _silent(line: Mapping[str, Any]) -> None:
    return None

"""[invariance] in the training loop of the click networks: the loss, the switch of the penalty, what is logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bundle.correct import sigmoid
from training.batches import Batch
from training.config import SamplingSection, TrainingConfig
from training.encoded import EncodedPart, predict_logits
from training.environments import Environments
from training.errors import ConfigError
from training.null_predictor import refuse_null_predictor
from training.objectives.environment_loss import EnvironmentLoss
from training.objectives.invariance import environment_means, penalised, row_gradients, row_losses
from training.objectives.invariance_settings import InvarianceSection


class Invariance:
    """The objective over environments, as the loop needs it.

    Args:
        section: of the configuration.
        environments: those of the training rows.
        steps: of the whole run.
        steps_per_epoch: one step an epoch means that every step sees all rows.
        processes: among which the rows of a step are divided.

    Raises:
        ConfigError: if the run ends before the objective is in force, or its rows are divided among processes.
    """

    def __init__(
        self, section: InvarianceSection, environments: Environments, steps: int, steps_per_epoch: int, processes: int
    ) -> None:
        if steps <= section.first_step:
            raise ConfigError(
                f"invariance.warm_start and anneal_iters take {section.first_step} steps and the run has {steps}: "
                "give it more epochs, or make them shorter"
            )
        if processes > 1:
            raise ConfigError("invariance needs the rows of every environment in one process, and there are several")
        self.section = section
        self.environments = environments
        self.objective = EnvironmentLoss(section, len(environments), full_batch=steps_per_epoch == 1)
        self._last: dict[str, Any] = {}

    def loss(self, logits: Tensor, batch: Batch, task_weights: Tensor, extra: Tensor, step: int) -> Tensor:
        """(R + extra + lambda P), divided by lambda once it is above 1.

        Shapes: logits (B, K); task_weights (K,); extra (), a loss that knows no environments; returns ().

        Raises:
            ValueError: if the batch does not say which environment its rows are of.
        """
        if batch.environments is None:
            raise ValueError("batch must carry the environments of its rows, got None")
        labels = torch.where(batch.weights > 0, batch.labels, torch.zeros_like(batch.labels))
        means = environment_means(
            row_losses(logits, labels, "binary"), batch.weights, batch.environments, self.objective.count
        )
        risks = (means * task_weights).sum(dim=1)
        gradients = row_gradients(logits, labels, "binary") * task_weights
        penalty_weight = self.section.penalty_weight(step)
        risk = (self.objective.shares(risks, active=penalty_weight > 0) * risks).sum()
        penalty = self.objective.penalty(risks, gradients, batch.weights, batch.environments)
        self._last = {
            "penalty": float(penalty.detach()),
            "penalty_weight": penalty_weight,
            "risks": dict(zip(self.environments.names, risks.detach().tolist(), strict=True)),
        }
        return penalised(risk + extra, penalty, penalty_weight)

    def switches_at(self, step: int) -> bool:
        """Whether the objective comes into full force with this step, from 0."""
        return step == self.section.first_step and step > 0

    def in_force(self, steps_done: int) -> bool:
        """Whether the weights after so many steps are the objective's own and not its preparation's."""
        return steps_done > self.section.first_step

    def switch(self, optimizer: torch.optim.Optimizer) -> None:
        """Forget the moments of the gradients so far: they are of another loss, larger by orders of magnitude.

        A weight decay that goes through the gradient is divided by lambda like everything else in the loss; AdamW's
        does not and stays.
        """
        if not self.section.has_penalty:
            return
        optimizer.state.clear()
        # The loop holds the optimiser wrapped for its devices: what kind it is, its groups tell.
        for group in optimizer.param_groups:
            if not group.get("decoupled_weight_decay", False):
                group["weight_decay"] /= max(1.0, self.section.lambda_max)

    def check(self, network: nn.Module, train: EncodedPart, sampling: SamplingSection) -> None:
        """Refuse a network that predicts nothing; environments count alike, as in the objective.

        Raises:
            NullPredictor: naming the task.
        """
        if self.section.objective == "erm":
            return
        logits = predict_logits(network, train)
        if sampling.mode == "training":  # the loss saw the logits of the rows as they were sampled
            logits = logits - np.log(train.targets.rates.astype(np.float64))
        rows = np.bincount(self.environments.codes)
        weights = train.targets.weights / rows[self.environments.codes][:, None]
        for column, task in enumerate(train.tasks):
            refuse_null_predictor(
                train.targets.labels[:, column], sigmoid(logits[:, column]), weights[:, column], "binary", task
            )

    def log_line(self) -> dict[str, Any]:
        """Penalty, its weight and the risks by environment of the last step."""
        return self._last

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know; the schedule is a function of the step and needs nothing."""
        return self.objective.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        self.objective.load_state_dict(state)


def build_invariance(
    config: TrainingConfig, environments: Environments | None, steps_per_epoch: int, processes: int
) -> Invariance | None:
    """The objective over environments at its start, or None where the configuration has none.

    Raises:
        ConfigError: if it does not fit the length of the run.
    """
    if config.invariance is None or environments is None:
        return None
    steps = config.train.epochs * steps_per_epoch
    return Invariance(config.invariance, environments, steps, steps_per_epoch, processes)

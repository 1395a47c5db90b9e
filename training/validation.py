"""What is measured while training: metrics of the validation rows, and whether they are better than before."""

from __future__ import annotations

import math

from torch import nn

from bundle.correct import sigmoid
from training.checkpoint import Position
from training.config import SamplingSection, TrainSection
from training.encoded import EncodedPart, measured_columns, predict_logits, unsampled_logits, with_joint
from training.metrics import auc, gauc, logloss


def validate(network: nn.Module, part: EncodedPart, sampling: SamplingSection) -> dict[str, dict[str, float]]:
    """AUC, GAUC and logloss of the unsampled probabilities, by task, and in a funnel of both of its steps together.

    A metric that the rows cannot give (one class only) is NaN.
    """
    logits = unsampled_logits(predict_logits(network, part), part.targets.rates, sampling)
    predicted = with_joint({task: sigmoid(logits[:, k]) for k, task in enumerate(part.tasks)}, part)
    found: dict[str, dict[str, float]] = {}
    for task, (labels, weight) in measured_columns(part, sampling).items():
        found[task] = {
            "auc": auc(labels, predicted[task], weight),
            "gauc": gauc(labels, predicted[task], part.groups, weight).value,
            "logloss": logloss(labels, predicted[task], weight),
        }
    return found


def monitored(settings: TrainSection, found: dict[str, dict[str, float]], task: str) -> float:
    """The value of a task that decides, larger is better; minus infinity where it is undefined."""
    value = found[task][settings.monitor]
    if math.isnan(value):
        return -math.inf
    return -value if settings.monitor == "logloss" else value


def note_result(position: Position, value: float) -> bool:
    """Remember a validation; True if it is the best so far. The first one always is, so a run always has a best."""
    if position.best is None or value > position.best:
        position.best, position.best_step, position.stale = value, position.step, 0
        return True
    position.stale += 1
    return False

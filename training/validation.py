"""What is measured while training: metrics of the validation rows, and whether they are better than before."""

from __future__ import annotations

import math

from torch import nn

from bundle.correct import sigmoid
from training.checkpoint import Position
from training.config import SamplingSection, TrainSection
from training.encoded import EncodedPart, population_weights, predict_logits, unsampled_logits
from training.metrics import auc, gauc, logloss


def validate(network: nn.Module, part: EncodedPart, sampling: SamplingSection) -> dict[str, dict[str, float]]:
    """AUC, GAUC and logloss of the unsampled probabilities, by task.

    A metric that the rows cannot give (one class only) is NaN.
    """
    logits = unsampled_logits(predict_logits(network, part), part.targets.rates, sampling)
    weights = population_weights(part.targets, sampling)
    found: dict[str, dict[str, float]] = {}
    for column, task in enumerate(part.tasks):
        labels, probabilities = part.targets.labels[:, column], sigmoid(logits[:, column])
        weight = weights[:, column]
        found[task] = {
            "auc": auc(labels, probabilities, weight),
            "gauc": gauc(labels, probabilities, part.groups, weight).value,
            "logloss": logloss(labels, probabilities, weight),
        }
    return found


def monitored(settings: TrainSection, found: dict[str, dict[str, float]]) -> float:
    """The value that decides, larger is better; minus infinity where it is undefined."""
    task = settings.monitor_task or next(iter(found))
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

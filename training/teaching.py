"""What each output of a click network is taught, and which tasks have nothing to teach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from bundle.correct import Isotonic
from training.batches import Targets
from training.config import TrainingConfig
from training.datasets import Part
from training.datasets.funnel import BOTH, CLICK, CONVERSION
from training.encoded import targets_of
from training.errors import DataError
from training.objectives.click import weighted_bce
from training.objectives.entire_space import entire_space_losses


@dataclass(frozen=True, slots=True)
class Teaching:
    """The labels of the outputs.

    Attributes:
        tasks: names of the K outputs.
        columns: the label that each is taught; over the entire space the conversion's output learns ``ctcvr``.
        priors: by task whose training labels are all one class, the constant that is answered instead.
        notes: a sentence for each of them.
    """

    tasks: tuple[str, ...]
    columns: tuple[str, ...]
    priors: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def entire_space(self) -> bool:
        """Whether conversions are learned from all exposures."""
        return BOTH in self.columns

    @property
    def taught(self) -> list[int]:
        """Columns of the tasks that have something to teach."""
        return [column for column, task in enumerate(self.tasks) if task not in self.priors]

    @property
    def first_task(self) -> str:
        """The first task that has something to teach: what is watched unless the configuration says otherwise."""
        return self.tasks[self.taught[0]]

    def targets(self, part: Part, rates: Mapping[str, float]) -> Targets:
        """Targets of training rows; a task that has nothing to teach weighs nothing."""
        targets = targets_of(part, self.columns, rates)
        weights = targets.weights.copy()
        weights[:, [column for column, task in enumerate(self.tasks) if task in self.priors]] = 0
        return replace(targets, weights=weights)

    def losses(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Mean loss of every task, (B, K) each -> (K,)."""
        if not self.entire_space:
            return weighted_bce(logits, labels, weights)
        click, conversion = self.tasks.index(CLICK), self.tasks.index(CONVERSION)
        return entire_space_losses(logits, labels, weights, click, conversion)


def teaching_of(config: TrainingConfig, part: Part) -> Teaching:
    """What the training rows can teach.

    Args:
        config: of the run.
        part: the training rows.

    Raises:
        DataError: if the labels of every task are all one class.
    """
    priors: dict[str, float] = {}
    notes: list[str] = []
    for task in config.tasks:
        targets = targets_of(part, (task,), {})
        counted = targets.weights[:, 0] > 0
        labels, weights = targets.labels[counted, 0], targets.weights[counted, 0].astype(np.float64)
        if len(np.unique(labels)) > 1:
            continue
        # One imagined row of each class: a chance of exactly 0 or 1 could never be taken back.
        priors[task] = float((weights @ labels + 1) / (weights.sum() + 2))
        which = f"all {labels[0]:g}" if len(labels) else "missing"
        notes.append(f"task {task}: the training labels are {which}; it is answered by {priors[task]:.3g} throughout")
    if len(priors) == len(config.tasks):
        raise DataError(f"there is nothing to train on: {'; '.join(notes)}")
    # Where every row is clicked, or none converts, all exposures tell no more than the clicked ones.
    entire = config.funnel_mode == "entire_space" and not priors.keys() & {CLICK, CONVERSION}
    columns = tuple(BOTH if entire and task == CONVERSION else task for task in config.tasks)
    return Teaching(tasks=config.tasks, columns=columns, priors=priors, notes=tuple(notes))


def constant(probability: float) -> Isotonic:
    """A calibrator that answers one probability whatever the logit."""
    return Isotonic(x_knots=(0.5,), y_knots=(probability,))

"""How the losses of several tasks become one: fixed weights, learned uncertainty, or equal gradients.

Each is a module, so that what it learns is stepped by the run's optimiser and kept in its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import torch
from torch import Tensor, nn

from models.layers.loss_weighting import GradNorm, UncertaintyWeighting

Weighting = Literal["fixed", "uncertainty", "gradnorm"]

# Parts of the names of parameters that belong to a task, or to single ids.
_NOT_SHARED: Final = (".towers.", ".head.", ".wide.", ".gate_weight.", ".gate_noise.", ".embedding.", ".biases.")


class FixedWeighting(nn.Module):
    """sum_k v_k L_k.

    Args:
        tasks: names of the K tasks.
        weights: v by task; 1 for those that are not named. Constants of the configuration: no state.
    """

    weights: Tensor

    def __init__(self, tasks: Sequence[str], weights: dict[str, float] | None = None) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        values = [(weights or {}).get(task, 1.0) for task in tasks]
        self.register_buffer("weights", torch.tensor(values), persistent=False)

    def forward(self, losses: Tensor, shared: Sequence[Tensor]) -> Tensor:
        """The sum of the losses (K,); ``shared`` plays no part."""
        return (losses * self.weights).sum()

    def log_line(self) -> dict[str, float]:
        """Nothing is learned, so there is nothing to log."""
        return {}


class LearnedUncertainty(nn.Module):
    """``UncertaintyWeighting`` of the tasks that have something to learn.

    Args:
        tasks: names of the K tasks.
        taught: columns of those that are counted.
    """

    def __init__(self, tasks: Sequence[str], taught: Sequence[int]) -> None:
        super().__init__()
        self.tasks, self.taught = tuple(tasks), list(taught)
        self.layer = UncertaintyWeighting(len(self.taught))

    def forward(self, losses: Tensor, shared: Sequence[Tensor]) -> Tensor:
        """The total of the losses (K,); ``shared`` plays no part."""
        total: Tensor = self.layer(losses[self.taught])
        return total

    def log_line(self) -> dict[str, float]:
        """exp(-s), what each loss is multiplied by."""
        values = torch.exp(-self.layer.log_vars.detach()).tolist()
        return {self.tasks[column]: value for column, value in zip(self.taught, values, strict=True)}


class EqualGradients(nn.Module):
    """``GradNorm`` of the tasks that have something to learn.

    Every step takes the gradient of each loss at the shared parameters, so it costs a backward pass a task more.

    Args:
        tasks: names of the K tasks.
        taught: columns of those that are counted.
    """

    def __init__(self, tasks: Sequence[str], taught: Sequence[int]) -> None:
        super().__init__()
        self.tasks, self.taught = tuple(tasks), list(taught)
        self.layer = GradNorm([tasks[column] for column in taught])

    def forward(self, losses: Tensor, shared: Sequence[Tensor]) -> Tensor:
        """Weighted losses (K,), and the loss from which the weights learn: their gradients do not meet."""
        norms, weighted = self.layer([losses[column] for column in self.taught], shared)
        total: Tensor = weighted * len(self.taught) + norms
        return total

    def log_line(self) -> dict[str, float]:
        """What each loss is multiplied by; the mean is 1."""
        shares = torch.softmax(self.layer.weight.detach(), 0) * len(self.taught)
        return {self.tasks[column]: value for column, value in zip(self.taught, shares.tolist(), strict=True)}


TaskWeighting = FixedWeighting | LearnedUncertainty | EqualGradients


def build_weighting(
    kind: Weighting, tasks: Sequence[str], taught: Sequence[int], weights: dict[str, float]
) -> TaskWeighting:
    """The weighting of that name at its start.

    Args:
        kind: as ``train.task_weighting``.
        tasks: names of the K tasks.
        taught: columns of the tasks that have something to learn.
        weights: of the fixed kind.
    """
    if kind == "uncertainty":
        return LearnedUncertainty(tasks, taught)
    if kind == "gradnorm":
        return EqualGradients(tasks, taught)
    return FixedWeighting(tasks, weights)


def shared_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Matrices that all tasks share: not the towers and gates, nor a head or wide part with a column a task.

    The norms of their gradients say how hard each task pulls. Embedding tables stay out: in a batch most of their rows
    have no gradient, and a task's pull would depend on how many ids the batch happens to hold.
    """
    return [
        parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and parameter.dim() > 1 and not any(part in f".{name}." for part in _NOT_SHARED)
    ]

"""Shared hidden layers, then a tower for every task."""

import torch
from torch import Tensor, nn

from models.multitask.options import SharedBottomOptions
from models.multitask.towers import HiddenOptions, TaskTowers


class SharedBottom(nn.Module):
    """The plainest network for several tasks: what is learned for one serves all.

    Source: Caruana 1997, Machine Learning 28. Differs from it: nothing.

    Shapes: x (..., W); returns logits (..., K). State: hidden.*, towers.each.{k}.*.

    Args:
        width: W.
        hidden: the shared layers.
        tasks: one tower each.
        options: of the towers.

    Raises:
        ValueError: if there is no shared layer.
    """

    def __init__(self, width: int, hidden: HiddenOptions, tasks: tuple[str, ...], options: SharedBottomOptions) -> None:
        super().__init__()
        self.hidden = hidden.build(width)
        self.tasks = len(tasks)
        self.towers = TaskTowers(hidden.layers[-1], hidden.with_layers(options.tower_layers), self.tasks)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        kernel, bias = self.first_affine()
        return self.after_first_affine(torch.matmul(x, kernel) + bias)

    def first_affine(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the first affine map, for callers that arrange the product themselves."""
        return self.hidden.first_affine()

    def after_first_affine(self, x: Tensor) -> Tensor:
        """The logits from the first map's output on."""
        shared = self.hidden.after_first_affine(x)
        logits: Tensor = self.towers([shared for _ in range(self.tasks)])
        return logits

    def training_outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits from the first map's output on, and an auxiliary loss of 0."""
        return self.after_first_affine(x), x.new_zeros(())

    def gate_statistics(self) -> dict[str, dict[str, float]]:
        """There are no gates."""
        return {}

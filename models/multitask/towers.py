"""A tower for every task, and the hidden layers that all tops are told about."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers.advanced_activations import Activation
from models.layers.dense import Dense
from models.layers.mlp import HiddenLayers


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenOptions:
    """Hidden layers of a network.

    Attributes:
        layers: their widths.
        activation: of each.
        dropout: after each, while training.
        batchnorm: before each activation.
    """

    layers: tuple[int, ...]
    activation: Activation = "prelu"
    dropout: float = 0.0
    batchnorm: bool = False

    def with_layers(self, layers: Sequence[int]) -> "HiddenOptions":
        """The same for other widths."""
        return HiddenOptions(
            layers=tuple(layers), activation=self.activation, dropout=self.dropout, batchnorm=self.batchnorm
        )

    def build(self, width: int) -> HiddenLayers:
        """The layers on an input of some width."""
        return HiddenLayers(width, self.layers, self.dropout, self.batchnorm, self.activation)


class Tower(nn.Module):
    """One task's own layers.

    Shapes: x (..., W); returns (..., 1). State: hidden.* as ``HiddenLayers``, head.*.
    """

    def __init__(self, width: int, hidden: HiddenOptions) -> None:
        super().__init__()
        self.hidden: nn.Module = nn.Identity()
        if hidden.layers:
            self.hidden = hidden.build(width)
            width = hidden.layers[-1]
        self.head = Dense(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The task's logit."""
        logit: Tensor = self.head(self.hidden(x))
        return logit


class TaskTowers(nn.Module):
    """One tower a task, each on an input of its own.

    Shapes: K tensors (..., W); returns (..., K). State: {k}.* as ``Tower``.

    Args:
        width: W.
        hidden: of every tower; its widths may be none.
        tasks: K.
    """

    def __init__(self, width: int, hidden: HiddenOptions, tasks: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(Tower(width, hidden) for _ in range(tasks))

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """The logits."""
        logits: list[Tensor] = []
        for task, tower in enumerate(self.each):
            logits.append(tower(inputs[task]))
        return torch.cat(logits, -1)

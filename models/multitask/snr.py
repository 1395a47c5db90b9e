"""Levels of sub-networks with learned routes between them, a tower for every task."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from models.layers import advanced_activations
from models.layers.dense import Dense
from models.layers.mlp import Function
from models.layers.snr import SNR
from models.multitask.options import SNROptions
from models.multitask.towers import HiddenOptions, TaskTowers


class SNRTop(nn.Module):
    """Sub-network routing between the features and one tower a task.

    The first level's sub-networks are one affine map and an activation; from level to level, and from the last one to
    the tasks, the routes of ``SNR`` decide what feeds what.

    Source: Ma et al. 2019, AAAI (SNR). Differs from it: as ``models.layers.SNR``.

    Shapes: x (..., W); returns logits (..., K). State: first.*, act.{i}.*, routes.{i}.*, towers.each.{k}.*.

    Args:
        width: W.
        hidden: the levels' widths, activation and dropout.
        tasks: one tower each.
        options: of sub-networks, routes and towers.

    Raises:
        ValueError: if there is no level, or the widths do not fit the routing.
    """

    def __init__(self, width: int, hidden: HiddenOptions, tasks: tuple[str, ...], options: SNROptions) -> None:
        super().__init__()
        if not hidden.layers:
            raise ValueError("mlp_hidden_layers must name at least one level of sub-networks, got none")
        self.names = list(tasks)
        self.subnets = options.subnets
        self.l0 = options.l0
        self.first = Dense(width, options.subnets * hidden.layers[0])
        self.act = nn.ModuleList(_activation(hidden, options.subnets * size) for size in hidden.layers)
        self.dropout = nn.Dropout(hidden.dropout)

        def routes(before: int, after: int, outgoing: int) -> SNR:
            return SNR(options.subnets, before, outgoing, after, options.routing, use_ste=options.use_ste)

        sizes = hidden.layers
        levels = [routes(before, after, options.subnets) for before, after in pairwise(sizes)]
        self.routes = nn.ModuleList([*levels, routes(sizes[-1], sizes[-1], len(tasks))])
        self.towers = TaskTowers(sizes[-1], hidden.with_layers(options.tower_layers), len(tasks))

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        kernel, bias = self.first_affine()
        return self.after_first_affine(torch.matmul(x, kernel) + bias)

    def first_affine(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the first level."""
        return self.first.affine()

    def after_first_affine(self, x: Tensor) -> Tensor:
        """The logits from the first level's affine output on."""
        joined = x.reshape(-1, x.size(-1))
        subnets: list[Tensor] = []
        for act, routes in zip(self.act, self.routes):  # noqa: B905 - a strict zip does not script
            joined = self.dropout(act(joined))
            subnets = routes(list(joined.chunk(self.subnets, 1)))
            joined = torch.cat(subnets, 1)
        logits: Tensor = self.towers(subnets)
        return logits.view(list(x.shape[:-1]) + [logits.size(-1)])  # noqa: RUF005 - a starred list does not script

    def training_outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits from the first level's affine output on, and the weighted expected number of open routes."""
        opened = x.new_zeros(())
        for routes in self.routes:
            opened = opened + routes.l0_loss()  # type: ignore[operator]
        return self.after_first_affine(x), self.l0 * opened

    def gate_statistics(self) -> dict[str, dict[str, float]]:
        """By task: ``open_routes``, the share of the sub-networks that reach its tower, and ``mean_gate``."""
        last = self.routes[-1]
        was_training = last.training
        with torch.no_grad():
            gates = last.eval().gates().view(self.subnets, len(self.names))  # type: ignore[operator]
        last.train(was_training)
        return {
            name: {"open_routes": float((gates[:, k] > 0).float().mean()), "mean_gate": float(gates[:, k].mean())}
            for k, name in enumerate(self.names)
        }


def _activation(hidden: HiddenOptions, width: int) -> nn.Module:
    found = advanced_activations.get(hidden.activation, width) or advanced_activations.identity()
    return found if isinstance(found, nn.Module) else Function(found)

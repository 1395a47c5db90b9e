"""Experts shared by all tasks, a gate and a tower for every task."""

import torch
from torch import Tensor, nn

from models.layers.mmoe import MMoE
from models.multitask.options import MMoEOptions
from models.multitask.towers import HiddenOptions, TaskTowers

# A training step replaces this share of what is remembered of the gates: some hundred steps back.
_REMEMBERED_SHARE = 0.02


class MMoETop(nn.Module):
    """``MMoE`` between the features and one tower a task.

    The first maps of all experts and of the gates are one product, so that its user half is computed once a user.

    Source: Ma et al. 2018, KDD. Differs from it: as ``models.layers.MMoE``.

    Shapes: x (..., W); returns logits (..., K). State: mmoe.*, towers.each.{k}.*.

    Args:
        width: W.
        hidden: the experts' layers; their dropout is applied to what an expert puts out.
        tasks: one gate and one tower each.
        options: of experts, gates and towers.

    Raises:
        ValueError: if the experts have no layer.
    """

    widths: list[int]

    def __init__(self, width: int, hidden: HiddenOptions, tasks: tuple[str, ...], options: MMoEOptions) -> None:
        super().__init__()
        if not hidden.layers:
            raise ValueError("mlp_hidden_layers must name at least one layer for experts, got none")
        self.names = list(tasks)
        self.experts = options.experts
        self.balance = options.balance if options.gate != "softmax" else 0.0
        self.mmoe = MMoE(
            width,
            len(tasks),
            list(hidden.layers),
            hidden.activation,
            gate_type=options.gate,
            top_k=options.top_k,
            num_experts=options.experts,
        )
        columns = len(tasks) * options.experts
        self.widths = [hidden.layers[0]] * options.experts + [columns]
        if self.mmoe.gate_noise is not None:
            self.widths.append(columns)
        self.dropout = nn.Dropout(hidden.dropout)
        self.towers = TaskTowers(hidden.layers[-1], hidden.with_layers(options.tower_layers), len(tasks))
        self.mean_gates: Tensor
        self.mean_entropy: Tensor
        self.register_buffer("mean_gates", torch.zeros(options.experts, len(tasks)), persistent=False)
        self.register_buffer("mean_entropy", torch.zeros(len(tasks)), persistent=False)
        self.steps_seen = 0

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        kernel, bias = self.first_affine()
        return self.after_first_affine(torch.matmul(x, kernel) + bias)

    def first_affine(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias of all experts' first maps and of the gates, side by side."""
        kernels: list[Tensor] = []
        biases: list[Tensor] = []
        for expert in self.mmoe.experts:
            kernel, bias = expert.first_affine()  # type: ignore[operator]
            kernels.append(kernel)
            biases.append(bias)
        kernels.append(self.mmoe.gate_weight)
        biases.append(torch.zeros_like(self.mmoe.gate_weight[0]))
        noise = self.mmoe.gate_noise
        if noise is not None:
            kernels.append(noise)
            biases.append(torch.zeros_like(noise[0]))
        return torch.cat(kernels, 1), torch.cat(biases)

    def after_first_affine(self, x: Tensor) -> Tensor:
        """The logits from the first maps' output on."""
        return self._mix(x)[0]

    def training_outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits from the first maps' output on, and the experts' uneven load times its weight."""
        logits, gates = self._mix(x)
        self._remember(gates.detach())
        if self.balance > 0:
            return logits, self.balance * self.mmoe.load_balance_loss(gates).sum()
        return logits, x.new_zeros(())

    def _mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (..., K) and gates (B, E, K)."""
        parts = list(torch.split(x.reshape(-1, x.size(-1)), self.widths, 1))
        spread = parts[self.experts + 1] if len(parts) > self.experts + 1 else None
        gates = self.mmoe.gates_of_logits(parts[self.experts], spread)
        outputs: list[Tensor] = []
        for place, expert in enumerate(self.mmoe.experts):
            outputs.append(expert.after_first_affine(parts[place]))  # type: ignore[operator]
        mixed = torch.matmul(gates.transpose(1, 2), self.dropout(torch.stack(outputs, 1)))  # (B, K, O)
        logits = self.towers(list(mixed.unbind(1)))
        return logits.view(list(x.shape[:-1]) + [logits.size(-1)]), gates  # noqa: RUF005 - a starred list does not script

    def _remember(self, gates: Tensor) -> None:
        """Moving averages for the log; not part of the state, they change no score."""
        if not self.training or gates.size(0) == 0:
            return
        share = max(_REMEMBERED_SHARE, 1.0 / (self.steps_seen + 1))
        entropy = -(gates * torch.log(gates.clamp_min(1e-12))).sum(1)
        self.mean_gates.lerp_(gates.mean(0), share)
        self.mean_entropy.lerp_(entropy.mean(0), share)
        self.steps_seen += 1

    def gate_statistics(self) -> dict[str, dict[str, float]]:
        """By task: ``entropy`` of a row's gates in nats, and ``top_share``, the load of the busiest expert.

        Averages over the training steps of late (``training_outputs``); empty before the first one.
        """
        if self.steps_seen == 0:
            return {}
        return {
            name: {"entropy": float(self.mean_entropy[k]), "top_share": float(self.mean_gates[:, k].max())}
            for k, name in enumerate(self.names)
        }

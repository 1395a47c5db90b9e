"""Experts shared by several tasks, each task with a gate of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.advanced_activations import Activation
from models.layers.initializers import Initializer, initialize
from models.layers.mlp import MLP
from models.layers.regularization import Regularized, Regularizer

GATE_TYPES = ("softmax", "topk", "noise_topk")


class MMoE(Regularized):
    """Task k gets sum_e g_ek expert_e(x), with g_k = softmax over experts of gate_input @ gate_weight.

    topk keeps the gates that reach the k-th largest, sets the others to 0 and renormalises. *All* ties are kept: gates
    start equal, and choosing by position would train only the first experts. noise_topk adds, while training,
    noise * softplus(gate_input @ gate_noise) to the logits before that; serving is deterministic.

    Source: Ma et al. 2018, KDD (MMoE); top-k gates and the balance loss: Shazeer et al. 2017, arXiv:1701.06538. Differs
    from them: ties are kept, and the mask is applied after the softmax, which gives the same numbers elsewhere.

    Shapes: x (B, in_features), gate_input (B, Dg), noise (B, K * E); returns K tensors (B, O). State: experts.{e}.* as
    ``MLP``, gate_weight (Dg, K * E) with column k * E + e, zeros; gate_noise of the same shape for noise_topk.

    Args:
        in_features: width of x.
        num_tasks: K.
        expert_output_dims: widths of the experts' layers; one list for all, or one an expert with the same last width.
        expert_activations: one for all experts, not applied to their last layers; or a list with one an expert.
        expert_initializers: one for all experts, or a list with one an expert.
        gate_type: softmax, topk or noise_topk.
        top_k: gates that a task keeps; E or more is softmax.
        num_experts: E; by default the length of the first of the three lists above that has one an expert.
        kernel_regularizer: penalty of the experts' kernels.
        use_weight_norm: as ``MLP``.
        use_learnable_weight_norm: as ``MLP``.
        use_bias: as ``MLP``.
        bias_regularizer: as ``MLP``.
        enable_batch_normalization: as ``MLP``.
        batch_normalization_momentum: as ``MLP``.
        batch_normalization_renorm: as ``MLP``.
        batch_normalization_renorm_clipping: as ``MLP``.
        batch_normalization_renorm_momentum: as ``MLP``.
        gate_in_features: Dg; None means the gates see x.
        topk: another name for ``top_k``.

    Raises:
        ValueError: if a choice is unknown, a size is not positive, E is unknown or contradicted, the experts' last
            widths differ, or a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import MMoE
        >>> layer = MMoE(6, num_tasks=2, expert_output_dims=[8, 4], expert_activations="relu", num_experts=3)
        >>> [output.shape for output in layer(torch.ones(5, 6))]
        [torch.Size([5, 4]), torch.Size([5, 4])]
    """

    def __init__(
        self,
        in_features: int,
        num_tasks: int,
        expert_output_dims: Sequence[int] | Sequence[Sequence[int]],
        expert_activations: Activation | Sequence[Activation],
        expert_initializers: Initializer | Sequence[Initializer] = "glorot_uniform",
        gate_type: str = "softmax",
        top_k: int = 1,
        num_experts: int | None = None,
        kernel_regularizer: Regularizer | None = None,
        use_weight_norm: bool = True,
        use_learnable_weight_norm: bool = True,
        use_bias: bool = True,
        bias_regularizer: Regularizer | None = None,
        enable_batch_normalization: bool = False,
        batch_normalization_momentum: float = 0.99,
        batch_normalization_renorm: bool = False,
        batch_normalization_renorm_clipping: Mapping[str, float] | None = None,
        batch_normalization_renorm_momentum: float = 0.99,
        gate_in_features: int | None = None,
        topk: int | None = None,
    ) -> None:
        super().__init__()
        if in_features < 1 or num_tasks < 1:
            raise ValueError(f"in_features and num_tasks must be at least 1, got {in_features} and {num_tasks}")
        if gate_type not in GATE_TYPES:
            raise ValueError(f"gate_type must be one of {', '.join(GATE_TYPES)}; got {gate_type!r}")
        kept = top_k if topk is None else topk
        if kept < 1:
            raise ValueError(f"top_k must be at least 1, got {kept}")
        count, dims = _experts(expert_output_dims, expert_activations, expert_initializers, num_experts)
        activations = _one_an_expert("expert_activations", expert_activations, count)
        kernels = _one_an_expert("expert_initializers", expert_initializers, count)
        self.num_tasks, self.num_experts, self.top_k = num_tasks, count, kept
        self.gate_type = gate_type
        self.gate_features = in_features if gate_in_features is None else gate_in_features
        self.experts = nn.ModuleList(
            MLP(
                in_features,
                dims[e],
                activations[e],
                kernels[e],
                kernel_regularizer,
                use_weight_norm,
                use_learnable_weight_norm,
                use_bias,
                bias_regularizer,
                enable_batch_normalization,
                batch_normalization_momentum,
                batch_normalization_renorm,
                batch_normalization_renorm_clipping,
                batch_normalization_renorm_momentum,
            )
            for e in range(count)
        )
        self._make_gates(self.gate_features, num_tasks * count)

    def _make_gates(self, features: int, columns: int) -> None:
        if features < 1:
            raise ValueError(f"gate_in_features must be at least 1, got {features}")
        self.gate_weight = nn.Parameter(torch.zeros(features, columns))
        self.gate_noise: nn.Parameter | None = None
        if self.gate_type == "noise_topk":
            self.gate_noise = nn.Parameter(torch.empty(features, columns))
            initialize(self.gate_noise, "glorot_normal", features, columns)

    def forward(self, x: Tensor, gate_input: Tensor | None = None, noise: Tensor | None = None) -> list[Tensor]:
        """The experts' outputs, mixed for every task."""
        gates = self.calc_gate(x if gate_input is None else gate_input, noise)
        outputs: list[Tensor] = []
        for expert in self.experts:
            outputs.append(expert(x))
        mixed = torch.matmul(gates.transpose(1, 2), torch.stack(outputs, 1))  # (B, K, O)
        return list(mixed.unbind(1))

    def calc_gate(self, gate_input: Tensor, noise: Tensor | None = None) -> Tensor:
        """Gates (B, E, K), summing to 1 over the experts."""
        if gate_input.dim() != 2 or gate_input.size(1) != self.gate_features:
            raise ValueError(f"gate_input must be (B, {self.gate_features}), got {list(gate_input.shape)}")
        logits = torch.matmul(gate_input, self.gate_weight)
        if self.gate_noise is None:
            return self.gates_of_logits(logits)
        return self.gates_of_logits(logits, torch.matmul(gate_input, self.gate_noise), noise)

    def gates_of_logits(self, logits: Tensor, spread: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Gates (B, E, K), for callers that arrange the products with the gates' weights themselves.

        Args:
            logits: (B, K * E), the gate's input times ``gate_weight``.
            spread: (B, K * E), the gate's input times ``gate_noise``; only looked at for noise_topk, while training.
            noise: (B, K * E), drawn where it is not given.

        Raises:
            ValueError: if the noise does not fit.
        """
        if spread is not None and self.training:
            drawn = torch.randn_like(logits) if noise is None else noise
            if drawn.shape != logits.shape:
                raise ValueError(f"noise must be {list(logits.shape)}, got {list(drawn.shape)}")
            # softplus without overflow, in a form that exports as it is written
            logits = logits + drawn * (torch.clamp(spread, min=0.0) + torch.log1p(torch.exp(-torch.abs(spread))))
        gates = torch.softmax(logits.view(logits.size(0), self.num_tasks, self.num_experts), 2)
        if self.gate_type != "softmax" and self.top_k < self.num_experts:
            lowest_kept = torch.topk(gates, self.top_k, dim=2)[0][:, :, -1:]
            gates = gates * (gates >= lowest_kept).to(gates.dtype)
            gates = gates / gates.sum(2, keepdim=True)
        return gates.transpose(1, 2)

    def load_balance_loss(self, gates: Tensor) -> Tensor:
        """How unevenly each task loads the experts: variance over mean squared of the gates' sums, (K,).

        To be added to the loss while training, for the top-k kinds.

        Args:
            gates: (B, E, K), of ``calc_gate``.

        Raises:
            ValueError: if the gates do not fit.
        """
        if gates.dim() != 3 or gates.size(1) != self.num_experts or gates.size(2) != self.num_tasks:
            raise ValueError(f"gates must be (B, {self.num_experts}, {self.num_tasks}), got {list(gates.shape)}")
        importance = gates.sum(0)
        if gates.size(0) == 0:
            return importance.sum(0)
        return importance.var(0, unbiased=False) / importance.mean(0).square()


def _experts(dims: Any, activations: Any, initializers: Any, num_experts: int | None) -> tuple[int, list[list[int]]]:
    """Number of experts, and the widths of each."""
    given = list(dims)
    nested = bool(given) and all(isinstance(entry, list | tuple) for entry in given)
    count = num_experts
    for entry in (given if nested else None, activations, initializers):
        if count is None and isinstance(entry, list | tuple):
            count = len(entry)
    if count is None:
        raise ValueError("num_experts must be given where no argument is a list with one entry an expert, got None")
    if count < 1:
        raise ValueError(f"num_experts must be at least 1, got {count}")
    of_each = [list(widths) for widths in given] if nested else [given] * count
    if len(of_each) != count:
        raise ValueError(f"expert_output_dims must have one list for each of {count} experts, got {len(of_each)}")
    if any(not widths for widths in of_each) or len({widths[-1] for widths in of_each}) != 1:
        raise ValueError(f"expert_output_dims must end with the same width for every expert, got {given}")
    return count, of_each


def _one_an_expert(name: str, given: Any, count: int) -> list[Any]:
    if isinstance(given, list | tuple):
        if len(given) != count:
            raise ValueError(f"{name} must have one entry for each of {count} experts, got {len(given)}")
        return list(given)
    return [given] * count

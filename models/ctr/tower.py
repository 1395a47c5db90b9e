"""The top of a network: one vector a user, one a candidate, one logit a task."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.advanced_activations import Activation
from models.layers.dense import Dense
from models.layers.mlp import HiddenLayers, split_affine
from models.layers.normalization import LayerNorm


class UserCandidateTower(nn.Module):
    """A network on [user, candidate] whose first layer meets each user once.

    Shapes: user (U, Du), candidate (U, C, Dc); returns logits (U, C, K). State: hidden.dense.{i}.*, hidden.bn.{i}.*,
    hidden.act.{i}.*, head.*, with ``input_norm`` norm.*.

    Args:
        user_width: Du, may be 0.
        candidate_width: Dc.
        hidden_layers: may be empty.
        tasks: K.
        activation: of the hidden layers.
        dropout: of the hidden layers.
        batchnorm: in the hidden layers.
        input_norm: layer normalisation of [user, candidate].

    Raises:
        ValueError: if nothing comes in on the candidate side.
    """

    def __init__(
        self,
        user_width: int,
        candidate_width: int,
        hidden_layers: Sequence[int],
        tasks: int,
        activation: Activation = "prelu",
        dropout: float = 0.0,
        batchnorm: bool = False,
        input_norm: bool = False,
    ) -> None:
        super().__init__()
        if candidate_width < 1:
            raise ValueError("the network must have at least one candidate feature, got none")
        width = user_width + candidate_width
        self.norm: LayerNorm | None = LayerNorm(width) if input_norm else None
        self.hidden: HiddenLayers | None = None
        if len(hidden_layers) > 0:
            self.hidden = HiddenLayers(width, hidden_layers, dropout, batchnorm, activation)
            width = self.hidden.out_features
        self.head = Dense(width, tasks)

    def forward(self, user: Tensor, candidate: Tensor) -> Tensor:
        """Logits."""
        if self.hidden is not None:
            kernel, bias = self.hidden.first_affine()
            logits: Tensor = self.head(self.hidden.after_first_affine(self._first(kernel, bias, user, candidate)))
            return logits
        kernel, bias = self.head.affine()
        return self._first(kernel, bias, user, candidate)

    def _first(self, kernel: Tensor, bias: Tensor, user: Tensor, candidate: Tensor) -> Tensor:
        """The first affine map of [user, candidate], normalised where asked.

        A normalised row times the kernel is (row @ K - mean sum(K)) / sd with K = gamma * kernel, so the user's share
        of the product is still computed once a user.
        """
        if self.norm is None:
            return split_affine(kernel, bias, user, candidate)
        width = user.size(-1) + candidate.size(-1)
        mean = (user.sum(-1, keepdim=True).unsqueeze(1) + candidate.sum(-1, keepdim=True)) / width
        squares = (user * user).sum(-1, keepdim=True).unsqueeze(1) + (candidate * candidate).sum(-1, keepdim=True)
        variance = (squares / width - mean * mean).clamp_min(0.0)
        scaled = kernel * self.norm.gamma.unsqueeze(-1)
        product = split_affine(scaled, torch.zeros_like(bias), user, candidate)
        centred = (product - mean * scaled.sum(0)) * torch.rsqrt(variance + self.norm.eps)
        return centred + (torch.matmul(self.norm.beta, kernel) + bias)


class WidePart(nn.Module):
    """A linear part: weights of the numbers, and a bias for every id of the user's and the candidate's fields.

    Source: Cheng et al. 2016, arXiv:1606.07792. Differs from it: no crossed columns.

    Shapes: user_ids (U, Fu), user_numbers (U, Nu), candidate_ids (U, C, Fc), candidate_numbers (U, C, Nc); returns
    (U, C, K), to be added to the logits.
    """

    def __init__(self, biases: nn.Module, user_numbers: int, candidate_numbers: int, tasks: int) -> None:
        super().__init__()
        self.biases = biases
        self.of_user: Dense | None = None
        self.of_candidate: Dense | None = None
        if user_numbers > 0:
            self.of_user = Dense(user_numbers, tasks, use_bias=False, kernel_initializer="zeros")
        if candidate_numbers > 0:
            self.of_candidate = Dense(candidate_numbers, tasks, use_bias=False, kernel_initializer="zeros")
        self.intercept = nn.Parameter(torch.zeros(tasks))

    def forward(
        self, user_ids: Tensor, user_numbers: Tensor, candidate_ids: Tensor, candidate_numbers: Tensor
    ) -> Tensor:
        """The linear part of the logits."""
        total: Tensor = self.intercept
        users: list[Tensor] = self.biases(user_ids, 0)
        for bias in users:
            total = total + bias
        if self.of_user is not None:
            total = total + self.of_user(user_numbers)
        total = total.unsqueeze(-2)
        candidates: list[Tensor] = self.biases(candidate_ids, 1)
        for bias in candidates:
            total = total + bias
        if self.of_candidate is not None:
            total = total + self.of_candidate(candidate_numbers)
        return total

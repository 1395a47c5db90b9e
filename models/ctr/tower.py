"""The top of a network: one vector a user, one a candidate, one logit a task."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.advanced_activations import Activation
from models.layers.dense import Dense
from models.layers.mlp import HiddenLayers, split_affine
from models.layers.normalization import LayerNorm
from models.multitask import Top


class UserCandidateTower(nn.Module):
    """A network on [user, candidate] whose first layer meets each user once.

    Shapes: user (U, Du), candidate (U, C, Dc); returns logits (U, C, K). State: hidden.dense.{i}.*, hidden.bn.{i}.*,
    hidden.act.{i}.*, head.*, with ``input_norm`` norm.*.

    Args:
        user_width: Du, may be 0.
        candidate_width: Dc, may be 0.
        hidden_layers: may be empty.
        tasks: K.
        activation: of the hidden layers.
        dropout: of the hidden layers.
        batchnorm: in the hidden layers.
        input_norm: layer normalisation of [user, candidate].

    Raises:
        ValueError: if nothing comes in.
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
        width = input_width(user_width, candidate_width)
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

    def training_outputs(self, user: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and an auxiliary loss of 0."""
        return self(user, candidate), user.new_zeros(())

    def gate_statistics(self) -> dict[str, dict[str, float]]:
        """There are no gates."""
        return {}

    def _first(self, kernel: Tensor, bias: Tensor, user: Tensor, candidate: Tensor) -> Tensor:
        if self.norm is None:
            return joined_affine(kernel, bias, user, candidate)
        return normalised_affine(kernel, bias, user, candidate, self.norm.gamma, self.norm.beta, self.norm.eps)


class MultiTaskTower(nn.Module):
    """A top for several tasks on [user, candidate] whose first layer meets each user once.

    Shapes: user (U, Du), candidate (U, C, Dc); returns logits (U, C, K). State: top.*, with ``input_norm`` norm.*.

    Args:
        user_width: Du, may be 0.
        candidate_width: Dc, may be 0.
        top: built for the sum of both.
        input_norm: layer normalisation of [user, candidate].

    Raises:
        ValueError: if nothing comes in.
    """

    def __init__(self, user_width: int, candidate_width: int, top: Top, input_norm: bool = False) -> None:
        super().__init__()
        width = input_width(user_width, candidate_width)
        self.norm: LayerNorm | None = LayerNorm(width) if input_norm else None
        self.top = top

    def forward(self, user: Tensor, candidate: Tensor) -> Tensor:
        """Logits."""
        return self.top.after_first_affine(self._first(user, candidate))

    def training_outputs(self, user: Tensor, candidate: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the auxiliary loss of the top, a scalar."""
        return self.top.training_outputs(self._first(user, candidate))

    def gate_statistics(self) -> dict[str, dict[str, float]]:
        """By task, as the top gives them; empty where it has no gates."""
        return self.top.gate_statistics()

    def _first(self, user: Tensor, candidate: Tensor) -> Tensor:
        kernel, bias = self.top.first_affine()
        if self.norm is None:
            return joined_affine(kernel, bias, user, candidate)
        return normalised_affine(kernel, bias, user, candidate, self.norm.gamma, self.norm.beta, self.norm.eps)


def input_width(user_width: int, candidate_width: int) -> int:
    """Width of [user, candidate].

    Raises:
        ValueError: if both are 0.
    """
    if user_width + candidate_width < 1:
        raise ValueError("the network must have at least one user or candidate feature, got none")
    return user_width + candidate_width


def joined_affine(kernel: Tensor, bias: Tensor, user: Tensor, candidate: Tensor) -> Tensor:
    """[user, candidate] @ kernel + bias, (U, C, units); either side may be without columns."""
    if candidate.size(-1) > 0:
        return split_affine(kernel, bias, user, candidate)
    return (torch.matmul(user, kernel) + bias).unsqueeze(1).expand(-1, candidate.size(1), -1)


def normalised_affine(
    kernel: Tensor, bias: Tensor, user: Tensor, candidate: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> Tensor:
    """The same of layer-normalised rows.

    A normalised row times the kernel is (row @ K - mean sum(K)) / sd with K = gamma * kernel, so the user's share of
    the product is still computed once a user.
    """
    width = user.size(-1) + candidate.size(-1)
    mean = _total(user, candidate) / width
    squares = _total(user * user, candidate * candidate)
    variance = (squares / width - mean * mean).clamp_min(0.0)
    scaled = kernel * gamma.unsqueeze(-1)
    product = joined_affine(scaled, torch.zeros_like(bias), user, candidate)
    centred = (product - mean * scaled.sum(0)) * torch.rsqrt(variance + eps)
    return centred + (torch.matmul(beta, kernel) + bias)


def _total(user: Tensor, candidate: Tensor) -> Tensor:
    """Sum over [user, candidate], (U, C, 1), or (U, 1, 1) where the candidates have no columns."""
    # Runtimes get sums over no columns wrong.
    if user.size(-1) == 0:
        return candidate.sum(-1, keepdim=True)
    of_user = user.sum(-1, keepdim=True).unsqueeze(1)
    if candidate.size(-1) == 0:
        return of_user
    return of_user + candidate.sum(-1, keepdim=True)


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

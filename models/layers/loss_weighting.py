"""Weights for the losses of several tasks: by gradient norms, or by learned uncertainty."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

TASK_TYPES = ("classification", "regression")


class GradNorm(nn.Module):
    """Learn task weights that bring the tasks' gradients at the shared layers to one size.

    w = softmax(weight); g_i = L2 norm of the gradient of loss i at all shared tensors together; avg = mean of w_i g_i;
    d_i = |w_i g_i - avg|, divided by avg + epsilon if relative; gnorm_loss = scale * sum d_i^loss_pow;
    weighted_loss = sum L_i w_i, w held constant. Only ``weight`` learns from gnorm_loss, through avg too. With one
    task, or with gradients that are all zero, gnorm_loss is 0.

    For training only: it needs grad mode, takes part in no graph, and under automatic mixed precision the losses must
    be unscaled first. The weights are parameters: they travel in ``state_dict``.

    Source: Chen et al. 2018, arXiv:1711.02257, in the form of Monolith (ByteDance). Differs from the paper: the weights
    sum to 1 instead of n, a power instead of an absolute difference, no training rates, and the average is not held
    constant. Differs from Monolith: gradients of any shape.

    Shapes: n losses, scalars; shared tensors of any shape; returns two scalars. State: weight (n,), zeros.

    Args:
        loss_names: a name for each loss.
        scale: of gnorm_loss.
        loss_pow: power of the differences, at least 1.
        relative_diff: measure differences relative to the average.
        epsilon: added to that average.

    Raises:
        ValueError: if names are missing or repeated, ``loss_pow`` is below 1, the numbers of losses differ, or
            gradients cannot be taken.

    Example:
        >>> import torch
        >>> from models.layers import GradNorm
        >>> shared = torch.ones(2, 3, requires_grad=True)
        >>> losses = [shared.sum(), 3.0 * shared.sum()]
        >>> gnorm_loss, weighted_loss = GradNorm(["click", "order"])(losses, [shared])
        >>> weighted_loss.item()
        12.0
    """

    def __init__(
        self,
        loss_names: Sequence[str],
        scale: float = 1.0,
        loss_pow: float = 2.0,
        relative_diff: bool = False,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__()
        names = [loss_names] if isinstance(loss_names, str) else list(loss_names)
        if not names or len(set(names)) != len(names):
            raise ValueError(f"loss_names must be different names, at least one; got {names}")
        if not loss_pow >= 1.0:
            raise ValueError(f"loss_pow must be at least 1, got {loss_pow}")
        if not epsilon > 0.0:
            raise ValueError(f"epsilon must be positive, got {epsilon}")
        self.loss_names = names
        self.scale = scale
        self.loss_pow = loss_pow
        self.relative_diff = relative_diff
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.zeros(len(names)))

    def forward(self, losses: Sequence[Tensor], shared_inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """gnorm_loss and weighted_loss; the graph of the losses is kept for the backward pass that follows."""
        if len(losses) != len(self.loss_names):
            raise ValueError(f"losses must be {len(self.loss_names)}, one for each of loss_names; got {len(losses)}")
        if not shared_inputs:
            raise ValueError("shared_inputs must hold at least one tensor, got none")
        if not torch.is_grad_enabled() or not all(tensor.requires_grad for tensor in shared_inputs):
            raise ValueError("shared_inputs must require gradients and grad mode must be on, got tensors without")
        gnorms = torch.stack([self._norm(loss, list(shared_inputs)) for loss in losses])
        return self.combine(gnorms, torch.stack([loss.reshape(()) for loss in losses]))

    def combine(self, gnorms: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
        """gnorm_loss and weighted_loss of norms (n,) and losses (n,)."""
        expected = self.weight.shape
        if gnorms.shape != expected or losses.shape != expected:
            raise ValueError(
                f"gnorms and losses must be {list(expected)}, got {list(gnorms.shape)} and {list(losses.shape)}"
            )
        shares = torch.softmax(self.weight, 0)
        weighted_norms = shares * gnorms
        average = weighted_norms.mean()
        differences = torch.abs(weighted_norms - average)
        if self.relative_diff:
            differences = differences / (average + self.epsilon)
        return self.scale * (differences**self.loss_pow).sum(), (losses * shares.detach()).sum()

    def _norm(self, loss: Tensor, shared: list[Tensor]) -> Tensor:
        if not loss.requires_grad:
            return torch.zeros_like(self.weight[0].detach())
        gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        squares = [gradient.detach().square().sum() for gradient in gradients if gradient is not None]
        if not squares:
            return torch.zeros_like(self.weight[0].detach())
        return torch.stack(squares).sum().sqrt()


class UncertaintyWeighting(nn.Module):
    """Weigh losses by a learned noise level, s_i = log sigma_i^2.

    total = sum over tasks of 0.5 exp(-s) L + 0.5 s for regression and exp(-s) L + 0.5 s for classification. s is
    clamped before use: a loss that goes to 0 would draw it, and the total, to minus infinity.

    Source: Kendall, Gal & Cipolla 2018, arXiv:1705.07115. Differs from it: the clamp.

    Shapes: losses (n,); returns a scalar. State: log_vars (n,), zeros.

    Args:
        num_tasks: n.
        task_types: classification or regression, one a task; None means all classification.
        clamp: lowest and highest s.

    Raises:
        ValueError: if ``num_tasks`` is not positive, a type is unknown, the clamp is empty, or losses do not fit.

    Example:
        >>> import torch
        >>> from models.layers import UncertaintyWeighting
        >>> layer = UncertaintyWeighting(2, ["classification", "regression"])
        >>> layer(torch.tensor([0.5, 4.0])).item()
        2.5
    """

    def __init__(
        self,
        num_tasks: int,
        task_types: Sequence[str] | None = None,
        clamp: tuple[float, float] = (-10.0, 10.0),
    ) -> None:
        super().__init__()
        if num_tasks < 1:
            raise ValueError(f"num_tasks must be at least 1, got {num_tasks}")
        types = ["classification"] * num_tasks if task_types is None else list(task_types)
        if len(types) != num_tasks or not set(types) <= set(TASK_TYPES):
            raise ValueError(f"task_types must be {num_tasks} of {', '.join(TASK_TYPES)}; got {types}")
        lowest, highest = (float(limit) for limit in clamp)
        if not lowest < highest:
            raise ValueError(f"clamp must be a lower and a higher limit, got {clamp}")
        self.lowest, self.highest = lowest, highest
        self.log_vars = nn.Parameter(torch.zeros(num_tasks))
        self.factors: Tensor
        factors = torch.tensor([0.5 if kind == "regression" else 1.0 for kind in types])
        self.register_buffer("factors", factors, persistent=False)

    def forward(self, losses: Tensor) -> Tensor:
        """The total."""
        if losses.shape != self.log_vars.shape:
            raise ValueError(f"losses must be {list(self.log_vars.shape)}, got {list(losses.shape)}")
        s = self.log_vars.clamp(self.lowest, self.highest)
        return (self.factors * torch.exp(-s) * losses + 0.5 * s).sum()


class CustomMultiLossLayer(nn.Module):
    """Squared errors of several regressions, each under a learned noise level s_i = log sigma_i^2.

    loss = mean over rows of sum_i sum_d (exp(-s_i) (y_id - yhat_id)^2 + s_i): twice the regression form of
    ``UncertaintyWeighting``, with s_i counted once a column, as a Gaussian of D_i dimensions has it.

    Source: Kendall, Gal & Cipolla 2018, arXiv:1705.07115, and its published example. Differs from it: the factor 2.

    Shapes: ys_true and ys_pred, n tensors (B, D_i) each; returns a scalar. State: log_vars (n,), zeros.

    Args:
        nb_outputs: n.

    Raises:
        ValueError: if ``nb_outputs`` is not positive, a list has another length, or a pair of tensors does not fit.

    Example:
        >>> import torch
        >>> from models.layers import CustomMultiLossLayer
        >>> layer = CustomMultiLossLayer(2)
        >>> layer([torch.zeros(4, 1), torch.zeros(4, 3)], [torch.ones(4, 1), torch.ones(4, 3)]).item()
        4.0
    """

    def __init__(self, nb_outputs: int = 2) -> None:
        super().__init__()
        if nb_outputs < 1:
            raise ValueError(f"nb_outputs must be at least 1, got {nb_outputs}")
        self.nb_outputs = nb_outputs
        self.log_vars = nn.Parameter(torch.zeros(nb_outputs))

    def forward(self, ys_true: list[Tensor], ys_pred: list[Tensor]) -> Tensor:
        """The loss; 0 for a batch without rows."""
        if len(ys_true) != self.nb_outputs or len(ys_pred) != self.nb_outputs:
            raise ValueError(
                f"ys_true and ys_pred must hold nb_outputs = {self.nb_outputs} tensors, "
                f"got {len(ys_true)} and {len(ys_pred)}"
            )
        total = self.log_vars.sum() * 0.0
        for i in range(self.nb_outputs):
            true, predicted = ys_true[i], ys_pred[i]
            if true.dim() != 2 or true.shape != predicted.shape:
                raise ValueError(
                    f"ys_true and ys_pred must hold equal shapes (B, D), got {list(true.shape)} "
                    f"and {list(predicted.shape)}"
                )
            s = self.log_vars[i]
            total = total + (torch.exp(-s) * (true - predicted).square() + s).sum()
        return total / max(ys_true[0].size(0), 1)

"""Risks and penalties across environments, as pure functions.

    IRMv1      mean_e R_e + lambda mean_e sum_k (d/dw_k R_e(w f) at w = 1)^2
    V-REx      mean_e R_e + lambda Var_e(R_e)
    GroupDRO   sum_e q_e R_e, q rising where the risk is high

The gradient with respect to the dummy scale w has a closed form for the losses used here, so that no second backward
pass is needed: it is a mean of ``row_gradients``. Letters: B rows, K outputs, E environments.

Sources: Arjovsky et al. 2019, arXiv:1907.02893; Krueger et al. 2021, arXiv:2003.00688; Sagawa et al. 2020,
arXiv:1911.08731. Differs from them: several outputs have one scale each; rows have weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Outcome = Literal["binary", "continuous"]


def row_losses(predictions: Tensor, targets: Tensor, outcome: Outcome) -> Tensor:
    """Binary cross-entropy of logits, or squared error, one value an entry.

    Shapes: predictions, targets and the result (...).
    """
    if outcome == "binary":
        return functional.binary_cross_entropy_with_logits(predictions, targets, reduction="none")
    return (predictions - targets) ** 2


def row_gradients(predictions: Tensor, targets: Tensor, outcome: Outcome) -> Tensor:
    """Derivative of an entry's loss by a scale w on its prediction f, at w = 1.

    binary: (sigmoid(f) - y) f;  continuous: 2 (f - y) f

    Shapes: predictions, targets and the result (...).
    """
    if outcome == "binary":
        return (torch.sigmoid(predictions) - targets) * predictions
    return 2 * (predictions - targets) * predictions


def environment_means(values: Tensor, weights: Tensor, environments: Tensor, count: int) -> Tensor:
    """Weighted mean of each output in each environment; 0, without a gradient, where nothing has a weight.

    Shapes: values, weights (B, K); environments (B,) int64 below ``count``; returns (E, K).
    """
    empty = values.new_zeros((count, values.shape[1]))
    total = empty.index_add(0, environments, values * weights)
    weight = empty.index_add(0, environments, weights.to(values.dtype))
    return total / weight.clamp_min(torch.finfo(values.dtype).tiny)


def first_halves(weights: Tensor, environments: Tensor, count: int) -> Tensor:
    """Every second of the rows that count, for each environment and output: halves that differ by one row at most.

    Rows must stand in random order, or the halves are not exchangeable.

    Shapes: weights (B, K); environments (B,); returns (B, K) bool, True in the first half.
    """
    own = functional.one_hot(environments, count).bool()  # (B, E)
    counted = own[:, :, None] & (weights > 0)[:, None, :]  # (B, E, K)
    rank = (counted.cumsum(dim=0) * counted).sum(dim=1)  # (B, K), from 1 within its environment
    return rank % 2 == 1


def square_penalty(gradients: Tensor, weights: Tensor, environments: Tensor, count: int) -> Tensor:
    """Squared gradient norm of every environment's risk: right for all rows at once, too large for a minibatch.

    Shapes: gradients, weights (B, K); environments (B,); returns (E,), never negative.
    """
    return (environment_means(gradients, weights, environments, count) ** 2).sum(dim=1)


def half_penalty(gradients: Tensor, weights: Tensor, environments: Tensor, count: int) -> Tensor:
    """Product of the gradients of two halves: a minibatch's unbiased estimate of the squared norm.

    E[g1 g2] = E[g]^2 for independent halves, while E[g^2] adds the variance of g. One estimate may be negative, and
    clamping it would bring the bias back. A half without a row makes the product 0.

    Shapes: gradients, weights (B, K); environments (B,); returns (E,).
    """
    first = first_halves(weights, environments, count)
    none = torch.zeros_like(weights)
    one = environment_means(gradients, torch.where(first, weights, none), environments, count)
    two = environment_means(gradients, torch.where(first, none, weights), environments, count)
    return (one * two).sum(dim=1)


def risk_variance(risks: Tensor) -> Tensor:
    """Mean squared distance of the environments' risks from their mean; (E,) -> ()."""
    return risks.var(correction=0)


def updated_group_weights(group_weights: Tensor, risks: Tensor, step_size: float) -> Tensor:
    """q_e exp(eta R_e), normalised to sum 1.

    The largest exponent is taken out first, so that a large risk does not overflow.

    Shapes: group_weights, risks and the result (E,).
    """
    exponents = step_size * risks.detach()
    raised = group_weights * torch.exp(exponents - exponents.max())
    return raised / raised.sum()


def penalised(risk: Tensor, penalty: Tensor, penalty_weight: float) -> Tensor:
    """R + lambda P, the whole divided by lambda once it is above 1 so that the step size does not grow with it."""
    total = risk + penalty_weight * penalty
    return total / penalty_weight if penalty_weight > 1 else total

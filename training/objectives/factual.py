"""Losses of the outcome that was seen, under the treatment that was received."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers.dense import Dense
from models.uplift.inputs import OutcomeKind
from training.uplift.rows import UpliftRows


def outcome_losses(outcome: Tensor, target: Tensor, kind: OutcomeKind) -> Tensor:
    """l(mu, y) of each row: cross-entropy of logits for a binary outcome, else the squared error.

    Shapes: outcome, target (B,); returns (B,).
    """
    if kind == "binary":
        return functional.binary_cross_entropy_with_logits(outcome, target, reduction="none")
    return (outcome - target) ** 2


def received(outcome: Tensor, treatment: Tensor) -> Tensor:
    """The column of each row's own treatment.

    Shapes: outcome (B, K), treatment (B,); returns (B,).
    """
    return outcome.gather(1, treatment.unsqueeze(1)).squeeze(1)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Sum v w / sum w; 0 without gradient where no row weighs anything, also where there are no rows.

    Shapes: values, weights (B,); returns ().
    """
    counted = weights > 0
    return (torch.where(counted, values, 0.0) * weights).sum() / weights.sum().clamp_min(
        torch.finfo(weights.dtype).tiny
    )


def factual_loss(outcome: Tensor, rows: UpliftRows, kind: OutcomeKind, arm_weights: Tensor | None = None) -> Tensor:
    """sum_k w_k sum_{i in k} v_i l(mu_k(x_i), y_i) / sum_i v_i.

    With w_k = n / (K n_k) every arm counts the same: the loss is then the mean over arms of each arm's mean. An arm
    without rows in the batch adds 0 and its head gets no gradient.

    Source: Shalit, Johansson and Sontag 2017, arXiv:1606.03976, equation 3.

    Shapes: outcome (B, K), arm_weights (K,) or None for ones; returns ().
    """
    losses = outcome_losses(received(outcome, rows.treatment), rows.outcome, kind)
    if arm_weights is not None:
        losses = losses * arm_weights[rows.treatment]
    return weighted_mean(losses, rows.weight)


def arm_weights(rows: UpliftRows, treatments: int) -> Tensor:
    """N / (K n_k) with n_k the weight of arm k; 0 for an arm without rows.

    Shapes: returns (K,).
    """
    counts = torch.zeros(treatments).index_add_(0, rows.treatment, rows.weight)
    return torch.where(counts > 0, counts.sum() / (treatments * counts.clamp_min(1e-12)), 0.0)


def kernel_penalty(module: nn.Module) -> Tensor:
    """Sum of the squared kernels of every dense layer inside; biases are free.

    Shapes: returns ().
    """
    return _sum([kernel.square().sum() for kernel in _kernels(module)])


def absolute_kernels(module: nn.Module) -> Tensor:
    """Sum of the kernels' absolute values; biases are free.

    Shapes: returns ().
    """
    return _sum([kernel.abs().sum() for kernel in _kernels(module)])


def _kernels(module: nn.Module) -> list[Tensor]:
    return [layer.kernel for layer in module.modules() if isinstance(layer, Dense)]


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum() if parts else torch.zeros(())


def parameters_of(modules: Iterable[nn.Module]) -> tuple[nn.Parameter, ...]:
    """The parameters of some modules, each once, in order."""
    found = {id(parameter): parameter for module in modules for parameter in module.parameters()}
    return tuple(found.values())

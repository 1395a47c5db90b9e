"""The loss of click and conversion networks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def row_bce(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy of every row; labels of rows with weight 0 may be anything, NaN included.

    Shapes: logits, labels, weights and the result (B, K).
    """
    known = torch.where(weights > 0, labels, torch.zeros_like(labels))
    return functional.binary_cross_entropy_with_logits(logits, known, reduction="none")


def weighted_means(losses: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of each column, 0 where nothing weighs; (B, K) twice -> (K,)."""
    total = (losses * weights).sum(dim=0)
    return total / weights.sum(dim=0).clamp_min(torch.finfo(weights.dtype).tiny)


def weighted_bce(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the binary cross-entropy, one value a task.

    L_k = sum_b w_bk BCE(z_bk, y_bk) / sum_b w_bk

    The mean divides by the sum of the weights, so that a weight of 2 is the row twice. A task none of whose rows
    weighs anything in this batch costs 0 and gets no gradient.

    Shapes: logits, labels, weights (B, K); returns (K,). Labels of rows with weight 0 may be anything, NaN included.
    """
    return weighted_means(row_bce(logits, labels, weights), weights)


def total_loss(task_losses: Tensor, task_weights: Tensor, auxiliary: Tensor, auxiliary_alpha: float) -> Tensor:
    """sum_k v_k L_k + alpha L_aux.

    Source: Zhou et al. 2019, arXiv:1809.03672, equation 8. Differs from it: nothing for one task.

    Shapes: task_losses, task_weights (K,); auxiliary (); returns ().
    """
    return with_auxiliary((task_losses * task_weights).sum(), auxiliary, auxiliary_alpha)


def with_auxiliary(loss: Tensor, auxiliary: Tensor, auxiliary_alpha: float) -> Tensor:
    """L + alpha L_aux; the auxiliary loss is left out, whatever it is, where alpha is 0."""
    return loss + auxiliary_alpha * auxiliary if auxiliary_alpha else loss

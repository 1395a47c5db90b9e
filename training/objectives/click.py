"""The loss of click and conversion networks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def weighted_bce(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of the binary cross-entropy, one value a task.

    L_k = sum_b w_bk BCE(z_bk, y_bk) / sum_b w_bk

    The mean divides by the sum of the weights, so that a weight of 2 is the row twice. A task none of whose rows
    weighs anything in this batch costs 0 and gets no gradient.

    Shapes: logits, labels, weights (B, K); returns (K,). Labels of rows with weight 0 may be anything, NaN included.
    """
    counted = weights > 0
    losses = functional.binary_cross_entropy_with_logits(
        logits, torch.where(counted, labels, torch.zeros_like(labels)), reduction="none"
    )
    total = (losses * weights).sum(dim=0)
    return total / weights.sum(dim=0).clamp_min(torch.finfo(weights.dtype).tiny)


def total_loss(task_losses: Tensor, task_weights: Tensor, auxiliary: Tensor, auxiliary_alpha: float) -> Tensor:
    """sum_k v_k L_k + alpha L_aux.

    Source: Zhou et al. 2019, arXiv:1809.03672, equation 8. Differs from it: nothing for one task.

    Shapes: task_losses, task_weights (K,); auxiliary (); returns ().
    """
    main = (task_losses * task_weights).sum()
    return main + auxiliary_alpha * auxiliary if auxiliary_alpha else main

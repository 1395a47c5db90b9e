"""The loss of clicks and conversions over all exposures, in log space.

    p_both = sigmoid(z_click) sigmoid(z_conversion)
    L_click = BCE(click, sigmoid(z_click));  L_both = BCE(click and conversion, p_both)

The conversion has no loss of its own: it is learned as what turns a click's chance into that of both, on every row and
not on the clicked ones alone.

Source: Ma et al. 2018, Entire Space Multi-Task Model, arXiv:1804.07931. Differs from it: nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.objectives.click import row_bce, weighted_means


def log_both(click: Tensor, conversion: Tensor) -> tuple[Tensor, Tensor]:
    """Logs of p and of 1 - p for p = sigmoid(click) sigmoid(conversion), finite for every finite logit.

    1 - p is the sum of two chances, no click, and a click without a conversion: their logs are added in log space.
    log(1 - exp(log p)) is the same number, but its gradient is a quotient of numbers that underflow.

    Shapes: click, conversion and both results (B,).
    """
    log_p = functional.logsigmoid(click) + functional.logsigmoid(conversion)
    unconverted = functional.logsigmoid(click) + functional.logsigmoid(-conversion)
    return log_p, torch.logaddexp(functional.logsigmoid(-click), unconverted)


def entire_space_losses(logits: Tensor, labels: Tensor, weights: Tensor, click: int, conversion: int) -> Tensor:
    """Weighted mean loss of every task; that of the conversion is the loss of both together.

    Args:
        logits: (B, K).
        labels: (B, K); the conversion's column says whether the row was clicked and converted.
        weights: (B, K), 0 where a label is unknown.
        click: column of the click.
        conversion: column of the conversion.

    Returns:
        (K,).
    """
    losses = row_bce(logits, labels, weights)
    log_p, log_rest = log_both(logits[:, click], logits[:, conversion])
    happened = torch.where(weights[:, conversion] > 0, labels[:, conversion], torch.zeros_like(log_p))
    both = -(happened * log_p + (1 - happened) * log_rest)
    columns = list(losses.unbind(1))
    columns[conversion] = both
    return weighted_means(torch.stack(columns, 1), weights)

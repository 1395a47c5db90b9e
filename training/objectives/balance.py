"""Distances between the representations of two treatments, as penalties of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import torch
from torch import Tensor

Balance = Literal["mmd", "sinkhorn"]

ITERATIONS: Final = 10
SHARPNESS: Final = 10.0


def linear_mmd(control: Tensor, treated: Tensor) -> Tensor:
    """|| mean of the one - mean of the other ||^2, the squared mean discrepancy of the linear kernel.

    Source: Gretton et al. 2012, A Kernel Two-Sample Test.

    Shapes: control (B0, D), treated (B1, D), both with rows; returns ().
    """
    return (treated.mean(0) - control.mean(0)).square().sum()


def sinkhorn(control: Tensor, treated: Tensor, iterations: int = ITERATIONS, sharpness: float = SHARPNESS) -> Tensor:
    """sum_ij P_ij M_ij: cost of the entropic transport plan between two samples of equal weights.

    M_ij = || a_i - b_j ||^2, P = diag(u) exp(- lambda M / mean(M)) diag(v), with u and v from alternating projections
    on the two marginals. The kernel and the projections are taken as constants, so the gradient is that of M alone.

    Source: Cuturi 2013, arXiv:1306.0895; as a penalty: Shalit, Johansson and Sontag 2017, arXiv:1606.03976, appendix.
    Differs from them: computed with logarithms, so that a far pair does not become 0 / 0.

    Shapes: control (B0, D), treated (B1, D), both with rows; returns ().

    Args:
        control: the one sample.
        treated: the other.
        iterations: of the projections.
        sharpness: lambda, relative to the mean distance; larger comes nearer to the plan without entropy.
    """
    distance = squared_distances(control, treated)
    with torch.no_grad():
        kernel = -sharpness * distance / distance.mean().clamp_min(1e-12)
        rows = torch.zeros(control.size(0), 1)
        columns = torch.zeros(1, treated.size(0))
        log_row, log_column = -torch.tensor(float(control.size(0))).log(), -torch.tensor(float(treated.size(0))).log()
        for _ in range(iterations):
            rows = log_row - torch.logsumexp(kernel + columns, 1, keepdim=True)
            columns = log_column - torch.logsumexp(kernel + rows, 0, keepdim=True)
        plan = torch.exp(kernel + rows + columns)
    return (plan * distance).sum()


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|| a_i - b_j ||^2 without a negative from rounding.

    Shapes: a (B0, D), b (B1, D); returns (B0, B1).
    """
    products = a @ b.T
    return (a.square().sum(1, keepdim=True) + b.square().sum(1).unsqueeze(0) - 2.0 * products).clamp_min(0.0)


BALANCES: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {"mmd": linear_mmd, "sinkhorn": sinkhorn}


def imbalance(representation: Tensor, treatment: Tensor, treatments: int, balance: Balance) -> Tensor:
    """Mean distance between the control's and every other treatment's rows; a pair with an empty side adds 0.

    Shapes: representation (B, D), treatment (B,); returns ().
    """
    distance = BALANCES[balance]
    control = representation[treatment == 0]
    total = torch.zeros(())
    for arm in range(1, treatments):
        treated = representation[treatment == arm]
        if len(control) and len(treated):
            total = total + distance(control, treated)
    return total / (treatments - 1)

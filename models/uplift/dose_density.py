"""The density of a dose given the user: piecewise linear on equal bins, integral one."""

import torch
from torch import Tensor, nn

from models.layers.dense import Dense


class DoseDensity(nn.Module):
    """pi(s | x, k) = sum_j p_j tent_j(s) / integral, p = softmax of an affine map of x, tent_j around j / bins.

    The softmax sums to one over the bins + 1 grid points, but what it interpolates integrates to about 1 / bins; the
    trapezoid rule, exact for tents, makes it a density.

    Source: Nie et al. 2021, VCNet, arXiv:2103.07861. Differs from it: the normalisation; one density an arm.

    Letters: U users, K arms, J = bins + 1, G grid points. State: logits.kernel, logits.bias.

    Args:
        in_features: width of x.
        arms: K.
        bins: intervals of [0, 1].

    Raises:
        ValueError: if ``bins`` is not positive.
    """

    points: Tensor
    widths: Tensor

    def __init__(self, in_features: int, arms: int, bins: int) -> None:
        super().__init__()
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self.arms = arms
        self.bins = bins
        self.logits = Dense(in_features, arms * (bins + 1))
        self.register_buffer("points", torch.arange(bins + 1, dtype=torch.float32))
        widths = torch.full((bins + 1,), 1.0 / bins)
        widths[0] = widths[-1] = 0.5 / bins
        self.register_buffer("widths", widths)

    def forward(self, x: Tensor) -> Tensor:
        """Heights of the densities at the grid points: x (U, D); returns (U, K, J)."""
        heights = torch.softmax(self.logits(x).reshape(-1, self.arms, self.bins + 1), -1)
        return heights / (heights * self.widths).sum(-1, keepdim=True)

    def at(self, heights: Tensor, s: Tensor) -> Tensor:
        """Densities at the users' own doses: heights (U, K, J), s (U, K) in [0, 1]; returns (U, K)."""
        return (heights * self.tents(s)).sum(-1)

    def along(self, heights: Tensor, grid: Tensor) -> Tensor:
        """Densities along a grid: heights (U, K, J), grid (G,); returns (U, K, G)."""
        return torch.matmul(heights, self.tents(grid).t())

    def tents(self, s: Tensor) -> Tensor:
        """Weights of the two neighbouring grid points, 0 elsewhere: s (...); returns (..., J)."""
        scaled = torch.clamp(s, 0.0, 1.0).unsqueeze(-1) * self.bins
        return torch.clamp(1.0 - torch.abs(scaled - self.points), min=0.0)

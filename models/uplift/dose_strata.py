"""Heads for strata of the dose: every stratum of every treatment has weights of its own."""

import torch
from torch import Tensor, nn

from models.layers.initializers import initialize


class DoseStrata(nn.Module):
    """Strata of equal width on [0, 1]: a dose on an edge belongs to the upper one, 1 to the last.

    Source: Schwab et al. 2020, DRNet, arXiv:1902.00981.

    Shapes: s (...); returns (...) int64 in 0..strata - 1.

    Raises:
        ValueError: if ``strata`` is not positive.
    """

    edges: Tensor

    def __init__(self, strata: int) -> None:
        super().__init__()
        if strata < 1:
            raise ValueError(f"strata must be at least 1, got {strata}")
        self.strata = strata
        inner = torch.arange(1, strata, dtype=torch.float64) / strata
        self.register_buffer("edges", inner.float(), persistent=False)

    def forward(self, s: Tensor) -> Tensor:
        """Stratum of each dose."""
        if self.strata == 1:
            # A sum over no edges does not export.
            return torch.zeros_like(s, dtype=torch.int64)
        return (s.unsqueeze(-1) >= self.edges).sum(-1)


class StrataDense(nn.Module):
    """y = W_ke^T [x, 2 s - 1] + b_ke for arm k and stratum e; the dose is an input of every such layer.

    Source: Schwab et al. 2020, DRNet, arXiv:1902.00981. Differs from it: nothing.

    Letters: K arms, E strata, U users, G grid points, I and O widths. State: kernel (K, E, I, O), dose (K, E, O),
    bias (K, E, O).
    """

    def __init__(self, arms: int, strata: int, in_features: int, units: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(arms, strata, in_features, units))
        self.dose = nn.Parameter(torch.empty(arms, strata, units))
        self.bias = nn.Parameter(torch.zeros(arms, strata, units))
        initialize(self.kernel, "glorot_uniform", in_features + 1, units)
        initialize(self.dose, "glorot_uniform", in_features + 1, units)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Every stratum's answer: x (K, E or 1, U, I), s (K, U); returns (K, E, U, O), one batched product."""
        centred = (2.0 * s - 1.0).unsqueeze(1).unsqueeze(-1)
        return torch.matmul(x, self.kernel) + centred * self.dose.unsqueeze(2) + self.bias.unsqueeze(2)

    def first_along(self, x: Tensor, s: Tensor, rows: Tensor) -> Tensor:
        """First layer along a grid: x (K, 1, U, I), s (K, G), rows (K, G) = k E + stratum; returns (K, G, U, O).

        The product with x is made once a user and stratum, whatever the grid.
        """
        products = torch.matmul(x, self.kernel).flatten(0, 1).index_select(0, rows.flatten())
        products = products.reshape(s.size(0), s.size(1), products.size(1), products.size(2))
        return products + self._shift(s, rows)

    def along(self, x: Tensor, s: Tensor, rows: Tensor) -> Tensor:
        """Later layer along a grid: x (K, G, U, I), others as ``first_along``; returns (K, G, U, O)."""
        kernels = self.kernel.flatten(0, 1).index_select(0, rows.flatten())
        products = torch.bmm(x.flatten(0, 1), kernels)
        products = products.reshape(s.size(0), s.size(1), products.size(1), products.size(2))
        return products + self._shift(s, rows)

    def _shift(self, s: Tensor, rows: Tensor) -> Tensor:
        flat = rows.flatten()
        dose = self.dose.flatten(0, 1).index_select(0, flat) * (2.0 * s - 1.0).reshape(-1, 1)
        shift = dose + self.bias.flatten(0, 1).index_select(0, flat)
        return shift.reshape(s.size(0), s.size(1), 1, shift.size(1))

"""Layers whose weights are functions of the dose: the truncated power basis and the affine map built on it."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.initializers import initialize


class TruncatedPowerBasis(nn.Module):
    """phi(s) = (1, s, ..., s^n, (s - k_1)+^n, ..., (s - k_m)+^n): splines of degree n with free knots.

    phi(0) is (1, 0, ..., 0), so a map without a dose is one at dose 0. n - 1 derivatives are continuous everywhere.

    Source: Nie et al. 2021, VCNet, arXiv:2103.07861. Differs from it: nothing.

    Shapes: s (...); returns (..., ``size``) with size = 1 + degree + number of knots.

    Args:
        degree: n.
        knots: inside (0, 1), rising; may be empty.

    Raises:
        ValueError: if the degree is not positive or the knots are not rising inside (0, 1).
    """

    knots: Tensor

    def __init__(self, degree: int, knots: Sequence[float]) -> None:
        super().__init__()
        _check(degree, knots)
        self.degree = degree
        self.size = 1 + degree + len(knots)
        self.register_buffer("knots", torch.tensor(list(knots), dtype=torch.float32))

    def forward(self, s: Tensor) -> Tensor:
        """Values of the basis functions."""
        s = s.unsqueeze(-1)
        excess = torch.clamp(s - self.knots, min=0.0)
        powers = [torch.ones_like(s), s]
        truncated = excess
        for _ in range(self.degree - 1):
            powers.append(powers[-1] * s)
            truncated = truncated * excess
        powers.append(truncated)
        return torch.cat(powers, -1)


class BSplineBasis(nn.Module):
    """The same splines in the basis of B-splines: local, not negative, and summing to one at every dose.

    The truncated powers are nearly parallel and of very different size, so that gradient descent on their coefficients
    fits the users long before it fits the dose. A change of basis changes no function. At dose 0 the values are
    (1, 0, ..., 0) here too.

    Source: de Boor 1972, On calculating with B-splines.

    Shapes: s (...) in [0, 1]; returns (..., ``size``).

    Args:
        degree, knots: as ``TruncatedPowerBasis``.
    """

    lower: Tensor
    upper: Tensor
    gaps: Tensor
    places: Tensor

    def __init__(self, degree: int, knots: Sequence[float]) -> None:
        super().__init__()
        _check(degree, knots)
        self.degree = degree
        self.size = 1 + degree + len(knots)
        places = torch.tensor([*[0.0] * (degree + 1), *knots, *[1.0] * (degree + 1)], dtype=torch.float32)
        ends = places.clone()
        ends[-degree - 1] = torch.inf  # dose 1 belongs to the last interval
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("lower", places[:-1], persistent=False)
        self.register_buffer("upper", ends[1:], persistent=False)
        gaps = torch.zeros(degree, len(places) - 1)
        for order in range(1, degree + 1):
            width = places[order:] - places[:-order]
            # A knot of multiplicity: 0 / 0 counts as 0.
            gaps[order - 1, : len(width)] = torch.where(width > 0, 1.0 / width.clamp_min(1e-12), 0.0)
        self.register_buffer("gaps", gaps, persistent=False)

    def forward(self, s: Tensor) -> Tensor:
        """Values of the basis functions."""
        s = torch.clamp(s, 0.0, 1.0).unsqueeze(-1)
        values = ((s >= self.lower) & (s < self.upper)).to(s.dtype)
        count = self.lower.size(0)
        for order in range(1, self.degree + 1):
            left = (s - self.places[: count - order]) * self.gaps[order - 1, : count - order]
            right = (self.places[order + 1 :] - s) * self.gaps[order - 1, 1 : count - order + 1]
            values = left * values[..., :-1] + right * values[..., 1:]
        return values


class VaryingDense(nn.Module):
    """y = A(s)^T x + b(s), one map an arm, every entry of A and b a spline of the dose: A(s) = sum_l A_l phi_l(s).

    ``dose_input`` adds the dose itself to x, which is a second spline times s in the shift.

    Source: Nie et al. 2021, VCNet, arXiv:2103.07861. Differs from it: arms; the dose as a column of x is an option.

    Letters: K arms, U users, P points a user, G grid points, I and O widths, L basis functions. The basis is given, so
    that layers share it. State: kernel (K, I, O, L), shift (K, L or 2 L, O).

    Args:
        arms: K.
        in_features: I.
        units: O.
        basis: L.
        dose_input: see above.
    """

    def __init__(self, arms: int, in_features: int, units: int, basis: int, dose_input: bool = True) -> None:
        super().__init__()
        self.dose_input = dose_input
        self.kernel = nn.Parameter(torch.empty(arms, in_features, units, basis))
        # The variance of a sum over L functions of size one or less: kept near that of one dense layer.
        initialize(self.kernel, "glorot_uniform", in_features, units)
        self.shift = nn.Parameter(torch.zeros(arms, basis * 2 if dose_input else basis, units))

    def shifts(self, s: Tensor, basis: Tensor) -> Tensor:
        """b(s): s (K, P) or (K, U, P), basis with one more axis L; returns O in its place."""
        own = torch.cat([basis, basis * s.unsqueeze(-1)], -1) if self.dose_input else basis
        if s.dim() == 2:
            return torch.matmul(own, self.shift)
        shift = torch.matmul(own.flatten(1, 2), self.shift)
        return shift.reshape(s.size(0), s.size(1), s.size(2), shift.size(2))

    def of_users(self, x: Tensor, s: Tensor, basis: Tensor) -> Tensor:
        """First layer at a user's own doses: x (U, I), s (K, U, P), basis (K, U, P, L); returns (K, U, P, O)."""
        return torch.einsum("ui,kiol,kupl->kupo", x, self.kernel, basis) + self.shifts(s, basis)

    def of_users_along(self, x: Tensor, s: Tensor, basis: Tensor) -> Tensor:
        """First layer along a grid: x (U, I), s (K, G), basis (K, G, L); returns (K, U, G, O).

        The product with x is made once a user, whatever the grid.
        """
        return torch.einsum("ui,kiol,kgl->kugo", x, self.kernel, basis) + self.shifts(s, basis).unsqueeze(1)

    def of_points(self, x: Tensor, s: Tensor, basis: Tensor) -> Tensor:
        """Later layer at a user's own doses: x (K, U, P, I), others as ``of_users``; returns (K, U, P, O)."""
        return torch.einsum("kupi,kiol,kupl->kupo", x, self.kernel, basis) + self.shifts(s, basis)

    def of_points_along(self, x: Tensor, s: Tensor, basis: Tensor) -> Tensor:
        """Later layer along a grid: x (K, U, G, I), others as ``of_users_along``; returns (K, U, G, O).

        A(s) is made once a grid point, whatever the number of users.
        """
        return torch.einsum("kgl,kiol,kugi->kugo", basis, self.kernel, x) + self.shifts(s, basis).unsqueeze(1)


def _check(degree: int, knots: Sequence[float]) -> None:
    if degree < 1:
        raise ValueError(f"degree must be at least 1, got {degree}")
    if any(left >= right for left, right in itertools.pairwise([0.0, *knots, 1.0])):
        raise ValueError(f"knots must rise inside (0, 1), got {tuple(knots)}")

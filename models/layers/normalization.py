"""Normalisation over the last axis: per row (LayerNorm) and per batch (BatchNorm, with renormalisation)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.initializers import Initializer, initialize
from models.layers.regularization import Regularized, Regularizer


class LayerNorm(Regularized):
    """Normalise each row to mean 0 and variance 1, then scale and shift.

    Source: Ba et al. 2016, arXiv:1607.06450. Differs from it: nothing. ``eps`` is 1e-6, torch's default is 1e-5.

    Shapes: x (..., D); returns (..., D). A constant row gives ``beta``.

    Args:
        normalized_dim: D.
        initializer: of ``gamma``.
        regularizer: of ``gamma``.
        eps: added to the biased variance.

    Raises:
        ValueError: if ``normalized_dim`` is not positive or x has another width.

    Example:
        >>> import torch
        >>> from models.layers import LayerNorm
        >>> LayerNorm(2)(torch.tensor([[1.0, 3.0]])).round(decimals=3).tolist()
        [[-1.0, 1.0]]
    """

    def __init__(
        self,
        normalized_dim: int,
        initializer: Initializer = "ones",
        regularizer: Regularizer | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if normalized_dim < 1:
            raise ValueError(f"normalized_dim must be at least 1, got {normalized_dim}")
        self.normalized_dim = normalized_dim
        self.eps = eps
        self.gamma = nn.Parameter(torch.empty(normalized_dim))
        self.beta = nn.Parameter(torch.zeros(normalized_dim))
        initialize(self.gamma, initializer, normalized_dim, normalized_dim)
        self.penalize("gamma", regularizer)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised x."""
        if x.size(-1) != self.normalized_dim:
            raise ValueError(f"the last axis of x must be normalized_dim = {self.normalized_dim}, got {x.size(-1)}")
        return F.layer_norm(x, [self.normalized_dim], self.gamma, self.beta, self.eps)


class BatchNorm(nn.Module):
    """Batch normalisation over every leading axis, optionally with renormalisation.

    Renormalisation, while training: with r = clip(sd_B / sd, rmin, rmax) and d = clip((mean_B - mean) / sd, -dmax,
    dmax), both without gradient, the normalised value is (x - mean_B) / sd_B * r + d, so that training and serving
    agree up to the clipping. Missing limits are no limits; a missing ``rmin`` is 1 / ``rmax``.
    A batch of fewer than two rows has no variance and uses the running statistics.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167; Ioffe 2017, arXiv:1702.03275. Differs from them: nothing.

    Shapes: x (..., D); returns (..., D).

    Args:
        num_features: D.
        eps: added to the variance.
        momentum: share of the running statistics that a batch replaces.
        affine: learn a scale and a shift.
        renorm: renormalise.
        renorm_clipping: limits ``rmax``, ``rmin``, ``dmax``.

    Raises:
        ValueError: if ``num_features`` is not positive, a limit is unknown, or x has another width.

    Example:
        >>> import torch
        >>> from models.layers import BatchNorm
        >>> BatchNorm(1, eps=1e-6).train()(torch.tensor([[1.0], [3.0]])).round(decimals=3).tolist()
        [[-1.0], [1.0]]
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-3,
        momentum: float = 0.01,
        affine: bool = True,
        renorm: bool = False,
        renorm_clipping: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1, got {num_features}")
        limits = dict(renorm_clipping or {})
        unknown = set(limits) - {"rmax", "rmin", "dmax"}
        if unknown:
            raise ValueError(f"renorm_clipping takes rmax, rmin and dmax; got {sorted(unknown)}")
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.renorm = renorm
        self.rmax = float(limits.get("rmax", float("inf")))
        self.rmin = float(limits.get("rmin", 1.0 / self.rmax))
        self.dmax = float(limits.get("dmax", float("inf")))
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised x."""
        if x.size(-1) != self.num_features:
            raise ValueError(f"the last axis of x must have num_features = {self.num_features}, got {x.size(-1)}")
        if self.training:
            rows = x.reshape(-1, self.num_features)
            if rows.size(0) > 1:
                if self.renorm:
                    return self._renormalized(rows).view_as(x)
                normalized = F.batch_norm(
                    rows, self.running_mean, self.running_var, self.weight, self.bias, True, self.momentum, self.eps
                )
                return normalized.view_as(x)
        # One scale and one shift: cheaper than batch_norm on many axes, and without its demand for axis 1.
        scale, shift = self.running_affine()
        return x * scale + shift

    def running_affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (num_features,) that evaluation mode applies."""
        scale = torch.rsqrt(self.running_var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -self.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        return scale, shift

    def _renormalized(self, rows: Tensor) -> Tensor:
        mean = rows.mean(0)
        var = rows.var(0, unbiased=False)
        deviation = torch.sqrt(var + self.eps)
        # A snapshot: the running statistics are replaced below, and their old values stand in the graph.
        running_mean = self.running_mean.clone()
        running_deviation = torch.sqrt(self.running_var + self.eps)
        r = torch.clamp(deviation.detach() / running_deviation, self.rmin, self.rmax)
        d = torch.clamp((mean.detach() - running_mean) / running_deviation, -self.dmax, self.dmax)
        normalized = (rows - mean) / deviation * r + d
        unbiased = var.detach() * (rows.size(0) / (rows.size(0) - 1))
        self.running_mean.lerp_(mean.detach(), self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)
        if self.weight is not None:
            normalized = normalized * self.weight
        if self.bias is not None:
            normalized = normalized + self.bias
        return normalized

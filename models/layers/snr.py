"""Sub-network routing: which sub-networks of one level feed which of the next is learned."""

import math

import torch
from torch import Tensor, nn

from models.layers.initializers import Initializer, initialize
from models.layers.regularization import Regularized, Regularizer

KINDS = ("trans", "aver")
_EDGE = 1e-6


def hard_concrete_ste(x: Tensor) -> Tensor:
    """Clip to [0, 1] with a gradient of 1 everywhere, y = min(max(x, 0), 1).

    Written as a sum, not as an ``autograd.Function``, which could not be saved as TorchScript.

    Source: straight-through estimator: Bengio et al. 2013, arXiv:1308.3432. Differs from it: nothing.

    Shapes: any; returns the same. Raises: nothing.

    Args:
        x: finite numbers.

    Returns:
        The clipped numbers.

    Example:
        >>> import torch
        >>> from models.layers import hard_concrete_ste
        >>> hard_concrete_ste(torch.tensor([-0.5, 0.25, 1.5]))
        tensor([0.0000, 0.2500, 1.0000])
    """
    return torch.clamp(x, 0.0, 1.0).detach() + (x - x.detach())


class SNR(Regularized):
    """Every input sub-network feeds every output sub-network through a gate that learns to open or close.

    Training: s = sigmoid((log u - log(1 - u) + log_alpha) / beta) with u uniform; evaluation: s = sigmoid(log_alpha).
    z = clip(s (zeta - gamma) + gamma, 0, 1), one gate a route, drawn once a call; out_j = sum_i z_ij x_i W_ij, with W
    the identity for ``aver``. A closed route gives exact zeros.

    Source: Ma et al. 2019, AAAI (SNR); hard concrete gates: Louizos et al. 2018, arXiv:1712.01312. Differs from them:
    nothing; ``use_ste`` replaces the gradient of the clip by that of ``hard_concrete_ste``.

    Shapes: num_in_subnet tensors (B, in_subnet_dim), u (R, 1) with R = num_in_subnet * num_out_subnet; returns
    num_out_subnet tensors (B, out_subnet_dim). State: log_alpha (R, 1), zeros, route i * num_out_subnet + j; weight
    (R, in_subnet_dim * out_subnet_dim), row-major, for trans.

    Args:
        num_in_subnet: sub-networks that come in.
        in_subnet_dim: width of each.
        num_out_subnet: sub-networks that go out.
        out_subnet_dim: width of each; for aver the same as ``in_subnet_dim``.
        snr_type: trans or aver.
        zeta: upper end of the stretched gate, above 1.
        gamma: lower end of the stretched gate, below 0.
        beta: temperature of the training gate.
        use_ste: see above.
        initializer: of the weights.
        regularizer: penalty of the weights.

    Raises:
        ValueError: if a size is not positive, ``snr_type`` is unknown, the gate's numbers are not gamma < 0 < 1 < zeta
            with beta > 0, the widths of aver differ, or a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import SNR
        >>> layer = SNR(num_in_subnet=3, in_subnet_dim=4, num_out_subnet=2, out_subnet_dim=5)
        >>> [output.shape for output in layer([torch.ones(6, 4)] * 3)]
        [torch.Size([6, 5]), torch.Size([6, 5])]
    """

    def __init__(
        self,
        num_in_subnet: int,
        in_subnet_dim: int,
        num_out_subnet: int,
        out_subnet_dim: int,
        snr_type: str = "trans",
        zeta: float = 1.1,
        gamma: float = -0.1,
        beta: float = 0.5,
        use_ste: bool = False,
        initializer: Initializer = "glorot_uniform",
        regularizer: Regularizer | None = None,
    ) -> None:
        super().__init__()
        sizes = [num_in_subnet, in_subnet_dim, num_out_subnet, out_subnet_dim]
        if min(sizes) < 1:
            raise ValueError(
                f"num_in_subnet, in_subnet_dim, num_out_subnet and out_subnet_dim must be at least 1, got {sizes}"
            )
        if snr_type not in KINDS:
            raise ValueError(f"snr_type must be one of {', '.join(KINDS)}; got {snr_type!r}")
        if snr_type == "aver" and in_subnet_dim != out_subnet_dim:
            raise ValueError(
                f"out_subnet_dim must equal in_subnet_dim = {in_subnet_dim} for aver, got {out_subnet_dim}"
            )
        if not (gamma < 0.0 and zeta > 1.0):
            raise ValueError(f"gamma and zeta must be below 0 and above 1, got {gamma} and {zeta}")
        if not beta > 0.0:
            raise ValueError(f"beta must be positive, got {beta}")
        self.n_in, self.in_dim, self.n_out, self.out_dim = sizes
        self.zeta, self.gamma, self.beta = zeta, gamma, beta
        self.use_ste = use_ste
        self.edge = _EDGE  # TorchScript reads attributes, not globals
        # A closed route has log_alpha far below this shift, and then costs nothing.
        self.l0_shift = beta * math.log(-gamma / zeta)
        routes = num_in_subnet * num_out_subnet
        self.log_alpha = nn.Parameter(torch.zeros(routes, 1))
        self.weight: nn.Parameter | None = None
        if snr_type == "trans":
            self.weight = nn.Parameter(torch.empty(routes, in_subnet_dim * out_subnet_dim))
            initialize(self.weight, initializer, in_subnet_dim, out_subnet_dim)
            self.penalize("weight", regularizer)

    def forward(self, inputs: list[Tensor], u: Tensor | None = None) -> list[Tensor]:
        """The outgoing sub-networks."""
        if len(inputs) != self.n_in:
            raise ValueError(f"inputs must hold num_in_subnet = {self.n_in} tensors, got {len(inputs)}")
        for subnet in inputs:
            if subnet.dim() != 2 or subnet.size(1) != self.in_dim:
                raise ValueError(f"inputs must hold tensors (B, {self.in_dim}), got {list(subnet.shape)}")
        routes = self.gates(u).view(self.n_in, self.n_out, 1, 1)
        if self.weight is None:
            stacked = torch.stack(inputs, 1)  # (B, I, D)
            mixed = torch.matmul(routes.view(self.n_in, self.n_out).t(), stacked)
            return list(mixed.unbind(1))
        # One product for all routes: (B, I * D) with (I * D, J * O).
        weight = self.weight.view(self.n_in, self.n_out, self.in_dim, self.out_dim) * routes
        weight = weight.transpose(1, 2).reshape(self.n_in * self.in_dim, self.n_out * self.out_dim)
        joined = torch.matmul(torch.cat(inputs, 1), weight)
        return list(joined.view(joined.size(0), self.n_out, self.out_dim).unbind(1))

    def gates(self, u: Tensor | None = None) -> Tensor:
        """Z of every route, (R, 1)."""
        if self.training:
            drawn = torch.rand_like(self.log_alpha) if u is None else u
            if drawn.shape != self.log_alpha.shape:
                raise ValueError(f"u must be {list(self.log_alpha.shape)}, got {list(drawn.shape)}")
            # At 0 and 1 the logit is infinite and its gradient NaN.
            drawn = drawn.clamp(self.edge, 1.0 - self.edge)
            s = torch.sigmoid((torch.log(drawn) - torch.log1p(-drawn) + self.log_alpha) / self.beta)
        else:
            s = torch.sigmoid(self.log_alpha)
        stretched = s * (self.zeta - self.gamma) + self.gamma
        if self.use_ste and self.training:
            return hard_concrete_ste(stretched)
        return torch.clamp(stretched, 0.0, 1.0)

    def l0_loss(self) -> Tensor:
        """Expected number of open routes, sum of sigmoid(log_alpha - beta log(-gamma / zeta)), a scalar."""
        return torch.sigmoid(self.log_alpha - self.l0_shift).sum()

"""Propensity dropout: users whose treatment was nearly certain teach less, because more of the network is dropped."""

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from models.layers.mlp import HiddenLayers

# Above this a kept unit would be scaled more than twentyfold.
LARGEST_DROP: Final = 0.95


def drop_probability(
    propensity: Tensor, gamma: float, entropy_base: float = 2.0, largest: float = LARGEST_DROP
) -> Tensor:
    """1 - gamma / 2 - H / 2 with H = -sum_k g_k log g_k / log2 K: 0 for even chances and gamma 1, at most 0.95.

    With logarithms to base 2, K = 2 and gamma = 1 certainty drops a half and even chances drop nothing. With natural
    logarithms, as circulating code has them, even chances drop 0.153. H of a certain treatment is exactly 0.

    Source: Alaa, Weisz and van der Schaar 2017, arXiv:1706.05966, section 3.2. Differs from it: K treatments, by the
    divisor log2 K that gives the largest entropy the value 1; the limit.

    Shapes: propensity (..., K); returns (...).
    """
    nats = -(propensity * torch.log(propensity.clamp_min(1e-30))).sum(-1)
    entropy = nats * math.log(2.0) / (math.log(entropy_base) * math.log(propensity.size(-1)))
    return torch.clamp(1.0 - 0.5 * gamma - 0.5 * entropy, 0.0, largest)


def check_dropout(gamma: float, entropy_base: float) -> None:
    """Check the two options.

    Raises:
        ValueError: if ``gamma`` is not in (0, 1] or ``entropy_base`` not above 1.
    """
    if not 0.0 < gamma <= 1.0:
        raise ValueError(f"gamma must be in (0, 1], got {gamma}: 0 would drop everything of a certain treatment")
    if not entropy_base > 1.0:
        raise ValueError(f"entropy_base must be above 1, got {entropy_base}")


class MaskedLayers(nn.Module):
    """Hidden layers whose activations are dropped by noise from outside, with a probability of their own for each row.

    A unit stays where its noise is at least the row's probability p and is then scaled by 1 / (1 - p): p = 0 changes
    nothing. Without noise nothing is dropped.

    Letters: M passes, U users, W = ``noise_width``, one a unit. State: layers.dense.{i}.*.

    Args:
        in_features: width of x.
        hidden_layers: widths, at least one.
        activation: of every layer.

    Raises:
        ValueError: as ``HiddenLayers``.
    """

    widths: list[int]

    def __init__(self, in_features: int, hidden_layers: Sequence[int], activation: str) -> None:
        super().__init__()
        self.layers = HiddenLayers(in_features, hidden_layers, activation=activation)
        self.widths = list(hidden_layers)
        self.noise_width = sum(hidden_layers)
        self.out_features = self.layers.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Nothing dropped: x (..., in_features); returns (..., hidden_layers[-1])."""
        y: Tensor = self.layers(x)
        return y

    def masked(self, x: Tensor, drop: Tensor, noise: Tensor) -> Tensor:
        """Dropped: x (U, D) or (M, U, D), drop (U,), noise (U, W) or (M, U, W) in [0, 1); returns noise's shape."""
        p = drop.unsqueeze(-1)
        scale = 1.0 / (1.0 - p)
        start = 0
        for i, (dense, act) in enumerate(zip(self.layers.dense, self.layers.act)):  # noqa: B905 - a strict zip does not script
            kept = noise[..., start : start + self.widths[i]] >= p
            x = act(dense(x)) * torch.where(kept, scale, torch.zeros_like(scale))
            start += self.widths[i]
        return x

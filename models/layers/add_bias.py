"""A bias for tensors with channels in either place."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.initializers import Initializer, initialize
from models.layers.regularization import Regularized, Regularizer

CHANNELS_LAST, CHANNELS_FIRST = "channels_last", "channels_first"


class AddBias(Regularized):
    """y = x + b, with the channels on the last axis or on axis 1.

    ``bias_shape`` [C] is one bias a channel. [*spatial, C] is one a place and channel; it is stored with the channels
    last, and for ``channels_first`` its last axis is moved to the front. Two axes have no spatial part, so the format
    does not matter there.

    Source: Monolith (ByteDance); no paper. Differs from it: it reshapes the full bias for ``channels_first``, which
    puts the values at other places.

    Shapes: x (B, C), or with 1 to 3 spatial axes (B, *spatial, C) or (B, C, *spatial); returns the same. State: bias.

    Args:
        bias_shape: [C] or [*spatial, C].
        initializer: of the bias.
        regularizer: penalty of the bias.

    Raises:
        ValueError: if ``bias_shape`` is empty or not positive, the format is unknown, or x does not fit.

    Example:
        >>> import torch
        >>> from models.layers import AddBias
        >>> layer = AddBias([3], initializer="ones")
        >>> layer(torch.zeros(2, 3, 5), "channels_first").sum().item()
        30.0
    """

    def __init__(
        self,
        bias_shape: Sequence[int],
        initializer: Initializer = "zeros",
        regularizer: Regularizer | None = None,
    ) -> None:
        super().__init__()
        shape = [int(size) for size in bias_shape]
        if not 1 <= len(shape) <= 4 or min(shape) < 1:
            raise ValueError(f"bias_shape must have 1 to 4 positive sizes, got {shape}")
        self.bias_shape = shape
        self.bias = nn.Parameter(torch.empty(shape))
        initialize(self.bias, initializer, math.prod(shape), shape[-1])
        self.penalize("bias", regularizer)

    def forward(self, x: Tensor, data_format: str = "channels_last") -> Tensor:
        """Shifted x."""
        if data_format != "channels_last" and data_format != "channels_first":
            raise ValueError(f"data_format must be 'channels_last' or 'channels_first', got {data_format}")
        if x.dim() < 2 or x.dim() > 5:
            raise ValueError(f"x must have 2 to 5 axes, got {list(x.shape)}")
        first = data_format == "channels_first" and x.dim() > 2
        bias: Tensor = self.bias
        if len(self.bias_shape) == 1:
            if first:
                bias = bias.view([-1] + [1] * (x.dim() - 2))
            fits = x.size(1 if first else -1) == self.bias_shape[0]
        else:
            if first:
                bias = bias.movedim(-1, 0)
            fits = x.dim() == bias.dim() + 1
            if fits:
                for axis in range(bias.dim()):
                    fits = fits and x.size(axis + 1) == bias.size(axis)
        if not fits:
            raise ValueError(f"x must fit a bias of {self.bias_shape} ({data_format}), got {list(x.shape)}")
        return x + bias

"""Activations with parameters of their own: PReLU and Dice, one value per feature of the last axis."""

import torch
from torch import Tensor, nn

from models.layers.normalization import BatchNorm


def _check_width(x: Tensor, num_features: int) -> None:
    if x.size(-1) != num_features:
        raise ValueError(f"the last axis of x must have num_features = {num_features} values, got {x.size(-1)}")


class PReLU(nn.Module):
    """Rectifier with a learned negative slope for each feature.

    y_d = x_d where x_d > 0, alpha_d x_d elsewhere. ``torch.nn.PReLU`` puts its slopes on axis 1, which on
    (B, T, D) is time.

    Source: He et al. 2015, arXiv:1502.01852. Differs from it: nothing.

    Shapes: x (..., D); returns (..., D).

    Raises:
        ValueError: if ``num_features`` is not positive or x has another width.

    Example:
        >>> import torch
        >>> from models.layers import PReLU
        >>> PReLU(2, init=0.5)(torch.tensor([[-2.0, 3.0]])).tolist()
        [[-1.0, 3.0]]
    """

    def __init__(self, num_features: int, init: float = 0.25) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1, got {num_features}")
        self.num_features = num_features
        self.init = init
        self.alpha = nn.Parameter(torch.full((num_features,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        """Rectified x."""
        _check_width(x, self.num_features)
        return torch.relu(x) + self.alpha * torch.clamp(x, max=0.0)

    def parameters_of_name(self) -> dict[str, float | int]:
        """What rebuilds this activation, apart from its name."""
        return {"num_features": self.num_features, "init": self.init}


class Dice(nn.Module):
    """Rectifier whose threshold follows the data.

    p = sigmoid((x - mean) / sqrt(var + eps));  y = p x + (1 - p) alpha x. Statistics are those of the batch over all
    leading axes while training (kept as running ones), the running ones afterwards; a batch of a single row trains
    on the running ones too.

    Source: Zhou et al. 2018, arXiv:1706.06978. Differs from it: nothing; ``affine`` adds a learned scale and shift to
    the normalisation, which the paper does not have.

    Shapes: x (..., D); returns (..., D).

    Args:
        num_features: D.
        epsilon: added to the variance.
        affine: learn a scale and a shift of the normalised value.
        momentum: share of the running statistics that a batch replaces.

    Raises:
        ValueError: if ``num_features`` is not positive or x has another width.

    Example:
        >>> import torch
        >>> from models.layers import Dice
        >>> Dice(2).eval()(torch.tensor([[0.0, 30.0]])).tolist()
        [[0.0, 30.0]]
    """

    def __init__(self, num_features: int, epsilon: float = 1e-8, affine: bool = False, momentum: float = 0.1) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1, got {num_features}")
        self.num_features = num_features
        self.epsilon = epsilon
        self.affine = affine
        self.momentum = momentum
        self.alpha = nn.Parameter(torch.zeros(num_features))
        self.bn = BatchNorm(num_features, eps=epsilon, momentum=momentum, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """Activated x."""
        _check_width(x, self.num_features)
        share = torch.sigmoid(self.bn(x))
        return x * (self.alpha + (1.0 - self.alpha) * share)

    def parameters_of_name(self) -> dict[str, float | int | bool]:
        """What rebuilds this activation, apart from its name."""
        return {
            "num_features": self.num_features,
            "epsilon": self.epsilon,
            "affine": self.affine,
            "momentum": self.momentum,
        }

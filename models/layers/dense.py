"""Dense: an affine map, optionally with columns of a learned length."""

import torch
from torch import Tensor, nn

from models.layers import advanced_activations
from models.layers.initializers import Initializer, initialize
from models.layers.regularization import Regularized, Regularizer


class Dense(Regularized):
    """y = act(x W' + b), with W' = W or, with kernel norm, W'[:, j] = g_j W[:, j] / max(|W[:, j]|, 1e-3).

    g starts as the norms of the columns, so switching the norm on changes nothing at first. A zero column stays a
    zero column and has a finite gradient; a column shorter than 1e-3 is divided by 1e-3, so it is not of unit length.

    Source: Salimans & Kingma 2016, arXiv:1602.07868. Differs from it: the lower limit of the norm.

    Shapes: x (..., in_features); returns (..., units). State: kernel (in, units), bias (units,), kernel_norm (units,),
    inactive_relu_rate (units,).

    Args:
        in_features: width of x.
        units: width of y.
        activation: as ``advanced_activations.get`` takes it; None is linear.
        use_bias: add b.
        kernel_initializer: of W; None means glorot_uniform.
        bias_initializer: of b.
        kernel_regularizer: penalty of W.
        bias_regularizer: penalty of b.
        allow_kernel_norm: use the second form of W'.
        kernel_norm_trainable: learn g, instead of keeping the initial norms.
        partitioner: ignored.
        inactive_relu_monitor: keep, while training a relu, a moving average of the share of zero outputs a unit.
        inactive_relu_monitor_decay: share of that average that a batch replaces.
        optimizer: ignored.

    Raises:
        ValueError: if a width is not positive or x has another width.

    Example:
        >>> import torch
        >>> from models.layers import Dense
        >>> layer = Dense(4, 3, "relu", allow_kernel_norm=True, kernel_norm_trainable=True)
        >>> layer(torch.ones(2, 5, 4)).shape
        torch.Size([2, 5, 3])
        >>> list(layer.state_dict())
        ['kernel', 'bias', 'kernel_norm']
    """

    def __init__(
        self,
        in_features: int,
        units: int,
        activation: advanced_activations.Activation = None,
        use_bias: bool = True,
        kernel_initializer: Initializer | None = "glorot_uniform",
        bias_initializer: Initializer = "zeros",
        kernel_regularizer: Regularizer | None = None,
        bias_regularizer: Regularizer | None = None,
        allow_kernel_norm: bool = False,
        kernel_norm_trainable: bool = False,
        partitioner: object = None,
        inactive_relu_monitor: bool = False,
        inactive_relu_monitor_decay: float = 0.1,
        optimizer: object = None,
    ) -> None:
        super().__init__()
        if in_features < 1 or units < 1:
            raise ValueError(f"in_features and units must be at least 1, got {in_features} and {units}")
        self.in_features = in_features
        self.units = units
        self.activation = advanced_activations.get(activation, units) or advanced_activations.identity()
        self.kernel = nn.Parameter(torch.empty(in_features, units))
        initialize(self.kernel, kernel_initializer or "glorot_uniform", in_features, units)
        self.penalize("kernel", kernel_regularizer)
        self.bias: nn.Parameter | None = None
        if use_bias:
            self.bias = nn.Parameter(torch.empty(units))
            initialize(self.bias, bias_initializer, in_features, units)
            self.penalize("bias", bias_regularizer)
        self.kernel_norm: Tensor | None
        norms = torch.linalg.vector_norm(self.kernel.detach(), dim=0) if allow_kernel_norm else None
        if norms is not None and kernel_norm_trainable:
            self.kernel_norm = nn.Parameter(norms)
        else:
            self.register_buffer("kernel_norm", norms)
        self.monitor_decay = inactive_relu_monitor_decay
        self.monitored = inactive_relu_monitor and isinstance(self.activation, advanced_activations.ReLU)
        if self.monitored:
            self.inactive_relu_rate: Tensor
            self.register_buffer("inactive_relu_rate", torch.zeros(units))

    def effective_kernel(self) -> Tensor:
        """The matrix that multiplies x, (in, units)."""
        if self.kernel_norm is not None:
            squared = torch.sum(self.kernel * self.kernel, 0)
            return self.kernel * (self.kernel_norm / torch.sqrt(torch.clamp_min(squared, 1e-6)))
        return self.kernel

    def affine(self) -> tuple[Tensor, Tensor]:
        """Effective kernel (in, units) and bias (units,), for callers that arrange the product themselves."""
        kernel = self.effective_kernel()
        if self.bias is None:
            return kernel, torch.zeros_like(kernel[0])
        return kernel, self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Mapped x."""
        if x.size(-1) != self.in_features:
            raise ValueError(f"the last axis of x must be in_features = {self.in_features}, got {x.size(-1)}")
        y = torch.matmul(x, self.effective_kernel())
        if self.bias is not None:
            y = y + self.bias
        activated: Tensor = self.activation(y)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._monitor(activated)
        return activated

    @torch.jit.unused
    def _monitor(self, activated: Tensor) -> None:
        if self.monitored and self.training and activated.numel() and not torch.compiler.is_exporting():
            inactive = (activated.detach() == 0).reshape(-1, self.units).to(activated.dtype).mean(0)
            self.inactive_relu_rate.lerp_(inactive, self.monitor_decay)

"""Stacks of Dense layers."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import advanced_activations
from models.layers.advanced_activations import Activation
from models.layers.dense import Dense
from models.layers.initializers import Initializer
from models.layers.normalization import BatchNorm
from models.layers.regularization import Regularized, Regularizer


class MLP(Regularized):
    """Dense layers with weight norm on by default.

    ``activations``: None is relu on all layers but the last; one activation goes on all but the last; a list has one
    entry for every layer, the last included. Each layer is dense, then batch norm (not on the last), then activation,
    after an optional batch norm of the input. Activations with parameters are fresh in every layer.

    Source: Salimans & Kingma 2016, arXiv:1602.07868; renormalisation: Ioffe 2017, arXiv:1702.03275. Differs
    from them: the lower limit of the norm, as ``Dense``.

    Shapes: x (..., in_features); returns (..., output_dims[-1]).

    Args:
        in_features: width of x.
        output_dims: widths of the layers.
        activations: see above.
        initializers: of the kernels, one or one a layer; None means glorot_uniform.
        kernel_regularizer: penalty of the kernels, one or one a layer.
        use_weight_norm: kernel norm of ``Dense``.
        use_learnable_weight_norm: learn the norms.
        use_bias: add biases.
        bias_regularizer: penalty of the biases.
        enable_batch_normalization: normalise the input and every layer but the last.
        batch_normalization_momentum: share of the running statistics that is *kept*.
        batch_normalization_renorm: renormalise; the running statistics then keep the share below.
        batch_normalization_renorm_clipping: limits ``rmax``, ``rmin``, ``dmax``.
        batch_normalization_renorm_momentum: see above.

    Raises:
        ValueError: if ``output_dims`` is empty, a list has another length, or x another width.

    Example:
        >>> import torch
        >>> from models.layers import MLP
        >>> layer = MLP(4, [8, 3], activations=["relu", "sigmoid"], enable_batch_normalization=True)
        >>> layer(torch.ones(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        in_features: int,
        output_dims: Sequence[int],
        activations: Activation | Sequence[Activation] = None,
        initializers: Initializer | Sequence[Initializer] | None = None,
        kernel_regularizer: Regularizer | Sequence[Regularizer | None] | None = None,
        use_weight_norm: bool = True,
        use_learnable_weight_norm: bool = True,
        use_bias: bool = True,
        bias_regularizer: Regularizer | None = None,
        enable_batch_normalization: bool = False,
        batch_normalization_momentum: float = 0.99,
        batch_normalization_renorm: bool = False,
        batch_normalization_renorm_clipping: Mapping[str, float] | None = None,
        batch_normalization_renorm_momentum: float = 0.99,
    ) -> None:
        super().__init__()
        widths = list(output_dims)
        if not widths:
            raise ValueError("output_dims must name at least one layer, got none")
        count = len(widths)
        kernels = _one_each("initializers", initializers, count)
        penalties = _one_each("kernel_regularizer", kernel_regularizer, count)
        self.in_features = in_features
        self.dense = nn.ModuleList(
            Dense(
                fan_in,
                width,
                use_bias=use_bias,
                kernel_initializer=kernels[i],
                kernel_regularizer=penalties[i],
                bias_regularizer=bias_regularizer,
                allow_kernel_norm=use_weight_norm,
                kernel_norm_trainable=use_learnable_weight_norm,
            )
            for i, (fan_in, width) in enumerate(zip([in_features, *widths[:-1]], widths, strict=True))
        )
        self.act = nn.ModuleList(_activations(activations, widths))

        kept = batch_normalization_renorm_momentum if batch_normalization_renorm else batch_normalization_momentum

        def norm(width: int) -> nn.Module:
            if not enable_batch_normalization:
                return nn.Identity()
            clipping = batch_normalization_renorm_clipping
            return BatchNorm(width, momentum=1.0 - kept, renorm=batch_normalization_renorm, renorm_clipping=clipping)

        self.bn_in = norm(in_features)
        self.bn = nn.ModuleList([*(norm(width) for width in widths[:-1]), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        """Output of the last layer."""
        if x.size(-1) != self.in_features:
            raise ValueError(f"the last axis of x must be in_features = {self.in_features}, got {x.size(-1)}")
        x = self.bn_in(x)
        for dense, bn, act in zip(self.dense, self.bn, self.act):  # noqa: B905 - a strict zip does not script
            x = act(bn(dense(x)))
        return x

    def first_affine(self) -> tuple[Tensor, Tensor]:
        """Effective kernel and bias of the first layer."""
        kernel, bias = self.dense[0].affine()  # type: ignore[operator]
        return kernel, bias

    def after_first_affine(self, x: Tensor) -> Tensor:
        """The rest of the stack, from the first layer's affine output (..., output_dims[0]) on.

        For callers that compute that output in a cheaper way than from one concatenated input.
        """
        for i, (dense, bn, act) in enumerate(zip(self.dense, self.bn, self.act)):  # noqa: B905 - a strict zip does not script
            if i > 0:
                x = dense(x)
            x = act(bn(x))
        return x


class HiddenLayers(nn.Module):
    """Dense layers without weight norm, each followed by batch norm, activation and dropout - the last one too.

    Shapes: x (..., in_features); returns (..., hidden_layers[-1]). With ``batchnorm`` the statistics run over all
    leading axes: give it real rows only.

    Args:
        in_features: width of x.
        hidden_layers: widths of the layers, at least one.
        dropout: share of activations dropped while training.
        batchnorm: normalise before every activation.
        activation: of every layer.

    Raises:
        ValueError: if ``hidden_layers`` is empty or ``dropout`` is outside [0, 1).
    """

    def __init__(
        self,
        in_features: int,
        hidden_layers: Sequence[int],
        dropout: float = 0.0,
        batchnorm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        widths = list(hidden_layers)
        if not widths:
            raise ValueError("hidden_layers must name at least one layer, got none")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.in_features = in_features
        self.out_features = widths[-1]
        self.dense = nn.ModuleList(
            Dense(fan_in, width) for fan_in, width in zip([in_features, *widths[:-1]], widths, strict=True)
        )
        self.bn = nn.ModuleList(
            BatchNorm(width, eps=1e-5, momentum=0.1) if batchnorm else nn.Identity() for width in widths
        )
        self.act = nn.ModuleList(_activations([activation] * len(widths), widths))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Output of the last layer."""
        for dense, bn, act in zip(self.dense, self.bn, self.act):  # noqa: B905 - a strict zip does not script
            x = self.dropout(act(bn(dense(x))))
        return x

    def first_affine(self) -> tuple[Tensor, Tensor]:
        """Effective kernel and bias of the first layer."""
        kernel, bias = self.dense[0].affine()  # type: ignore[operator]
        return kernel, bias

    def after_first_affine(self, x: Tensor) -> Tensor:
        """The rest of the stack, from the first layer's affine output (..., hidden_layers[0]) on."""
        for i, (dense, bn, act) in enumerate(zip(self.dense, self.bn, self.act)):  # noqa: B905 - a strict zip does not script
            if i > 0:
                x = dense(x)
            x = self.dropout(act(bn(x)))
        return x


def split_affine(kernel: Tensor, bias: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """[left, right] @ kernel + bias where each left is shared by many rights.

    Args:
        kernel: (L + R, units).
        bias: (units,).
        left: (U, L); L may be 0.
        right: (U, C, R).

    Returns:
        (U, C, units): left's share is computed once a user.
    """
    of_right = torch.matmul(right, kernel[left.size(-1) :])
    if left.size(-1) > 0:
        return of_right + (torch.matmul(left, kernel[: left.size(-1)]) + bias).unsqueeze(1)
    return of_right + bias


def _one_each(name: str, given: Any, count: int) -> list[Any]:
    if isinstance(given, list | tuple):
        if len(given) != count:
            raise ValueError(f"{name} must have one entry for each of {count} layers, got {len(given)}")
        return list(given)
    return [given] * count


def _activations(given: Activation | Sequence[Activation], widths: Sequence[int]) -> list[nn.Module]:
    if isinstance(given, list | tuple):
        wanted = _one_each("activations", given, len(widths))
    else:
        wanted = [*([given if given is not None else "relu"] * (len(widths) - 1)), None]
    modules: list[nn.Module] = []
    for identifier, width in zip(wanted, widths, strict=True):
        found = advanced_activations.get(identifier, width) or advanced_activations.identity()
        if isinstance(found, nn.Module) and found is identifier and any(True for _ in found.parameters()):
            found = copy.deepcopy(found)  # one instance a layer, or layers would share their slopes
        modules.append(found if isinstance(found, nn.Module) else Function(found))
    return modules


class Function(nn.Module):
    """A plain callable in the place of an activation module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """What the function makes of x."""
        y: Tensor = self.function(x)
        return y

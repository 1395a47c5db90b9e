"""The compressed interaction network: explicit interactions of whole embeddings, one degree a layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.advanced_activations import Activation
from models.layers.dense import Dense
from models.layers.initializers import Initializer
from models.layers.regularization import Regularized, Regularizer


class CIN(Regularized):
    """Every map of the last layer times every field of the input, compressed to new maps, all maps summed over D.

    z_k[q, d] = sum_{h, m} kernel_k[h * N + m, q] x_{k-1}[h, d] x_0[m, d] + bias_k[q]; x_k = act(z_k), the last layer
    without activation; out = concat_k sum_d x_k[:, d].

    Source: Lian et al. 2018, arXiv:1803.05170 (xDeepFM). Differs from it: a bias, no activation on the last layer, and
    no split of the maps between output and next layer. An activation with parameters has one value a map.

    Shapes: inputs (B, N, D); returns (B, sum of H_k). Memory B * D * H_{k-1} * N a layer. State: conv.{k}.kernel
    (H_{k-1} * N, H_k), conv.{k}.bias (H_k,), with H_0 = N.

    Args:
        num_feature: N.
        embedding_dim: D.
        hidden_uints: maps H_k of each layer (the spelling of the original).
        activation: of all layers but the last.
        initializer: of the kernels.
        regularizer: penalty of the kernels.
        hidden_units: another name for ``hidden_uints``.

    Raises:
        ValueError: if a size is not positive, there is no layer, both names are given, or the inputs do not fit.

    Example:
        >>> import torch
        >>> from models.layers import CIN
        >>> CIN(num_feature=5, embedding_dim=3, hidden_uints=[4, 2])(torch.ones(8, 5, 3)).shape
        torch.Size([8, 6])
    """

    def __init__(
        self,
        num_feature: int,
        embedding_dim: int,
        hidden_uints: Sequence[int] | None = None,
        activation: Activation = None,
        initializer: Initializer = "glorot_uniform",
        regularizer: Regularizer | None = None,
        *,
        hidden_units: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if num_feature < 1 or embedding_dim < 1:
            raise ValueError(f"num_feature and embedding_dim must be at least 1, got {num_feature} and {embedding_dim}")
        if hidden_uints is not None and hidden_units is not None:
            raise ValueError(f"hidden_uints must be given once, got {list(hidden_uints)} and {list(hidden_units)}")
        maps = list(hidden_uints or hidden_units or [])
        if not maps or min(maps) < 1:
            raise ValueError(f"hidden_uints must name at least one layer of at least one map, got {maps}")
        self.num_feature = num_feature
        self.embedding_dim = embedding_dim
        # The embedding's axis is a batch axis here, so each layer is a Dense over pairs of maps and fields.
        self.conv = nn.ModuleList(
            Dense(
                before * num_feature,
                width,
                activation if k + 1 < len(maps) else None,
                kernel_initializer=initializer,
                kernel_regularizer=regularizer,
            )
            for k, (before, width) in enumerate(zip([num_feature, *maps[:-1]], maps, strict=True))
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """The summed maps of all layers."""
        if inputs.dim() != 3 or inputs.size(1) != self.num_feature or inputs.size(2) != self.embedding_dim:
            raise ValueError(f"inputs must be (B, {self.num_feature}, {self.embedding_dim}), got {list(inputs.shape)}")
        fields = inputs.transpose(1, 2)  # (B, D, N)
        maps = fields
        summed: list[Tensor] = []
        for conv in self.conv:
            maps = conv((maps.unsqueeze(-1) * fields.unsqueeze(-2)).flatten(2))  # (B, D, H)
            summed.append(maps.sum(1))
        return torch.cat(summed, 1)

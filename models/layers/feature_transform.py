"""Transforms of a set of feature embeddings that keep its form: self attention, and re-weighting."""

import torch
from torch import Tensor, nn

from models.layers.initializers import Initializer
from models.layers.merging import FieldMerge
from models.layers.mlp import MLP
from models.layers.regularization import Regularized, Regularizer


class AutoInt(nn.Module):
    """Self attention without parameters: X <- softmax(X X^T) X, ``layer_num`` times.

    The scores are not scaled: embeddings of large norm attend to themselves alone.

    Source: Song et al. 2019, arXiv:1810.11921. Differs from it: no projections, heads and residual connection.

    Shapes: embeds (B, N, D); returns (B, N * D) for concat, (B, N, D) for stack, N tensors (B, D) for None. No
    state.

    Args:
        layer_num: repetitions; 0 only brings the input into the form of ``out_type``.
        out_type: concat, stack or None.
        keep_list: wrap a result that is one tensor in a list.

    Raises:
        ValueError: if ``layer_num`` is negative, ``out_type`` is unknown, or the embeddings have other axes.

    Example:
        >>> import torch
        >>> from models.layers import AutoInt
        >>> AutoInt(layer_num=2, out_type="stack")(torch.ones(4, 5, 3)).shape
        torch.Size([4, 5, 3])
    """

    def __init__(self, layer_num: int = 1, out_type: str | None = "concat", keep_list: bool = False) -> None:
        super().__init__()
        if layer_num < 0:
            raise ValueError(f"layer_num must be at least 0, got {layer_num}")
        self.layer_num = layer_num
        self.merge = FieldMerge(out_type, keep_list)

    def forward(self, embeds: Tensor) -> Tensor | list[Tensor]:
        """Transformed embeddings, in the form of ``out_type``."""
        return self.merge(self.attend(embeds))  # type: ignore[no-any-return]

    def attend(self, embeds: Tensor) -> Tensor:
        """Transformed embeddings as one tensor (B, N, D)."""
        if embeds.dim() != 3:
            raise ValueError(f"embeds must be (B, N, D), got {list(embeds.shape)}")
        for _ in range(self.layer_num):
            embeds = torch.matmul(torch.softmax(torch.matmul(embeds, embeds.transpose(1, 2)), -1), embeds)
        return embeds


class SeNet(Regularized):
    """Weigh every feature by what all features look like: w = sigmoid(relu(m W_1 + b_1) W_2 + b_2), out_n = w_n x_n.

    m_n is the mean of feature n over its width. Without ``cmp_dim`` w is m itself.

    Source: Hu et al. 2018, arXiv:1709.01507; for click prediction Huang et al. 2019, arXiv:1905.09433. Differs from
    them: the tower has biases and weight norm; the latter's bilinear part is not included.

    Shapes: inputs (B, N, D), or N tensors (B, D_i) whose widths may differ unless they are stacked; returns
    (B, sum of D_i) for concat, (B, N, D) for stack, N tensors (B, D_i) for None. State: cmp_tower.dense.{0,1}.*.

    Args:
        num_feature: N.
        cmp_dim: width of the tower's hidden layer, or None.
        initializer: of its kernels; None means glorot_uniform.
        kernel_regularizer: penalty of its kernels.
        bias_regularizer: penalty of its biases.
        on_gpu: ignored.
        out_type: concat, stack or None.
        keep_list: wrap a result that is one tensor in a list.

    Raises:
        ValueError: if a size is not positive, ``out_type`` is unknown, or the inputs do not fit.

    Example:
        >>> import torch
        >>> from models.layers import SeNet
        >>> SeNet(num_feature=2, cmp_dim=4)([torch.ones(8, 3), torch.ones(8, 5)]).shape
        torch.Size([8, 8])
    """

    def __init__(
        self,
        num_feature: int,
        cmp_dim: int | None,
        initializer: Initializer | None = None,
        kernel_regularizer: Regularizer | None = None,
        bias_regularizer: Regularizer | None = None,
        on_gpu: bool = False,
        out_type: str | None = "concat",
        keep_list: bool = False,
    ) -> None:
        super().__init__()
        if num_feature < 1 or (cmp_dim is not None and cmp_dim < 1):
            raise ValueError(f"num_feature and cmp_dim must be at least 1, got {num_feature} and {cmp_dim}")
        self.num_feature = num_feature
        self.merge = FieldMerge(out_type, keep_list)
        self.cmp_tower: MLP | None = None
        if cmp_dim is not None:
            self.cmp_tower = MLP(
                num_feature,
                [cmp_dim, num_feature],
                activations=["relu", "sigmoid"],
                initializers=initializer,
                kernel_regularizer=kernel_regularizer,
                bias_regularizer=bias_regularizer,
            )

    def forward(self, inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """Weighted features, in the form of ``out_type``."""
        if isinstance(inputs, Tensor):
            return self.merge(self.reweigh(inputs))  # type: ignore[no-any-return]
        self._check_fields(inputs)
        weights = self._weights(torch.stack([field.mean(1) for field in inputs], 1))
        weighted: list[Tensor] = []
        for n, field in enumerate(inputs):
            weighted.append(field * weights[:, n : n + 1])
        return self.merge.of_list(weighted)

    def reweigh(self, inputs: Tensor) -> Tensor:
        """Weighted features as one tensor (B, N, D)."""
        if inputs.dim() != 3 or inputs.size(1) != self.num_feature:
            raise ValueError(f"inputs must be (B, {self.num_feature}, D), got {list(inputs.shape)}")
        return inputs * self._weights(inputs.mean(2)).unsqueeze(-1)

    def _weights(self, means: Tensor) -> Tensor:
        if self.cmp_tower is not None:
            return self.cmp_tower(means)  # type: ignore[no-any-return]
        return means

    def _check_fields(self, fields: list[Tensor]) -> None:
        if len(fields) != self.num_feature:
            raise ValueError(f"inputs must hold num_feature = {self.num_feature} tensors, got {len(fields)}")
        for field in fields:
            if field.dim() != 2:
                raise ValueError(f"inputs must hold tensors (B, D_i), got {list(field.shape)}")
            if self.merge.form == "stack" and field.size(1) != fields[0].size(1):
                raise ValueError(
                    f"inputs must be of one width for out_type 'stack', got {fields[0].size(1)} and {field.size(1)}"
                )

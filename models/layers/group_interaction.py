"""Pairwise interactions of features, and keeping their number small: groups, and compression matrices."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.advanced_activations import Activation
from models.layers.initializers import Initializer, initialize
from models.layers.merging import FieldMerge
from models.layers.mlp import MLP
from models.layers.regularization import Regularized, Regularizer

INTERACTIONS = ("dot", "multiply")


class GroupInt(Regularized):
    """Every field of a left group times every field of a right group.

    dot: output l * R + r is <left_l, right_r>. multiply: the elementwise product left_l * right_r; with attention it is
    multiplied by MLP(left_l * right_r), a raw score without softmax or sum. ``FFM`` is the same class.

    Source: Rendle 2010 (FM); Juan et al. 2016 (FFM); attention: Xiao et al. 2017, arXiv:1708.04617. Differs from them:
    the groups are the caller's, and attention scores are neither normalised nor summed over pairs.

    Shapes: L and R tensors (B, D); dot returns (B, L * R); multiply (B, L * R * D) for concat, (B, L * R, D) for stack,
    L * R tensors (B, D) for None. State with attention: mlp.dense.{i}.*.

    Args:
        interaction_type: dot or multiply.
        use_attention: weigh the products; for multiply only.
        attention_units: widths of the scoring network, the last one 1.
        activation: of its hidden layers.
        initializer: of its kernels; None means glorot_normal.
        regularizer: penalty of its kernels.
        out_type: concat, stack or None; without effect on dot.
        keep_list: wrap a result that is one tensor in a list.
        embedding_dim: D; needed with attention.

    Raises:
        ValueError: if a choice is unknown, attention lacks what it needs, a group is empty, or a field does not fit.

    Example:
        >>> import torch
        >>> from models.layers import GroupInt
        >>> left, right = [torch.ones(4, 3)] * 2, [torch.ones(4, 3)] * 5
        >>> GroupInt("dot")(left, right).shape
        torch.Size([4, 10])
        >>> GroupInt("multiply", out_type="stack")(left, right).shape
        torch.Size([4, 10, 3])
    """

    def __init__(
        self,
        interaction_type: str = "multiply",
        use_attention: bool = False,
        attention_units: Sequence[int] | None = None,
        activation: Activation = "relu",
        initializer: Initializer | None = None,
        regularizer: Regularizer | None = None,
        out_type: str | None = "concat",
        keep_list: bool = False,
        embedding_dim: int | None = None,
    ) -> None:
        super().__init__()
        if interaction_type not in INTERACTIONS:
            raise ValueError(f"interaction_type must be one of {', '.join(INTERACTIONS)}; got {interaction_type!r}")
        self.interaction_type = interaction_type
        self.embedding_dim = -1 if embedding_dim is None else embedding_dim
        self.merge = FieldMerge(out_type, keep_list)
        self.mlp: MLP | None = None
        if use_attention:
            if interaction_type != "multiply":
                raise ValueError(f"use_attention needs interaction_type 'multiply', got {interaction_type!r}")
            units = list(attention_units or [])
            if not units or units[-1] != 1:
                raise ValueError(f"attention_units must end with 1, got {units}")
            if embedding_dim is None or embedding_dim < 1:
                raise ValueError(f"embedding_dim must be at least 1 with attention, got {embedding_dim}")
            self.mlp = MLP(
                embedding_dim,
                units,
                activations=activation,
                initializers=initializer or "glorot_normal",
                kernel_regularizer=regularizer,
            )

    def forward(self, left_fields: list[Tensor], right_fields: list[Tensor]) -> Tensor | list[Tensor]:
        """The interactions, in the form of ``out_type``."""
        products = self.interact(left_fields, right_fields)
        if self.interaction_type == "dot":
            return self.merge.wrap(products)
        return self.merge(products)  # type: ignore[no-any-return]

    def interact(self, left_fields: list[Tensor], right_fields: list[Tensor]) -> Tensor:
        """The interactions as one tensor: (B, L * R) for dot, (B, L * R, D) for multiply."""
        left = _stacked("left_fields", left_fields, self.embedding_dim)
        right = _stacked("right_fields", right_fields, left.size(2))
        if self.interaction_type == "dot":
            return torch.matmul(left, right.transpose(1, 2)).flatten(1)
        products = (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1, 2)
        if self.mlp is not None:
            products = products * self.mlp(products)
        return products


FFM = GroupInt


def _stacked(name: str, fields: list[Tensor], width: int) -> Tensor:
    if len(fields) == 0:
        raise ValueError(f"{name} must hold at least one field, got none")
    wanted = fields[0].size(-1) if width < 0 else width
    for field in fields:
        if field.dim() != 2 or field.size(1) != wanted:
            raise ValueError(f"{name} must hold tensors (B, {wanted}), got {list(field.shape)}")
    return torch.stack(fields, 1)


class AllInt(Regularized):
    """All pairs of features through a compression matrix, O = X (X^T W + b).

    Multiplied from the right, so that the (N, N) products never exist.

    Source: Monolith (ByteDance), after Rendle 2010 (FM); no paper of its own. Differs from it: nothing; the documented
    formula leaves out the bias that the code has.

    Shapes: embeddings (B, N, D); returns (B, N * C) for concat, (B, N, C) for stack, N tensors (B, C) for None. State:
    kernel (N, C), bias (C,).

    Args:
        num_feature: N.
        cmp_dim: C.
        initializer: of the kernel; None means glorot_normal.
        regularizer: penalty of the kernel.
        use_bias: add b.
        out_type: concat, stack or None.
        keep_list: wrap a result that is one tensor in a list.

    Raises:
        ValueError: if a size is not positive, ``out_type`` is unknown, or the embeddings do not fit.

    Example:
        >>> import torch
        >>> from models.layers import AllInt
        >>> AllInt(num_feature=5, cmp_dim=2)(torch.ones(4, 5, 3)).shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        num_feature: int,
        cmp_dim: int,
        initializer: Initializer | None = None,
        regularizer: Regularizer | None = None,
        use_bias: bool = True,
        out_type: str | None = "concat",
        keep_list: bool = False,
    ) -> None:
        super().__init__()
        if num_feature < 1 or cmp_dim < 1:
            raise ValueError(f"num_feature and cmp_dim must be at least 1, got {num_feature} and {cmp_dim}")
        self.num_feature = num_feature
        self.merge = FieldMerge(out_type, keep_list)
        self.kernel = nn.Parameter(torch.empty(num_feature, cmp_dim))
        initialize(self.kernel, initializer or "glorot_normal", num_feature, cmp_dim)
        self.penalize("kernel", regularizer)
        self.bias = nn.Parameter(torch.zeros(cmp_dim)) if use_bias else None

    def forward(self, embeddings: Tensor) -> Tensor | list[Tensor]:
        """The interactions, in the form of ``out_type``."""
        return self.merge(self.interact(embeddings))  # type: ignore[no-any-return]

    def interact(self, embeddings: Tensor) -> Tensor:
        """The interactions as one tensor (B, N, C)."""
        if embeddings.dim() != 3 or embeddings.size(1) != self.num_feature:
            raise ValueError(f"embeddings must be (B, {self.num_feature}, D), got {list(embeddings.shape)}")
        compressed = torch.matmul(embeddings.transpose(1, 2), self.kernel)
        if self.bias is not None:
            compressed = compressed + self.bias
        return torch.matmul(embeddings, compressed)


class CDot(Regularized):
    """Interactions through a compression that depends on the input, which is put out too.

    p = flatten(X^T W_p) with index d * P + p; c = MLP(p); out = [flatten(X C), c] with C = c as (D, P).

    Source: Monolith (ByteDance); no paper describes it, its documentation points to Lian et al. 2018, arXiv:1803.05170.
    Differs from it: the caller's ``compress_units`` are not written to.

    Shapes: inputs (B, N, D); returns (B, N * P + D * P). State: project_weight (N, P), compress_tower.dense.{i}.*.

    Args:
        num_feature: N.
        embedding_dim: D.
        project_dim: P.
        compress_units: hidden widths of the MLP; D * P is added as the last one.
        activation: of its hidden layers.
        initializer: of the matrices; None means glorot_normal.
        regularizer: penalty of the matrices.

    Raises:
        ValueError: if a size is not positive, or the inputs do not fit.

    Example:
        >>> import torch
        >>> from models.layers import CDot
        >>> layer = CDot(num_feature=5, embedding_dim=3, project_dim=2, compress_units=[8])
        >>> layer(torch.ones(4, 5, 3)).shape
        torch.Size([4, 16])
    """

    def __init__(
        self,
        num_feature: int,
        embedding_dim: int,
        project_dim: int,
        compress_units: Sequence[int],
        activation: Activation = "relu",
        initializer: Initializer | None = None,
        regularizer: Regularizer | None = None,
    ) -> None:
        super().__init__()
        if min(num_feature, embedding_dim, project_dim) < 1:
            raise ValueError(
                "num_feature, embedding_dim and project_dim must be at least 1, "
                f"got {num_feature}, {embedding_dim} and {project_dim}"
            )
        self.num_feature = num_feature
        self.embedding_dim = embedding_dim
        self.project_dim = project_dim
        self.project_weight = nn.Parameter(torch.empty(num_feature, project_dim))
        initialize(self.project_weight, initializer or "glorot_normal", num_feature, project_dim)
        self.penalize("project_weight", regularizer)
        width = embedding_dim * project_dim
        self.compress_tower = MLP(
            width,
            [*compress_units, width],
            activations=activation,
            initializers=initializer or "glorot_normal",
            kernel_regularizer=regularizer,
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Interactions, then the compression."""
        if inputs.dim() != 3 or inputs.size(1) != self.num_feature or inputs.size(2) != self.embedding_dim:
            raise ValueError(f"inputs must be (B, {self.num_feature}, {self.embedding_dim}), got {list(inputs.shape)}")
        projected = torch.matmul(inputs.transpose(1, 2), self.project_weight).flatten(1)
        compressed: Tensor = self.compress_tower(projected)
        crossed = torch.matmul(inputs, compressed.view(inputs.size(0), self.embedding_dim, self.project_dim))
        return torch.cat([crossed.flatten(1), compressed], 1)

"""DMR's user-to-item relevance: a history summarised by position-aware attention, matched with the target."""

import torch
from torch import Tensor, nn

from models.layers import advanced_activations
from models.layers.advanced_activations import Activation
from models.layers.dense import Dense
from models.layers.initializers import Initializer, initialize
from models.layers.masks import blank_padding, masked_softmax, step_mask
from models.layers.regularization import Regularized, Regularizer


class DMR_U2I(Regularized):
    """Relevance of a user to an item, one value a feature of the item.

    s_t = z . sa(e_t W_e + p_t + b); a = masked softmax over t; out = act((sum_t a_t e_t) W_l + b_l) * item. The scores
    do not see the target. Without ``score_activation`` z . b cancels in the softmax and ``bias`` learns nothing.

    Source: Lyu et al., AAAI 2020 (DMR). Differs from it: the product with the item stays elementwise, and there is no
    auxiliary match loss.

    Shapes: items (B, Di), user_seq (B, T, Du) with T <= seq_length, mask (B, T); returns (B, Di). An empty history
    gives act(b_l) * item. State: pos_emb (seq_length, C), emb_weight (Du, C), z_weight (C, 1), bias (C,), linear.*.

    Args:
        seq_length: the longest history.
        user_dim: Du.
        item_dim: Di.
        cmp_dim: C, width of the score's hidden layer.
        activation: of the final map.
        initializer: of the matrices.
        regularizer: penalty of the matrices.
        score_activation: sa; None is linear.

    Raises:
        ValueError: if a width is not positive, or a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import DMR_U2I
        >>> layer = DMR_U2I(seq_length=9, user_dim=4, item_dim=3, cmp_dim=2)
        >>> layer(torch.ones(2, 3), torch.ones(2, 5, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        seq_length: int,
        user_dim: int,
        item_dim: int,
        cmp_dim: int,
        activation: Activation = "prelu",
        initializer: Initializer = "glorot_uniform",
        regularizer: Regularizer | None = None,
        score_activation: Activation = "tanh",
    ) -> None:
        super().__init__()
        if min(seq_length, user_dim, item_dim, cmp_dim) < 1:
            raise ValueError(
                "seq_length, user_dim, item_dim and cmp_dim must be at least 1, "
                f"got {seq_length}, {user_dim}, {item_dim} and {cmp_dim}"
            )
        self.seq_length = seq_length
        self.user_dim = user_dim
        self.item_dim = item_dim
        self.pos_emb = nn.Parameter(torch.empty(seq_length, cmp_dim))
        self.emb_weight = nn.Parameter(torch.empty(user_dim, cmp_dim))
        self.z_weight = nn.Parameter(torch.ones(cmp_dim, 1))
        self.bias = nn.Parameter(torch.zeros(cmp_dim))
        initialize(self.pos_emb, initializer, seq_length, cmp_dim)
        initialize(self.emb_weight, initializer, user_dim, cmp_dim)
        for name in ("pos_emb", "emb_weight", "z_weight"):
            self.penalize(name, regularizer)
        self.score_activation = advanced_activations.get(score_activation, cmp_dim) or advanced_activations.identity()
        self.linear = Dense(
            user_dim, item_dim, activation, kernel_initializer=initializer, kernel_regularizer=regularizer
        )

    def forward(self, items: Tensor, user_seq: Tensor, mask: Tensor | None = None) -> Tensor:
        """Relevance, feature by feature."""
        if user_seq.dim() != 3 or user_seq.size(2) != self.user_dim or user_seq.size(1) > self.seq_length:
            raise ValueError(
                f"user_seq must be (B, T, {self.user_dim}) with T <= {self.seq_length}, got {list(user_seq.shape)}"
            )
        if items.dim() != 2 or items.size(1) != self.item_dim:
            raise ValueError(f"items must be (B, {self.item_dim}), got {list(items.shape)}")
        real = step_mask(mask, user_seq)
        clean = blank_padding(user_seq, real)
        positioned = torch.matmul(clean, self.emb_weight) + self.pos_emb[: user_seq.size(1)] + self.bias
        scores = torch.matmul(self.score_activation(positioned), self.z_weight).squeeze(-1)
        attention = masked_softmax(scores, real)
        pooled = torch.matmul(attention.unsqueeze(1), clean).squeeze(1)
        relevance: Tensor = self.linear(pooled) * items
        return relevance

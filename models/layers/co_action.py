"""Co-action: one side's embedding is the network that the other side goes through."""

import torch
from torch import Tensor, nn

from models.layers import advanced_activations
from models.layers.advanced_activations import Activation


class CAN(nn.Module):
    """The item's embedding, read as the weights of a small network, applied to the user's embeddings.

    Layer l reads D * D weights W_l (row-major, in by out), then D biases b_l: u <- act(u W_l + b_l), the last layer
    included. Sequences are summed over their real steps; padding must be masked, since a zero embedding still gives
    act(b_l).

    Source: Bian et al. 2020, arXiv:2011.05625. Differs from it: the output of the last layer alone, without multi-order
    enhancement and multi-level independence.

    Shapes: item_emb (B, layer_num * D * (D + 1)). user_emb and result, with M stacked features and T steps:
    neither (B, D) -> (B, D); stacked (B, M, D) -> (B, M, D); sequence (B, T, D), mask (B, T) -> (B, D); both
    (B, M, T, D), mask (B, M, T) -> (B, M, D). An empty sequence gives zeros. State: none, unless the activation has.

    Args:
        user_dim: D.
        layer_num: layers of the network.
        activation: of every layer.
        is_seq: the user side is a sequence.
        is_stacked: the user side stacks several features.

    Raises:
        ValueError: if a size is not positive, or a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import CAN
        >>> layer = CAN(user_dim=2, is_seq=True, is_stacked=False)
        >>> history, item = torch.ones(4, 5, 2), torch.ones(4, 2 * 2 * 3)
        >>> layer(history, item, torch.ones(4, 5, dtype=torch.bool)).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        user_dim: int,
        layer_num: int = 2,
        activation: Activation = "relu",
        is_seq: bool = False,
        is_stacked: bool = True,
    ) -> None:
        super().__init__()
        if user_dim < 1 or layer_num < 1:
            raise ValueError(f"user_dim and layer_num must be at least 1, got {user_dim} and {layer_num}")
        self.user_dim = user_dim
        self.layer_num = layer_num
        self.is_seq = is_seq
        self.user_axes = 2 + int(is_seq) + int(is_stacked)
        self.item_dim = layer_num * user_dim * (user_dim + 1)
        self.activation = advanced_activations.get(activation, user_dim) or advanced_activations.identity()

    def forward(self, user_emb: Tensor, item_emb: Tensor, mask: Tensor | None = None) -> Tensor:
        """The co-action of both sides."""
        self._check(user_emb, item_emb)
        zero = torch.zeros((), dtype=user_emb.dtype, device=user_emb.device)
        real = self._real(user_emb, mask)
        rows = user_emb
        if real is not None:
            rows = torch.where(real, rows, zero)
        if self.user_axes == 2:
            rows = rows.unsqueeze(1)
        rows = self._network(rows, item_emb)
        if real is not None:
            rows = torch.where(real, rows, zero)
        if self.is_seq:
            return rows.sum(-2)
        if self.user_axes == 2:
            return rows.squeeze(1)
        return rows

    def _network(self, rows: Tensor, item_emb: Tensor) -> Tensor:
        dim = self.user_dim
        start = 0
        for _ in range(self.layer_num):
            weight = item_emb[:, start : start + dim * dim].reshape(item_emb.size(0), dim, dim)
            bias = item_emb[:, start + dim * dim : start + dim * (dim + 1)].unsqueeze(1)
            if self.user_axes == 4:
                weight, bias = weight.unsqueeze(1), bias.unsqueeze(1)
            rows = self.activation(torch.matmul(rows, weight) + bias)
            start += dim * (dim + 1)
        return rows

    def _check(self, user_emb: Tensor, item_emb: Tensor) -> None:
        if user_emb.dim() != self.user_axes or user_emb.size(-1) != self.user_dim:
            raise ValueError(
                f"user_emb must have {self.user_axes} axes, the last one {self.user_dim}, got {list(user_emb.shape)}"
            )
        if item_emb.dim() != 2 or item_emb.size(1) != self.item_dim or item_emb.size(0) != user_emb.size(0):
            raise ValueError(
                f"item_emb must be (B, {self.item_dim}) for user_emb {list(user_emb.shape)}, got {list(item_emb.shape)}"
            )

    def _real(self, user_emb: Tensor, mask: Tensor | None) -> Tensor | None:
        if mask is None:
            return None
        if not self.is_seq:
            raise ValueError("mask must be None without is_seq, got a tensor")
        if mask.shape != user_emb.shape[:-1]:
            raise ValueError(f"mask must be {list(user_emb.shape[:-1])}, got {list(mask.shape)}")
        return (mask if mask.dtype == torch.bool else mask >= 1).unsqueeze(-1)

"""What the layers of architecture search share: a weight for every column, drawn while training, fixed for export."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn


class ColumnWeighted(nn.Module):
    """A layer that multiplies the columns of its input with weights of its own making."""

    column_weights: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("column_weights", None, persistent=False)
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def weigh(self, columns: Tensor) -> Tensor:
        """Weighted columns (B, W)."""
        fixed = self.column_weights
        if fixed is not None and not self.training:
            return columns * fixed
        return columns * self.current_weights()

    def current_weights(self) -> Tensor:
        """Weights of all columns, (W,), in the present mode."""
        raise NotImplementedError("current_weights must be defined by the kind of layer")

    def finalize(self) -> Self:
        """Switch to evaluation and compute its weights once, so that an exported graph is one multiplication.

        Switching to training, or loading a state, forgets them.
        """
        self.eval()
        with torch.no_grad():
            self.column_weights = self.current_weights().clone()
        return self

    def train(self, mode: bool = True) -> Self:
        """As ``nn.Module.train``; training forgets what ``finalize`` computed."""
        if mode:
            self.column_weights = None
        return super().train(mode)


def _forget(module: ColumnWeighted, keys: object) -> None:
    del keys
    module.column_weights = None


def different_names(names: Sequence[str], sizes: int) -> list[str]:
    """The names of segments, checked against the number of their sizes.

    Raises:
        ValueError: if there is none, one occurs twice, or their number is another.
    """
    found = list(names)
    if not found or len(set(found)) != len(found):
        raise ValueError(f"segment_names must be different names, at least one; got {found}")
    if len(found) != sizes:
        raise ValueError(f"segment_sizes must have one entry for each of {len(found)} segment_names, got {sizes}")
    return found


def one_hot(index: Tensor, like: Tensor) -> Tensor:
    """A vector of zeros with a one at an index, of the size and dtype of another."""
    return (torch.arange(like.size(0), device=like.device) == index).to(like.dtype)


def gumbel_noise(like: Tensor) -> Tensor:
    """Standard Gumbel noise of the size and dtype of another tensor."""
    return -torch.log(torch.empty_like(like).exponential_())

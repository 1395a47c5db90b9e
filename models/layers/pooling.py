"""Pooling of a sequence over its real steps."""

import torch
from torch import Tensor, nn

MODES = ("sum", "avg", "max")


class SequencePooling(nn.Module):
    """Sum, mean or maximum over the real steps; a row without any gives 0 in all modes.

    Shapes: x (B, T, D), mask (B, T); returns (B, D). ``dim`` names the axis of x that is time; the mask has the batch
    axis and that axis.

    Raises:
        ValueError: if ``mode`` or ``dim`` is unknown, or the mask does not fit.
    """

    def __init__(self, mode: str = "sum", dim: int = 1) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
        if dim not in (1, 2, -1, -2):
            raise ValueError(f"dim must be an axis of (B, T, D) other than the first, got {dim}")
        self.mode = mode
        self.dim = dim

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pooled x."""
        time_axis = self.dim if self.dim > 0 else self.dim + x.dim()
        if time_axis != 1:
            x = x.transpose(1, time_axis)
        if mask is None:
            real = torch.ones_like(x[:, :, :1], dtype=torch.bool)
        else:
            if mask.dim() != 2 or mask.size(1) != x.size(1):
                raise ValueError(f"mask must be (B, T) = ({x.size(0)}, {x.size(1)}), got {list(mask.shape)}")
            real = (mask if mask.dtype == torch.bool else mask >= 1).unsqueeze(-1)
        zero = torch.zeros((), dtype=x.dtype, device=x.device)
        if self.mode == "max":
            if x.size(1) == 0:
                return x.sum(1)
            highest = torch.where(real, x, float("-inf")).amax(1)
            return torch.where(real.any(1), highest, zero)
        total = torch.where(real, x, zero).sum(1)
        if self.mode == "avg":
            return total / real.to(x.dtype).sum(1).clamp_min(1.0)
        return total

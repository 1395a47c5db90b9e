"""Pooling: of a list of equal tensors, and of a sequence over its real steps."""

import torch
from torch import Tensor, nn

MODES = ("sum", "avg", "max")


class Pooling(nn.Module):
    """Base of the poolings of a list: checks the list, returns a single tensor as it is, leaves the rest to ``pool``.

    Source: Monolith (ByteDance); no paper. Differs from it: tensors of different shapes are refused, not broadcast.

    Shapes: a list of tensors of one shape; returns that shape. These do not pool over time.

    Raises:
        NotImplementedError: of ``pool`` itself; the classes below define it.
        ValueError: if the list is empty or the shapes differ.

    Example:
        >>> import torch
        >>> from models.layers import Pooling
        >>> class LastPooling(Pooling):
        ...     def pool(self, vec_list):
        ...         return vec_list[-1]
        >>> LastPooling()([torch.zeros(2), torch.ones(2)])
        tensor([1., 1.])
    """

    def forward(self, vec_list: list[Tensor]) -> Tensor:
        """The pooled tensor."""
        if len(vec_list) == 0:
            raise ValueError("vec_list must hold at least one tensor, got none")
        for vec in vec_list:
            if vec.shape != vec_list[0].shape:
                raise ValueError(
                    f"vec_list must hold tensors of one shape, got {list(vec_list[0].shape)} and {list(vec.shape)}"
                )
        if len(vec_list) == 1:
            return vec_list[0]
        return self.pool(vec_list)

    def pool(self, vec_list: list[Tensor]) -> Tensor:
        """What is made of two or more tensors."""
        raise NotImplementedError("pool must be defined by the kind of pooling")


class SumPooling(Pooling):
    """Sum of a list, y = sum_i x_i.

    Source: Monolith (ByteDance); no paper. Differs from it: as ``Pooling``.

    Shapes: a list of tensors of one shape; returns that shape.

    Raises:
        ValueError: if the list is empty or the shapes differ.

    Example:
        >>> import torch
        >>> from models.layers import SumPooling
        >>> SumPooling()([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])])
        tensor([4., 7.])
    """

    def pool(self, vec_list: list[Tensor]) -> Tensor:
        """The sum."""
        return torch.stack(vec_list).sum(0)


class AvgPooling(Pooling):
    """Mean of a list, y = sum_i x_i / n.

    Source: Monolith (ByteDance); no paper. Differs from it: as ``Pooling``.

    Shapes: a list of tensors of one shape; returns that shape.

    Raises:
        ValueError: if the list is empty or the shapes differ.

    Example:
        >>> import torch
        >>> from models.layers import AvgPooling
        >>> AvgPooling()([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])])
        tensor([2.0000, 3.5000])
    """

    def pool(self, vec_list: list[Tensor]) -> Tensor:
        """The mean."""
        return torch.stack(vec_list).mean(0)


class MaxPooling(Pooling):
    """Elementwise maximum of a list, y = max_i x_i.

    Source: Monolith (ByteDance); no paper. Differs from it: as ``Pooling``.

    Shapes: a list of tensors of one shape; returns that shape.

    Raises:
        ValueError: if the list is empty or the shapes differ.

    Example:
        >>> import torch
        >>> from models.layers import MaxPooling
        >>> MaxPooling()([torch.tensor([1.0, 9.0]), torch.tensor([3.0, 5.0])])
        tensor([3., 9.])
    """

    def pool(self, vec_list: list[Tensor]) -> Tensor:
        """The maximum."""
        return torch.stack(vec_list).amax(0)


class SequencePooling(nn.Module):
    """Sum, mean or maximum over the real steps; a row without any gives 0 in all modes.

    Source: common practice; no paper. Differs from it: the maximum of an empty history is 0, not minus infinity.

    Shapes: x (B, T, D), mask (B, T); returns (B, D). ``dim`` names the axis of x that is time; the mask has the batch
    axis and that axis.

    Raises:
        ValueError: if ``mode`` or ``dim`` is unknown, or the mask does not fit.

    Example:
        >>> import torch
        >>> from models.layers import SequencePooling
        >>> steps = torch.tensor([[[1.0], [3.0], [8.0]]])
        >>> SequencePooling("avg")(steps, torch.tensor([[True, True, False]]))
        tensor([[2.]])
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

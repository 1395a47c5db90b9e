"""Masks over time: which steps of a sequence are real, and a softmax that knows it."""

import torch
from torch import Tensor


def length_to_mask(lengths: Tensor, max_len: int) -> Tensor:
    """Mask of right-padded sequences.

    Args:
        lengths: number of real steps of each row, (B,).
        max_len: width T of the mask.

    Returns:
        Bool (B, T), True on the first ``lengths`` steps of a row.

    Example:
        >>> import torch
        >>> from models.layers import length_to_mask
        >>> length_to_mask(torch.tensor([0, 2]), 3).tolist()
        [[False, False, False], [True, True, False]]
    """
    return torch.arange(max_len, device=lengths.device) < lengths.unsqueeze(-1)


def step_mask(mask: Tensor | None, sequence: Tensor) -> Tensor:
    """The bool mask of a sequence, whatever form it was given in.

    Args:
        mask: (B, T), bool or numeric (a step is real where ``mask >= 1``); None means that every step is real.
        sequence: (B, T, D), gives the sizes.

    Returns:
        Bool (B, T).

    Raises:
        ValueError: if the mask does not have the shape (B, T) of the sequence.
    """
    if mask is None:
        return torch.ones_like(sequence[:, :, 0], dtype=torch.bool)
    if mask.dim() != 2 or mask.size(1) != sequence.size(1):
        raise ValueError(f"mask must be (B, T) = ({sequence.size(0)}, {sequence.size(1)}), got {list(mask.shape)}")
    if mask.dtype != torch.bool:
        return mask >= 1
    return mask


def blank_padding(sequence: Tensor, mask: Tensor) -> Tensor:
    """Zero the padded steps, so that whatever they held (NaN included) cannot reach the result.

    Args:
        sequence: (B, T, D).
        mask: bool (B, T).

    Returns:
        (B, T, D), zero where the mask is False.
    """
    return torch.where(mask.unsqueeze(-1), sequence, torch.zeros((), dtype=sequence.dtype, device=sequence.device))


def masked_softmax(scores: Tensor, mask: Tensor | None, dim: int = -1) -> Tensor:
    """Softmax over the real steps only.

    A row without a real step gives zeros: filling with -inf would give 0/0 there, and filling with a large
    negative number alone a uniform distribution over padding.

    Args:
        scores: any shape.
        mask: bool or numeric (real where ``mask >= 1``), broadcastable to ``scores``; None means all real.
        dim: the axis to normalise.

    Returns:
        Same shape as ``scores``: zero at masked places, summing to one over ``dim`` where anything is real.

    Example:
        >>> import torch
        >>> from models.layers import masked_softmax
        >>> mask = torch.tensor([[True, True, False], [False, False, False]])
        >>> masked_softmax(torch.zeros(2, 3), mask).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    if mask is None:
        return torch.softmax(scores, dim)
    real = mask if mask.dtype == torch.bool else mask >= 1
    if scores.size(dim) == 0:
        return scores
    lowest, tiny = _range_of(scores.dtype)
    filled = torch.where(real, scores, lowest)
    weights = torch.exp(filled - filled.amax(dim, keepdim=True)) * real.to(scores.dtype)
    return weights / weights.sum(dim, keepdim=True).clamp_min(tiny)


def _range_of(dtype: torch.dtype) -> tuple[float, float]:
    # Written out because torch.finfo does not script.
    if dtype == torch.float64:
        return -1.7976931348623157e308, 2.2250738585072014e-308
    if dtype == torch.float16:
        return -65504.0, 6.103515625e-05
    return -3.3895313892515355e38, 1.1754943508222875e-38

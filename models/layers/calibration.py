"""Undoing sampling and calibrating, on tensors: for fitting by gradient and for checks beside a network.

The service does the same in float64 NumPy, ``bundle.correct``, which needs no torch; a test holds the two together.
Sources: He et al. 2014 (ADKDD), Elkan 2001, Saerens et al. 2002, Platt 1999, Zadrozny & Elkan 2002, Guo et al. 2017,
arXiv:1706.04599.
"""

import torch
from torch import Tensor

_FAKE_NEGATIVE_LIMIT = -1e-6

Number = float | Tensor


def undo_negative_downsampling(p: Tensor, rate: Number) -> Tensor:
    """Probability when a share ``rate`` of the negatives was kept: p / (p + (1 - p) / rate).

    Source: He et al. 2014, ADKDD. Differs from it: nothing.

    Args:
        p: (...) in [0, 1].
        rate: above 0; 1 returns p itself.

    Returns:
        (...), 0 where p is 0 and 1 where it is 1.

    Raises:
        ValueError: for p outside [0, 1] or a rate that is not positive.

    Example:
        >>> import torch
        >>> from models.layers import undo_negative_downsampling
        >>> undo_negative_downsampling(torch.tensor([0.0, 0.5, 1.0]), 0.25)
        tensor([0.0000, 0.2000, 1.0000])
    """
    if bool(((p < 0) | (p > 1)).any()):
        raise ValueError(f"p must lie in [0, 1], got {float(p.min())} to {float(p.max())}")
    kept = _positive("rate", rate, p)
    odds = p * kept
    return torch.where(kept == 1.0, p, odds / (odds + (1.0 - p)))


def undo_negative_downsampling_logit(logit: Tensor, rate: Number) -> Tensor:
    """The same in logits, z + log(rate): nothing saturates. The sign is opposite to ``LogitCorrection``'s.

    Source: He et al. 2014, ADKDD. Differs from it: nothing.

    Args:
        logit: (...).
        rate: above 0.

    Raises:
        ValueError: for a rate that is not positive.

    Example:
        >>> import torch
        >>> from models.layers import undo_negative_downsampling_logit
        >>> undo_negative_downsampling_logit(torch.zeros(1), 0.1)
        tensor([-2.3026])
    """
    return logit + torch.log(_positive("rate", rate, logit))


def undo_fake_negative_logit(logit: Tensor) -> Tensor:
    """Logit of p where every impression was first logged as a negative (odds = p): v - log(1 - exp v).

    A biased probability of one half or more belongs to no p below 1: v is held at -1e-6.

    Source: Ktena et al. 2019, arXiv:1907.06558. Differs from it: the limit.

    Args:
        logit: (...).

    Example:
        >>> import torch
        >>> from models.layers import log_sigmoid, undo_fake_negative_logit
        >>> undo_fake_negative_logit(log_sigmoid(torch.tensor([-1.5]))).round(decimals=4)
        tensor([-1.5000])
    """
    v = torch.clamp(logit, max=_FAKE_NEGATIVE_LIMIT)
    return v - torch.log(-torch.expm1(v))


def prior_shift_logit(logit: Tensor, train_prior: Number, serve_prior: Number) -> Tensor:
    """Move to another base rate, z + logit(serve_prior) - logit(train_prior); each class keeps its distribution.

    Source: Elkan 2001; Saerens et al. 2002. Differs from them: nothing.

    Args:
        logit: (...).
        train_prior: share of positives in training.
        serve_prior: share of positives where the scores are used.

    Raises:
        ValueError: if a prior is not inside (0, 1).

    Example:
        >>> import torch
        >>> from models.layers import prior_shift_logit
        >>> torch.sigmoid(prior_shift_logit(torch.zeros(1), train_prior=0.5, serve_prior=0.25))
        tensor([0.2500])
    """
    return logit + _logit("serve_prior", serve_prior, logit) - _logit("train_prior", train_prior, logit)


def platt_scale(logit: Tensor, a: Number, b: Number) -> Tensor:
    """sigmoid(a z + b).

    Source: Platt 1999. Differs from it: a must keep the order of the scores.

    Args:
        logit: (...).
        a: positive.
        b: any.

    Raises:
        ValueError: if a is not positive.

    Example:
        >>> import torch
        >>> from models.layers import platt_scale
        >>> platt_scale(torch.tensor([2.0]), a=0.5, b=-1.0)
        tensor([0.5000])
    """
    return torch.sigmoid(_positive("a", a, logit) * logit + b)


def temperature_scale(logit: Tensor, temperature: Number) -> Tensor:
    """sigmoid(z / temperature).

    Source: Guo et al. 2017, arXiv:1706.04599. Differs from it: one logit instead of a softmax.

    Args:
        logit: (...).
        temperature: positive.

    Raises:
        ValueError: if the temperature is not positive.

    Example:
        >>> import torch
        >>> from models.layers import temperature_scale
        >>> temperature_scale(torch.zeros(2), 3.0)
        tensor([0.5000, 0.5000])
    """
    return torch.sigmoid(logit / _positive("temperature", temperature, logit))


def isotonic_fit(p: Tensor, y: Tensor) -> Tensor:
    """Pool adjacent violators: the non-decreasing fit of y to p with least squares, equal weights. No gradient.

    Source: Zadrozny & Elkan 2002. Differs from it: equal scores are pooled first and get one value.

    Args:
        p: (N,) scores in any order.
        y: (N,) labels.

    Returns:
        (N,) fitted values, in the order of ``p``.

    Raises:
        ValueError: if the shapes differ, there is no point, or a value is not finite.

    Example:
        >>> import torch
        >>> from models.layers import isotonic_fit
        >>> isotonic_fit(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.0, 1.0, 0.0, 1.0]))
        tensor([0.0000, 0.5000, 0.5000, 1.0000])
    """
    if p.dim() != 1 or p.shape != y.shape or p.numel() == 0:
        raise ValueError(f"p and y must be equally long columns, got {list(p.shape)} and {list(y.shape)}")
    if not bool((torch.isfinite(p) & torch.isfinite(y)).all()):
        raise ValueError("p and y must be finite, got NaN or infinity")
    _, point, counts = torch.unique(p.detach(), return_inverse=True, return_counts=True)
    totals = torch.zeros(counts.numel(), dtype=torch.float64).index_add(0, point.cpu(), y.detach().cpu().double())
    blocks: list[tuple[float, int, int]] = []  # sum of labels, number of labels, number of distinct scores
    for label_sum, count in zip(totals.tolist(), counts.tolist(), strict=True):
        block = (float(label_sum), int(count), 1)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            earlier = blocks.pop()
            block = (earlier[0] + block[0], earlier[1] + block[1], earlier[2] + block[2])
        blocks.append(block)
    fitted = [label_sum / count for label_sum, count, scores in blocks for _ in range(scores)]
    return torch.tensor(fitted, dtype=p.dtype, device=p.device)[point]


def isotonic_apply(p: Tensor, x_knots: Tensor, y_knots: Tensor) -> Tensor:
    """Linear interpolation between knots, constant outside them. Plateaus tie scores: rank by the logit instead.

    Source: Zadrozny & Elkan 2002. Differs from it: lines between the knots instead of steps.

    Args:
        p: (...) scores.
        x_knots: (K,) increasing.
        y_knots: (K,).

    Returns:
        (...) values.

    Raises:
        ValueError: if the knots are not equally long columns with increasing x.

    Example:
        >>> import torch
        >>> from models.layers import isotonic_apply
        >>> isotonic_apply(torch.tensor([0.0, 0.25, 0.9]), torch.tensor([0.1, 0.4]), torch.tensor([0.0, 1.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    fits = x_knots.dim() == 1 and x_knots.shape == y_knots.shape and x_knots.numel() > 0
    if not fits or bool((x_knots.diff() <= 0).any()):
        raise ValueError(
            "x_knots and y_knots must be equally long and x_knots must increase, "
            f"got {list(x_knots.shape)} and {list(y_knots.shape)}"
        )
    if x_knots.numel() == 1:
        return y_knots.expand_as(p)
    inside = torch.clamp(p, min=x_knots[0], max=x_knots[-1])
    right = torch.searchsorted(x_knots, inside.contiguous()).clamp(1, x_knots.numel() - 1)
    left = right - 1
    share = (inside - x_knots[left]) / (x_knots[right] - x_knots[left])
    return y_knots[left] + share * (y_knots[right] - y_knots[left])


def _positive(name: str, value: Number, like: Tensor) -> Tensor:
    found = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if not bool(((found > 0) & torch.isfinite(found)).all()):
        raise ValueError(f"{name} must be positive and finite, got a minimum of {float(found.min())}")
    return found


def _logit(name: str, prior: Number, like: Tensor) -> Tensor:
    found = torch.as_tensor(prior, dtype=like.dtype, device=like.device)
    if not bool(((found > 0) & (found < 1)).all()):
        raise ValueError(f"{name} must lie inside (0, 1), got {float(found.min())} to {float(found.max())}")
    return torch.log(found) - torch.log1p(-found)

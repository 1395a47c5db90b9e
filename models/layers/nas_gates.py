"""Architecture search over whole segments: which of several input segments stay."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.column_weights import ColumnWeighted, different_names, gumbel_noise

STE_TYPES = ("none", "clip", "softplus")


class _SegmentGates(ColumnWeighted):
    """One gate a segment of the input's columns."""

    def __init__(self, segment_names: Sequence[str], segment_sizes: Sequence[int]) -> None:
        super().__init__()
        self.segment_names = different_names(segment_names, len(segment_sizes))
        sizes = [int(size) for size in segment_sizes]
        if min(sizes) < 1:
            raise ValueError(f"segment_sizes must be positive, got {sizes}")
        self.width = sum(sizes)
        self.alpha = nn.Parameter(torch.zeros(len(sizes)))
        self.segment_of_column: Tensor
        columns = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.register_buffer("segment_of_column", columns, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """X with the columns of closed segments set to zero."""
        if x.dim() != 2 or x.size(1) != self.width:
            raise ValueError(f"x must be (B, {self.width}), got {list(x.shape)}")
        return self.weigh(x)

    def current_weights(self) -> Tensor:
        """Gates of all columns, (W,), in the present mode."""
        return self.gates().index_select(0, self.segment_of_column)

    def gates(self) -> Tensor:
        """Gates of all segments, (S,), in the present mode."""
        raise NotImplementedError("gates must be defined by the kind of layer")

    def selected_segments(self) -> list[str]:
        """Names of the segments that are open in evaluation."""
        was_training = self.training
        self.training = False
        opened = self.gates().tolist()
        self.training = was_training
        return [name for name, gate in zip(self.segment_names, opened, strict=True) if gate > 0]


class NASGatingLayer(_SegmentGates):
    """A Bernoulli gate for every segment: out = x with each segment times its gate.

    p = sigmoid(alpha). Training: g = 1[u < p] with u uniform, drawn once a call; evaluation: g = 1[alpha >= 0]. The
    gradient of g with respect to alpha is p (1 - p) for none, 1[|alpha| <= 1] for clip, sigmoid(alpha) for softplus.

    Source: the published part of Monolith (ByteDance) has this layer's documentation alone; straight-through
    estimator: Bengio et al. 2013, arXiv:1308.3432. Differs from them: the definition above is our own.

    Shapes: x (B, sum of sizes); returns the same. State: alpha (S,), zeros.

    Args:
        segment_names: a name for each segment.
        segment_sizes: columns of each.
        ste_type: none, clip or softplus.

    Raises:
        ValueError: if names repeat, lengths differ, a size is not positive, ``ste_type`` is unknown, or x does not fit.

    Example:
        >>> import torch
        >>> from models.layers import NASGatingLayer
        >>> layer = NASGatingLayer(["user", "item"], [2, 3]).eval()
        >>> _ = layer.load_state_dict({"alpha": torch.tensor([-1.0, 1.0])})
        >>> layer(torch.ones(1, 5))
        tensor([[0., 0., 1., 1., 1.]])
        >>> layer.selected_segments()
        ['item']
    """

    def __init__(self, segment_names: Sequence[str], segment_sizes: Sequence[int], ste_type: str = "none") -> None:
        super().__init__(segment_names, segment_sizes)
        if ste_type not in STE_TYPES:
            raise ValueError(f"ste_type must be one of {', '.join(STE_TYPES)}; got {ste_type!r}")
        self.ste_type = ste_type

    def gates(self) -> Tensor:
        """Gates of all segments, (S,), in the present mode."""
        p = torch.sigmoid(self.alpha)
        if not self.training:
            return (self.alpha >= 0.0).to(p.dtype)
        if self.ste_type == "clip":
            surrogate = torch.clamp(self.alpha, -1.0, 1.0)
        elif self.ste_type == "softplus":
            surrogate = torch.clamp(self.alpha, min=0.0) + torch.log1p(torch.exp(-torch.abs(self.alpha)))
        else:
            surrogate = p
        opened = (torch.rand_like(p) < p).to(p.dtype)
        return opened + (surrogate - surrogate.detach())


class SimpleNasLayer(_SegmentGates):
    """Keep the segments that together have most of the weight.

    p = softmax((alpha + Gumbel noise while training) / temperature). In the order of falling p, a segment is kept if it
    is the first or if those before it sum to less than the threshold; 1 or more keeps all, 0 or less keeps one.
    out = x with each segment times keep, with the gradient of p.

    Source: the published part of Monolith (ByteDance) has this layer's documentation alone; Gumbel softmax: Jang et al.
    2017, arXiv:1611.01144. Differs from them: the definition above is our own.

    Shapes: x (B, sum of sizes); returns the same. State: alpha (S,), zeros.

    Args:
        segment_names: a name for each segment.
        segment_sizes: columns of each.
        threshold: see above.
        temperature: of the softmax.
        use_gumbel: add noise while training.

    Raises:
        ValueError: if names repeat, lengths differ, a size or the temperature is not positive, or x does not fit.

    Example:
        >>> import torch
        >>> from models.layers import SimpleNasLayer
        >>> layer = SimpleNasLayer(["user", "item"], [2, 3], threshold=0.5, temperature=1.0).eval()
        >>> _ = layer.load_state_dict({"alpha": torch.tensor([0.0, 2.0])})
        >>> layer.selected_segments()
        ['item']
    """

    def __init__(
        self,
        segment_names: Sequence[str],
        segment_sizes: Sequence[int],
        threshold: float = 0.9,
        temperature: float = 1.5,
        use_gumbel: bool = True,
    ) -> None:
        super().__init__(segment_names, segment_sizes)
        if not temperature > 0.0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if threshold != threshold:
            raise ValueError(f"threshold must be a number, got {threshold}")
        self.threshold = threshold
        self.temperature = temperature
        self.use_gumbel = use_gumbel

    def gates(self) -> Tensor:
        """Gates of all segments, (S,), in the present mode."""
        scores: Tensor = self.alpha
        if self.training and self.use_gumbel:
            scores = scores + gumbel_noise(scores)
        p = torch.softmax(scores / self.temperature, 0)
        kept = self._kept(p)
        if not self.training:
            return kept
        return kept + (p - p.detach())

    def _kept(self, p: Tensor) -> Tensor:
        if self.threshold >= 1.0:
            return torch.ones_like(p)  # a rounded sum of all before the last may reach 1
        # Ahead of segment i: the larger ones, and of equal ones those with a lower index. No sort, which has no export.
        places = torch.arange(p.size(0), device=p.device)
        larger = p.unsqueeze(0) > p.unsqueeze(1)
        earlier = (p.unsqueeze(0) == p.unsqueeze(1)) & (places.unsqueeze(0) < places.unsqueeze(1))
        ahead = larger | earlier
        before = (ahead.to(p.dtype) * p.unsqueeze(0)).sum(1)
        return ((before < self.threshold) | ~ahead.any(1)).to(p.dtype)

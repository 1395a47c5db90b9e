"""Architecture search over embedding widths: which of several sizes each feature gets."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.column_weights import ColumnWeighted, different_names, gumbel_noise, one_hot

SHARE_MODES = ("left", "diff", "random", "none")
GRAD_MODES = ("discrete", "gumbel", "none")
_START_SLOPE = 1e-3


class NASSelectionLayer(ColumnWeighted):
    """Choose one width for every feature: out = concat over f of x_f * (y_f @ mask_f).

    mask_f has a row of zeros and ones a choice. left: the first size_c columns; diff: the columns from the size before
    to size_c; random: size_c columns drawn from (seed, f, c); none: a block of its own for every choice, so that the
    input is as wide as all sizes together. With p = softmax(alpha / temperature):

    ================  =============================================  ======================
    weight_grad_mode  y while training                               y in evaluation
    ================  =============================================  ======================
    discrete          one-hot c ~ p, gradient of p                   one-hot argmax(alpha)
    gumbel            softmax((alpha + Gumbel noise) / temperature)  one-hot argmax(alpha)
    none              p                                              p
    ================  =============================================  ======================

    Equal alphas choose the lowest index. alpha starts at 0.001 c, so that an untrained layer chooses the last size.
    ``finalize`` turns the choice into one multiplication, for export.

    Source: the published part of Monolith (ByteDance) has this layer's documentation alone; related: Joglekar et al.
    2019, arXiv:1907.04471; Cheng et al. 2020, arXiv:2006.04466; Jang et al. 2017, arXiv:1611.01144. Differs from them:
    the definition above is our own.

    Shapes: a tensor (B, W_f) a feature, W_f its largest size, or the sum of its sizes for none; returns
    (B, sum of W_f). State: alpha.{f} (C_f,); mask.{f} (C_f, W_f) for random.

    Args:
        segment_names: a name for each feature.
        segment_sizes: the sizes that each may get.
        temperature: of the softmax.
        embedding_share_mode: left, diff, random or none.
        weight_grad_mode: discrete, gumbel or none.
        seed: of the random masks.

    Raises:
        ValueError: if names repeat, lengths differ, a size is not positive or, for diff, does not increase, the
            temperature is not positive, a mode is unknown, or a segment does not fit.

    Example:
        >>> import torch
        >>> from models.layers import NASSelectionLayer
        >>> layer = NASSelectionLayer(["age", "item"], [[1, 2], [2, 4]], embedding_share_mode="left").eval()
        >>> layer([torch.ones(3, 2), torch.ones(3, 4)]).shape
        torch.Size([3, 6])
        >>> layer.selected_sizes()
        {'age': 2, 'item': 4}
    """

    def __init__(
        self,
        segment_names: Sequence[str],
        segment_sizes: Sequence[Sequence[int]],
        temperature: float = 1.0,
        embedding_share_mode: str = "none",
        weight_grad_mode: str = "discrete",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if embedding_share_mode not in SHARE_MODES:
            raise ValueError(
                f"embedding_share_mode must be one of {', '.join(SHARE_MODES)}; got {embedding_share_mode!r}"
            )
        if weight_grad_mode not in GRAD_MODES:
            raise ValueError(f"weight_grad_mode must be one of {', '.join(GRAD_MODES)}; got {weight_grad_mode!r}")
        if not temperature > 0.0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.segment_names = different_names(segment_names, len(segment_sizes))
        self.segment_sizes = [self._choices(list(sizes), embedding_share_mode) for sizes in segment_sizes]
        self.temperature = temperature
        self.weight_grad_mode = weight_grad_mode
        masks = [_mask(sizes, embedding_share_mode, seed, feature) for feature, sizes in enumerate(self.segment_sizes)]
        self.widths = [mask.size(1) for mask in masks]
        self.alpha = nn.ParameterList(
            nn.Parameter(_START_SLOPE * torch.arange(len(sizes))) for sizes in self.segment_sizes
        )
        # Drawn masks belong to the weights that were trained under them; the others follow from the arguments.
        self.mask = _Masks(masks, persistent=embedding_share_mode == "random")
        # One product for all features; the masks above are what it is made of.
        self.blocks: Tensor
        self.register_buffer("blocks", torch.block_diag(*masks), persistent=False)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_join_masks)  # type: ignore[no-untyped-call]

    def _choices(self, sizes: list[int], share_mode: str) -> list[int]:
        """The sizes of one feature, checked."""
        if not sizes or min(sizes) < 1:
            raise ValueError(f"segment_sizes must hold positive sizes for every segment, got {sizes}")
        if share_mode == "diff" and sorted(set(sizes)) != sizes:
            raise ValueError(f"segment_sizes must increase for embedding_share_mode 'diff', got {sizes}")
        return sizes

    def forward(self, segments: list[Tensor]) -> Tensor:
        """The chosen columns; the others are zero."""
        if len(segments) != len(self.widths):
            raise ValueError(f"segments must hold {len(self.widths)} tensors, got {len(segments)}")
        for feature in range(len(self.widths)):
            segment = segments[feature]
            if segment.dim() != 2 or segment.size(1) != self.widths[feature]:
                raise ValueError(
                    f"segment {feature} of segments must be (B, {self.widths[feature]}), got {list(segment.shape)}"
                )
        return self.weigh(torch.cat(segments, 1))

    def selected_sizes(self) -> dict[str, int]:
        """The size that each feature has in evaluation, by name."""
        chosen = [int(torch.argmax(alpha)) for alpha in self.alpha]
        return {
            name: sizes[choice]
            for name, sizes, choice in zip(self.segment_names, self.segment_sizes, chosen, strict=True)
        }

    def current_weights(self) -> Tensor:
        """Weights of all columns, (sum of W_f,), in the present mode."""
        choices: list[Tensor] = []
        for alpha in self.alpha:
            choices.append(self._choice(alpha))
        return torch.matmul(torch.cat(choices), self.blocks)

    def _choice(self, alpha: Tensor) -> Tensor:
        """Y of one feature, (C_f,)."""
        p = torch.softmax(alpha / self.temperature, 0)
        if self.weight_grad_mode == "none":
            return p
        if not self.training:
            return one_hot(torch.argmax(alpha), alpha)
        if self.weight_grad_mode == "gumbel":
            return torch.softmax((alpha + gumbel_noise(alpha)) / self.temperature, 0)
        drawn = torch.multinomial(p.detach(), 1)[0]
        return one_hot(drawn, alpha) + (p - p.detach())


class MixedNASLayer(NASSelectionLayer):
    """``NASSelectionLayer`` that may also drop a feature: out = concat over f of x_f * (y_f @ mask_f).

    Where the first size is not 0, a choice of size 0, a mask row of zeros, is put in front.

    Source: as ``NASSelectionLayer``. Differs from it: the choice of size 0.

    Shapes: as ``NASSelectionLayer``; the choice of size 0 adds an entry to alpha.{f} and no column.

    Raises:
        ValueError: as ``NASSelectionLayer``; only the first size may be 0, and it may not be the only one.

    Example:
        >>> import torch
        >>> from models.layers import MixedNASLayer
        >>> layer = MixedNASLayer(["age"], [[2, 4]], embedding_share_mode="left").eval()
        >>> layer.segment_sizes
        [[0, 2, 4]]
        >>> layer([torch.ones(3, 4)]).shape
        torch.Size([3, 4])
    """

    def _choices(self, sizes: list[int], share_mode: str) -> list[int]:
        return [0, *super()._choices(sizes[1:] if sizes and sizes[0] == 0 else sizes, share_mode)]


class _Masks(nn.Module):
    """Buffers "0", "1", ... one a feature."""

    def __init__(self, masks: Sequence[Tensor], persistent: bool) -> None:
        super().__init__()
        for feature, mask in enumerate(masks):
            self.register_buffer(str(feature), mask, persistent=persistent)


def _join_masks(layer: nn.Module, keys: object) -> None:
    """After loading: drawn masks come with the state."""
    del keys
    layer.blocks = torch.block_diag(*layer.get_submodule("mask").buffers())  # type: ignore[no-untyped-call]


def _mask(sizes: list[int], share_mode: str, seed: int, feature: int) -> Tensor:
    """Zeros and ones (C, W) of one feature."""
    width = sum(sizes) if share_mode == "none" else max(sizes)
    mask = torch.zeros(len(sizes), width)
    before = 0
    for choice, size in enumerate(sizes):
        if share_mode == "random":
            # One stream a choice: adding a choice leaves the masks of the others as they were.
            generator = torch.Generator().manual_seed((seed * 1_000_003 + feature) * 1_000_003 + choice)
            mask[choice, torch.randperm(width, generator=generator)[:size]] = 1.0
        elif share_mode == "left":
            mask[choice, :size] = 1.0
        elif share_mode == "diff":
            mask[choice, before:size] = 1.0
            before = size
        else:
            mask[choice, before : before + size] = 1.0
            before += size
    return mask

"""What a whole history says without attention: its pooled embeddings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.layers.masks import blank_padding
from models.layers.pooling import MODES, SequencePooling

RECENT = "recent"


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryPooling:
    """A history field pooled over time, for the user side; with ``candidate`` also multiplied with that field.

    Attributes:
        history: the field.
        mode: sum, avg, max, or ``recent``: a mean in which a step weighs half of the one ``half_life`` steps later.
        candidate: a candidate field of the same width.
        half_life: in steps, for ``recent``.

    Raises:
        ValueError: if ``mode`` is unknown or ``half_life`` is not positive.
    """

    history: str
    mode: str = "avg"
    candidate: str | None = None
    half_life: float = 5.0

    def __post_init__(self) -> None:
        """Check the mode."""
        modes = (*MODES, RECENT)
        if self.mode not in modes:
            raise ValueError(f"pooling of {self.history!r}: mode must be one of {', '.join(modes)}; got {self.mode!r}")
        if self.half_life <= 0:
            raise ValueError(f"pooling of {self.history!r}: half_life must be positive, got {self.half_life}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


class RecencyPooling(nn.Module):
    """Mean over the real steps, each weighing half of the one ``half_life`` real steps after it.

    Shapes: x (B, T, D), mask bool (B, T); returns (B, D), zero where a row has no real step.
    """

    def __init__(self, half_life: float) -> None:
        super().__init__()
        self.half_life = half_life

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Pooled x."""
        real = mask.to(x.dtype)
        steps_back = real.sum(1, keepdim=True) - real.cumsum(1)
        weights = torch.exp2(-steps_back / self.half_life) * real
        total = (blank_padding(x, mask) * weights.unsqueeze(-1)).sum(1)
        return total / weights.sum(1, keepdim=True).clamp_min(1.0)  # the newest step alone weighs 1


class PooledHistory(nn.Module):
    """The module of a ``HistoryPooling``.

    Shapes: candidates: one (U, C, D) a field, behaviours: one (U, T, D) a field, mask (U, T, S); returns the pooled
    embedding (U, D), and it times the candidate (U, C, D), or (U, 1, 0) without a partner.

    Args:
        entry: what to pool and how.
        field: position of the history field.
        stream: its column of the mask.
        partner: position of the candidate field that it is multiplied with, -1 for none.
    """

    def __init__(self, entry: HistoryPooling, field: int, stream: int, partner: int) -> None:
        super().__init__()
        self.field = field
        self.stream = stream
        self.partner = partner
        self.pooling: nn.Module
        if entry.mode == RECENT:
            self.pooling = RecencyPooling(entry.half_life)
        else:
            self.pooling = SequencePooling(entry.mode)

    def forward(
        self, candidates: list[Tensor], behaviours: list[Tensor], behaviour_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The pooled embedding, and the candidate against it."""
        pooled: Tensor = self.pooling(behaviours[self.field], behaviour_mask[:, :, self.stream])
        if self.partner < 0:
            return pooled, pooled.unsqueeze(1)[..., :0]
        return pooled, candidates[self.partner] * pooled.unsqueeze(1)


def joint_mask(behaviour_mask: Tensor, streams: list[int]) -> Tensor:
    """Steps that are real in all of some streams: mask (U, T, S) -> (U, T)."""
    real = behaviour_mask[:, :, streams[0]]
    for stream in streams[1:]:
        real = real & behaviour_mask[:, :, stream]
    return real


def build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """A description such as ``HistoryPooling`` from plain values.

    Raises:
        ValueError: naming the place and the key that is unknown or missing.
    """
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error

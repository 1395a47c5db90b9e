"""DMR: how relevant a candidate is to what the user's history sums up to."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.ctr.fields import PairedFields
from models.ctr.sessions import placed
from models.inputs import InputLayout
from models.layers.attention_group import AttentionGroup
from models.layers.dense import Dense
from models.layers.dmr import DMR_U2I


@dataclass(frozen=True, kw_only=True, slots=True)
class DMROptions:
    """The user-to-item relevance of DMR.

    Attributes:
        length: the newest steps that are kept, each with a position vector of its own.
        score_width: hidden width of the attention's score.
        activation: of the map from the summed history to the item's width.

    Raises:
        ValueError: if a size is not positive.
    """

    length: int = 50
    score_width: int = 16
    activation: str = "prelu"

    def __post_init__(self) -> None:
        """Check the sizes."""
        if min(self.length, self.score_width) < 1:
            raise ValueError(f"length and score_width must be at least 1, got {self.length} and {self.score_width}")


class DMRGroup(nn.Module):
    """``DMR_U2I`` for users x candidates.

    The layer's attention does not see the candidate, so the summed history is computed once a user. Positions count
    from the newest step, as in the paper: however long a history is, its newest step has position 0.

    Shapes: candidates: one (U, C, D) a field, behaviours: one (U, T, D) a field, mask (U, T, S); returns the relevance
    (U, C, Q) and the steps (U, T, Q).
    """

    def __init__(self, layout: InputLayout, group: AttentionGroup, options: DMROptions) -> None:
        super().__init__()
        self.fields = PairedFields(layout, group.candidates, group.histories, tuple(group.extras))
        width = self.fields.query_width
        self.extras: Dense | None = None
        if self.fields.extra_width > 0:
            self.extras = Dense(self.fields.extra_width, width)
        self.length = options.length
        self.relevance = DMR_U2I(options.length, width, width, options.score_width, options.activation)
        self.width = width

    def forward(
        self, candidates: list[Tensor], behaviours: list[Tensor], behaviour_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The relevance of each candidate, and the steps."""
        steps = self.fields.keys(behaviours)
        if self.extras is not None:
            steps = steps + self.extras(self.fields.extras(behaviours))
        real = self.fields.mask(behaviour_mask)
        newer = real.to(torch.int64).sum(1, keepdim=True) - real.to(torch.int64).cumsum(1)
        kept = real & (newer < self.length)
        recent = placed(steps, torch.where(kept, newer, torch.full_like(newer, self.length)), self.length)
        inside = torch.arange(self.length, device=steps.device).unsqueeze(0) < kept.to(torch.int64).sum(1, keepdim=True)
        of_user = self.relevance(torch.ones_like(recent[:, 0]), recent, inside)
        return self.fields.query(candidates) * of_user.unsqueeze(1), steps

"""A network that computes next to nothing over the inputs of the speed network.

What a request costs beside the call of this one's graph is what the service costs where no model is in its way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.inputs import InputLayout

# Ids are sizes here, up to the number of rows of a table: they must not drown the numbers.
_ID_SCALE = 1e-4


@dataclass(frozen=True, slots=True)
class LinearConfig:
    """What the network reads.

    Attributes:
        layout: of its inputs.
        tasks: one logit each.
    """

    layout: InputLayout
    tasks: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return {"layout": self.layout.to_dict(), "tasks": list(self.tasks)}


class LinearNetwork(nn.Module):
    """One linear layer a side; ids are taken for numbers, and a history for the sum of its ids.

    Source: none, it is for timing alone.

    Shapes: the seven inputs of a network of users and candidates; returns logits (U, C, K).
    """

    def __init__(self, config: LinearConfig) -> None:
        super().__init__()
        self.config = config
        widths, tasks = config.layout.widths(), len(config.tasks)
        self.candidate = nn.Linear(widths["candidate_ids"], tasks)
        self.user = nn.Linear(widths["user_numbers"] + widths["behaviour_ids"], tasks)

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        candidate_ids: Tensor,
        candidate_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> Tensor:
        """Logits (U, C, K)."""
        real = behaviour_mask[:, :, :1].to(torch.float32)  # (U, T, 1)
        past = (behaviour_ids.to(torch.float32) * _ID_SCALE * real).sum(dim=1)  # (U, Fb)
        user = self.user(torch.cat((user_numbers, past), dim=1))  # (U, K)
        logits: Tensor = self.candidate(candidate_ids.to(torch.float32) * _ID_SCALE) + user[:, None, :]
        return logits

"""Several networks of one configuration, trained from different starts, answering together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """The mean of its members' outputs on the graph's scale.

    Source: Lakshminarayanan, Pritzel and Blundell 2017, arXiv:1612.01474. Differs from it: logits are averaged, not
    probabilities, so that the graph keeps its scale.

    Shapes: the five tensors of ``models.uplift.inputs``; returns outcome (U, K) and propensity_logits (U, K).

    Args:
        members: networks without doses that have one and the same configuration.

    Raises:
        ValueError: if there is no member, configurations differ, or members take doses.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        configs = [getattr(member, "config", None) for member in members]
        if not configs or configs[0] is None or any(config != configs[0] for config in configs):
            raise ValueError(f"members must be at least one network, all of one configuration; got {len(configs)}")
        if configs[0].doses:
            raise ValueError("members must be networks without doses")
        self.config = configs[0]
        self.members = nn.ModuleList(members)

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Mean outcomes and mean propensity logits."""
        outcomes: list[Tensor] = []
        logits: list[Tensor] = []
        for member in self.members:
            found = member(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
            outcomes.append(found[0])
            logits.append(found[1])
        return torch.stack(outcomes).mean(0), torch.stack(logits).mean(0)

    def sample(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> Tensor:
        """Every member's outcomes, (E, U, K): how far the starts disagree."""
        outcomes: list[Tensor] = []
        for member in self.members:
            found = member(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
            outcomes.append(found[0])
        return torch.stack(outcomes)

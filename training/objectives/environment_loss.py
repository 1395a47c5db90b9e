"""One step's objective over environments: risks and gradients in, the risk and the penalty out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.objectives.invariance import (
    half_penalty,
    risk_variance,
    square_penalty,
    updated_group_weights,
)
from training.objectives.invariance_settings import InvarianceSection


class EnvironmentLoss:
    """The objective of an ``[invariance]`` section. Its only state is the weights of GroupDRO.

    Args:
        section: which objective.
        count: number of environments, E.
        full_batch: every step sees all rows, so that the gradient may be squared as it is.

    Raises:
        ValueError: if there are fewer than two environments.
    """

    def __init__(self, section: InvarianceSection, count: int, *, full_batch: bool) -> None:
        if count < 2:
            raise ValueError(f"count must be at least 2 environments, got {count}")
        self.section = section
        self.count = count
        self.full_batch = full_batch
        self.group_weights = torch.full((count,), 1 / count, dtype=torch.float64)

    def shares(self, risks: Tensor, active: bool) -> Tensor:
        """How much each environment counts, (E,) with sum 1; GroupDRO takes the risks (E,) in first where ``active``.

        Called once a step.
        """
        if self.section.objective != "groupdro" or not active:
            return torch.full_like(risks, 1 / self.count)
        measured = risks.detach().to("cpu", torch.float64)
        self.group_weights = updated_group_weights(self.group_weights, measured, self.section.group_step)
        return self.group_weights.to(risks)

    def penalty(self, risks: Tensor, gradients: Tensor, weights: Tensor, environments: Tensor) -> Tensor:
        """The penalty (), 0 for an objective without one.

        Shapes: risks (E,); gradients, weights (B, K) as in ``half_penalty``; environments (B,).
        """
        if self.section.objective == "irm":
            estimate = square_penalty if self.full_batch else half_penalty
            return estimate(gradients, weights, environments, self.count).mean()
        if self.section.objective == "vrex":
            return risk_variance(risks)
        return risks.new_zeros(())

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"group_weights": self.group_weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what ``state_dict`` gave.

        Raises:
            ValueError: if the state is of another number of environments.
        """
        weights = state["group_weights"]
        if weights.shape != self.group_weights.shape:
            raise ValueError(f"group_weights must be of {self.count} environments, got {len(weights)}")
        self.group_weights = weights.clone()

"""The values that a fit moves: copied, put back, and held still while a phase has its turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from training.uplift.plan import Phase, Plan

State = dict[str, Any]


class Weights:
    """The network's weights and buffers, and the plan's parameters that lie outside of it."""

    def __init__(self, network: nn.Module, plan: Plan) -> None:
        self.network = network
        self.inside = list(network.parameters())
        known = {id(parameter) for parameter in self.inside}
        outside = {
            id(parameter): parameter
            for stage in plan.stages
            for phase in stage.phases
            for parameter in phase.parameters
        }
        self.outside = [parameter for key, parameter in outside.items() if key not in known]

    @contextmanager
    def only(self, phase: Phase) -> Iterator[None]:
        """Let the phase's parameters move; no gradient is computed for any other."""
        everything = [*self.inside, *self.outside]
        before = [parameter.requires_grad for parameter in everything]
        own = {id(parameter) for parameter in phase.parameters}
        for parameter in everything:
            parameter.requires_grad_(id(parameter) in own)
        try:
            yield
        finally:
            for parameter, flag in zip(everything, before, strict=True):
                parameter.requires_grad_(flag)

    def copied(self) -> State:
        """A copy of all values."""
        return {
            "network": {name: value.detach().clone() for name, value in self.network.state_dict().items()},
            "outside": [parameter.detach().clone() for parameter in self.outside],
        }

    @torch.no_grad()
    def put_back(self, values: State) -> None:
        """Load what ``copied`` gave."""
        self.network.load_state_dict(values["network"], strict=True)
        for parameter, value in zip(self.outside, values["outside"], strict=True):
            parameter.copy_(value)

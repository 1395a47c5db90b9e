"""Optimiser groups, the learning rate as a function of the step, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

DEFAULT_GROUP: Final = "default"
VECTORS: Final = "vectors"
Schedule = Literal["constant", "one_cycle", "cosine"]

# One-cycle starts at this share of the peak and ends at FINAL_SHARE of it.
# Source: Smith and Topin 2019, arXiv:1708.07120. Differs from it: momentum is not cycled.
START_SHARE: Final = 0.04
FINAL_SHARE: Final = 1e-4


def learning_rate_factor(schedule: Schedule, step: int, total_steps: int, warmup: float) -> float:
    """Share of the peak learning rate at a step, a pure function: a resumed run needs no schedule state.

    Args:
        schedule: ``constant`` stays at 1 after the warm-up; ``cosine`` falls to 0; ``one_cycle`` rises and falls.
        step: from 0.
        total_steps: of the whole run.
        warmup: share of the steps spent rising.
    """
    warm_steps = warmup * total_steps
    if step < warm_steps:
        if schedule == "one_cycle":
            return START_SHARE + (1 - START_SHARE) * _half_cosine(step / warm_steps)
        return (step + 1) / (warm_steps + 1)
    if schedule == "constant":
        return 1.0
    gone = (step - warm_steps) / max(1.0, total_steps - warm_steps)
    floor = FINAL_SHARE if schedule == "one_cycle" else 0.0
    return 1.0 - (1.0 - floor) * _half_cosine(min(gone, 1.0))


def _half_cosine(share: float) -> float:
    """Rises from 0 to 1 with flat ends."""
    return 0.5 - 0.5 * math.cos(math.pi * share)


def parameter_groups(
    network: nn.Module,
    tables: Mapping[str, Sequence[nn.Parameter]],
    decay: Mapping[str, float],
    rate_scale: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Parameters by table: a group a table, one for every other matrix, one for vectors, which never decay.

    Biases, norms' scales and the alphas of parametric activations are vectors: pulling them to zero changes what the
    unit computes rather than how large its weights are.

    Args:
        network: whose parameters are grouped.
        tables: weights of each embedding table.
        decay: weight decay by table, ``default`` for whatever is not named; absent means 0.
        rate_scale: factor on the learning rate by table; absent means 1.

    Raises:
        ValueError: if a name is not a table of the network.
    """
    scales = rate_scale or {}
    for key, given in (("weight_decay", set(decay) - {DEFAULT_GROUP}), ("learning_rate_scale", set(scales))):
        unknown = sorted(given - set(tables))
        if unknown:
            raise ValueError(f"{key}: {unknown[0]!r} is not a table of the network, expected one of {sorted(tables)}")
    table_of = {id(weight): name for name, weights in tables.items() for weight in weights}
    groups: dict[str, list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            other = DEFAULT_GROUP if parameter.dim() > 1 else VECTORS
            groups.setdefault(table_of.get(id(parameter), other), []).append(parameter)
    default = decay.get(DEFAULT_GROUP, 0.0)
    return [
        {
            "params": members,
            "weight_decay": 0.0 if name == VECTORS else decay.get(name, default),
            "rate_scale": scales.get(name, 1.0),
            "name": name,
        }
        for name, members in groups.items()
    ]


def build_optimizer(name: str, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    """The optimiser of that name over parameter groups.

    Raises:
        ValueError: for an unknown name.
    """
    if name == "adam":
        return torch.optim.Adam(groups, lr=learning_rate, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, fused=True)
    raise ValueError(f"optimizer must be adam, adamw or sgd, got {name!r}")


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group the rate times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate_scale"]


class AveragedWeights:
    """Exponential average of a network's weights and float buffers.

    avg <- d_t avg + (1 - d_t) w, with d_t = min(decay, (1 + t) / (10 + t)) so that the first steps do not linger.

    Source: Polyak and Juditsky 1992 in its exponential form. Differs from it: the decay is warmed up.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values: dict[str, Tensor] = {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step's weights in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averages: list[Tensor] = []
        currents: list[Tensor] = []
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                averages.append(self.values[key])
                currents.append(value)
            else:
                self.values[key].copy_(value)
        torch._foreach_lerp_(averages, currents, 1.0 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Values and the number of steps taken in."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        self.steps = int(state["steps"])
        for key, value in state["values"].items():
            self.values[key].copy_(value)

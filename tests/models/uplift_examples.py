"""Random users and networks for the tests of uplift networks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.catalog import UPLIFT_CATALOG, ModelEntry
from models.inputs import InputLayout
from models.uplift.ensemble import Ensemble
from tests.models.examples import random_inputs

TWO_ARMS: Final = ("control", "treated")


def random_users(
    layout: InputLayout, users: int, steps: int, seed: int = 0, lengths: Sequence[int] | None = None
) -> tuple[Tensor, ...]:
    """The five tensors of ``models.uplift.inputs``."""
    seven = random_inputs(layout, users, 1, steps, seed, lengths)
    return (*seven[:2], *seven[4:])


def lively_uplift(build: Any, config: Any, seed: int = 0) -> nn.Module:
    """A network in evaluation mode whose every parameter is random."""
    torch.manual_seed(seed)
    model: nn.Module = build(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("kernel"):
                parameter.normal_(0.0, 1.2 / parameter.size(0) ** 0.5)
            elif name.endswith(("bias", "epsilon")):
                parameter.normal_(0.1, 0.2)
            elif "tables" in name:
                parameter.normal_(0.0, 0.7)
                parameter[0].zero_()
            # Effects of probabilities beyond 1 would all be cut to the same value.
            if name.startswith(("effects", "of_treated", "of_controls")) and "output" in name:
                parameter.mul_(0.1)
    return model


def _ensemble(config: Any) -> nn.Module:
    return Ensemble([UPLIFT_CATALOG["tarnet"].model(config) for _ in range(3)])


def _cases() -> dict[str, tuple[Any, Any]]:
    def tiny(name: str, **options: Any) -> tuple[Any, Any]:
        entry: ModelEntry = UPLIFT_CATALOG[name]
        return entry.model, replace(entry.tiny(), **options)

    return {
        "dragonnet": tiny("dragonnet"),
        "dragonnet-binary-targeted-two-arms": tiny(
            "dragonnet", outcome="binary", effects="targeted", treatments=TWO_ARMS, kernel_std=0.0
        ),
        "dragonnet-targeted": tiny("dragonnet", effects="targeted"),
        "dr_learner": tiny("dr_learner", folds=3),
        "dr_learner-binary": tiny("dr_learner", outcome="binary", folds=1, effect_layers=()),
        "ensemble": (_ensemble, UPLIFT_CATALOG["tarnet"].tiny()),
        "s_learner": tiny("s_learner"),
        "s_learner-without-propensity": tiny("s_learner", propensity="none", dropout=0.3),
        "t_learner": tiny("t_learner", outcome="binary"),
        "t_learner-linear": tiny("t_learner", hidden_layers=(), propensity_layers=(4,)),
        "tarnet": tiny("tarnet"),
        "tarnet-binary-two-arms": tiny("tarnet", outcome="binary", treatments=TWO_ARMS, propensity_layers=(4,)),
        "tarnet-offset": tiny("tarnet", heads="offset", normalize_representation=True, dropout=0.3),
        "tarnet-without-propensity": tiny("tarnet", propensity="none", head_layers=(), activation="softplus"),
        "x_learner": tiny("x_learner"),
        "x_learner-binary": tiny("x_learner", outcome="binary", propensity="none"),
    }


CASES: Final = _cases()

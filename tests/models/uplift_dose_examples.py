"""Networks with doses and the users, doses and grids that the tests give them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import onnxruntime
import torch
from torch import Tensor, nn

from models.catalog import UPLIFT_CATALOG
from models.uplift.inputs import input_names, output_names
from tests.models.uplift_examples import lively_uplift, random_users
from training.graph.upstream_noise import silenced

TWO_ARMS: Final = ("control", "dose")


def _tiny(name: str, **options: Any) -> tuple[Any, Any]:
    entry = UPLIFT_CATALOG[name]
    return entry.model, replace(entry.tiny(), **options)


def _referenced(name: str, **options: Any) -> tuple[Any, Any]:
    return _tiny(name, treatments=TWO_ARMS, dosed=("dose",), reference_dose=0.25, **options)


CASES: Final[dict[str, tuple[Any, Any]]] = {
    "drnet": _tiny("drnet"),
    "drnet-binary-dropout": _tiny("drnet", outcome="binary", propensity_dropout=True, treatment_layers=()),
    "drnet-linear-heads": _tiny("drnet", head_layers=(), strata=1),
    "drnet-referenced": _referenced("drnet", strata=5),
    "vcnet": _tiny("vcnet"),
    "vcnet-binary-truncated": _tiny("vcnet", outcome="binary", basis="truncated_power", dose_input=False),
    "vcnet-deep-cubic": _tiny("vcnet", head_layers=(5, 4), degree=3, knots=(0.2, 0.5, 0.7)),
    "vcnet-referenced": _referenced("vcnet", head_layers=(), density_bins=1),
}


def network(name: str, seed: int = 0) -> tuple[Any, nn.Module]:
    """A lively network: also its splines, strata and targeting curve are random."""
    build, config = CASES[name]
    model = lively_uplift(build, config, seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            own = key.startswith("head") and key.endswith("kernel")
            if own or key.endswith(("shift", "dose", "targeting.weight")):
                parameter.normal_(0.0, 0.5)
    return config, model


def dose_inputs(config: Any, users: int, grid: int, steps: int = 4, seed: int = 0) -> tuple[Tensor, ...]:
    """All seven tensors."""
    draw = torch.Generator().manual_seed(seed)
    doses = torch.rand(users, len(config.treatments), generator=draw)
    return (*random_users(config.layout, users, steps, seed), doses, torch.linspace(0.0, 1.0, grid))


def onnx_runner(model: nn.Module, config: Any, path: Path) -> Callable[..., list[Tensor]]:
    """The network in ONNX Runtime."""
    users, steps, points = torch.export.Dim("U"), torch.export.Dim("T"), torch.export.Dim("G")
    names = list(input_names(doses=True))
    with silenced(), torch.no_grad():
        program = torch.onnx.export(
            model,
            dose_inputs(config, users=2, grid=5, steps=7),
            dynamo=True,
            input_names=names,
            output_names=list(output_names(config.outcome, doses=True, density=config.density)),
            dynamic_shapes=({0: users}, {0: users}, *[{0: users, 1: steps}] * 3, {0: users}, {0: points}),
            opset_version=18,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path))

    def run(*inputs: Tensor) -> list[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run

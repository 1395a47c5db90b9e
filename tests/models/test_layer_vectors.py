"""Every case of the vector file, in both precisions: values, gradients and recipes."""

from typing import Any

import pytest
import torch
from torch import Tensor

from models import layers
from tests.models import vectors

CASES = vectors.document()["cases"]


@pytest.mark.skipif(not CASES, reason=f"no vector file at {vectors.PATH}")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_layer_reproduces_its_vectors(case: dict[str, Any], dtype: torch.dtype) -> None:
    inputs = {name: vectors.read(value, dtype) for name, value in case["inputs"].items()}
    result, variables = run(case, inputs, dtype)
    expected = [vectors.read(case["expected"][name], dtype) for name in case["expected_order"]]
    limits = vectors.tolerance(case, dtype)
    if len(expected) == 1:
        vectors.assert_close(result, expected[0], **limits)
    else:
        vectors.assert_close(list(result), expected, **limits)
    if case.get("expected_grads"):
        wanted = {name: vectors.read(value, dtype) for name, value in case["expected_grads"].items()}
        total = sum(value.sum() for value in flat(result))
        found = torch.autograd.grad(total, [variables[name] for name in wanted])
        for gradient, name in zip(found, wanted, strict=True):
            vectors.assert_close(gradient, wanted[name], **limits)


def run(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> tuple[Any, dict[str, Tensor]]:
    """What the case's layer returns, and the tensors that gradients may be asked for."""
    call = case.get("call") or {}
    kind, name = case["kind"], case["layer"]
    if kind == "function":
        variables = {key: value for key, value in inputs.items() if isinstance(value, Tensor)}
        for variable in variables.values():
            variable.requires_grad_(variable.is_floating_point())
        return getattr(layers, name)(**inputs, **call), variables
    if kind == "activation":
        return layers.get_activation(**case["config"])(inputs["x"]), {}
    if kind == "rnn_function":
        cell = getattr(layers, case["config"]["cell"]["layer"])(**case["config"]["cell"]["config"]).to(dtype)
        load(cell, case, dtype, "cell.")
        return getattr(layers, name)(cell, **inputs, **call), {}
    module = getattr(layers, name)(**case["config"]).to(dtype).train(case["mode"] == "train")
    load(module, case, dtype, "")
    variables = dict(module.named_parameters())
    if kind == "recipe":
        return RECIPES[case["id"]](module, **inputs), variables
    return getattr(module, case["method"])(**inputs, **call), variables


def linear_heads(layer: layers.GradNorm, shared: Tensor, heads: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Each loss is the mean squared error of one linear head over the shared values."""
    shared.requires_grad_()
    losses = [(shared @ head - target).square().mean() for head, target in zip(heads, targets, strict=True)]
    gnorms = [torch.autograd.grad(loss, shared, retain_graph=True)[0].norm() for loss in losses]
    return *layer(losses, [shared]), torch.stack(gnorms)


RECIPES = {"grad_norm/recipe_linear_heads": linear_heads}


def flat(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [tensor for part in result for tensor in flat(part)]


def load(module: torch.nn.Module, case: dict[str, Any], dtype: torch.dtype, prefix: str) -> None:
    state = {name.removeprefix(prefix): vectors.read(value, dtype) for name, value in case["weights"].items()}
    outcome = module.load_state_dict(state, strict=False)
    assert not outcome.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in outcome.missing_keys)

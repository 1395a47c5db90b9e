"""Every layer against the numbers of the vector file, in both precisions."""

from typing import Any

import pytest
import torch

from models import layers
from tests.models import vectors

LAYERS = {
    "Dense", "MLP", "LayerNorm", "SequencePooling", "DIN", "AGRUCell", "dynamic_rnn_with_attention",
    "static_rnn_with_attention", "AIGRU", "masked_softmax", "InterestAttention", "DIEN", "AuxiliaryLoss", "DMR_U2I",
    "LogitCorrection", "get_activation", "PReLU", "Dice", "log_sigmoid",
}  # fmt: skip
CASES = vectors.cases(LAYERS)


@pytest.mark.skipif(not CASES, reason=f"no vector file at {vectors.PATH}")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_layer_reproduces_its_vectors(case: dict[str, Any], dtype: torch.dtype) -> None:
    inputs = {name: vectors.read(value, dtype) for name, value in case["inputs"].items()}
    result = run(case, inputs, dtype)
    expected = [vectors.read(case["expected"][name], dtype) for name in case["expected_order"]]
    limits = vectors.tolerance(case, dtype)
    if len(expected) == 1:
        vectors.assert_close(result, expected[0], **limits)
    else:
        vectors.assert_close(list(result), expected, **limits)


def run(case: dict[str, Any], inputs: dict[str, Any], dtype: torch.dtype) -> Any:
    call = case.get("call") or {}
    kind = case["kind"]
    if kind == "function":
        return getattr(layers, case["layer"])(**inputs, **call)
    if kind == "activation":
        return layers.get_activation(**case["config"])(inputs["x"])
    if kind == "rnn_function":
        cell = getattr(layers, case["config"]["cell"]["layer"])(**case["config"]["cell"]["config"]).to(dtype)
        load(cell, case, dtype, "cell.")
        return getattr(layers, case["layer"])(cell, **inputs, **call)
    module = getattr(layers, case["layer"])(**case["config"]).to(dtype).train(case["mode"] == "train")
    load(module, case, dtype, "")
    return getattr(module, case["method"])(**inputs, **call)


def load(module: torch.nn.Module, case: dict[str, Any], dtype: torch.dtype, prefix: str) -> None:
    state = {name.removeprefix(prefix): vectors.read(value, dtype) for name, value in case["weights"].items()}
    outcome = module.load_state_dict(state, strict=False)
    assert not outcome.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in outcome.missing_keys)

"""Reading the file of numbers that the layers are checked against."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PATH = Path(
    os.environ.get("CTRLIFT_TEST_VECTORS", Path(__file__).resolve().parents[3] / "shared" / "spec" / "vectors.json")
)
SPECIAL = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


@cache
def document() -> dict[str, Any]:
    return json.loads(PATH.read_text()) if PATH.is_file() else {"cases": [], "default_tolerance": {}}


def cases(layers: set[str]) -> list[dict[str, Any]]:
    return [case for case in document()["cases"] if case["layer"] in layers]


def read(value: Any, dtype: torch.dtype) -> Any:
    """A tensor, a list of tensors, or the value itself."""
    if isinstance(value, dict) and "list" in value:
        return [read(entry, dtype) for entry in value["list"]]
    if not (isinstance(value, dict) and "shape" in value):
        return value
    if "flat" in value:
        data = [SPECIAL.get(entry, entry) for entry in value["flat"]]
    else:
        data = value["data"]
    wanted = {"bool": torch.bool, "int64": torch.int64}.get(value["dtype"], dtype)
    return torch.tensor(data, dtype=wanted).reshape(value["shape"])


def tolerance(case: dict[str, Any], dtype: torch.dtype) -> dict[str, float]:
    default = dict(document()["default_tolerance"]["float64" if dtype == torch.float64 else "float32"])
    for name in ("rtol", "atol"):
        if case.get(name) is not None:
            default[name] = max(case[name], default[name])
    return default


def assert_close(actual: Any, expected: Any, **limits: float) -> None:
    if isinstance(expected, list):
        assert isinstance(actual, list | tuple)
        for got, wanted in zip(actual, expected, strict=True):
            assert_close(got, wanted, **limits)
        return
    if not isinstance(expected, Tensor):
        expected = torch.tensor(expected, dtype=actual.dtype)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, equal_nan=True, **limits)

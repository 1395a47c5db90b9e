"""Both engines behind the same five lines."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bundle.errors import BundleRefused
from bundle.graph_tables import Graph
from service.core.version import load_version
from service.engines.base import EngineError
from service.engines.onnx import OnnxEngine
from tests.service import tiny_bundle

torch = pytest.importorskip("torch")

INPUTS = {"x": "float32", "y": "float32"}


class Sum(torch.nn.Module):  # type: ignore[misc]  # torch ships no types for its base
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + 2.0 * y


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(Sum(), (torch.ones(1, 2, 1), torch.ones(1, 2, 1))), buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch calls all of TorchScript deprecated
def test_torchscript_takes_its_inputs_by_the_manifests_order() -> None:
    from service.engines.torchscript import TorchScriptEngine

    engine = TorchScriptEngine(scripted(), INPUTS, ["logits"])
    x, y = np.ones((1, 3, 1), dtype=np.float32), np.full((1, 3, 1), 4, dtype=np.float32)
    logits = engine.run({"y": y, "x": x})
    assert (logits.dtype, logits.ravel().tolist()) == (np.float32, [9, 9, 9])
    with pytest.raises(EngineError):
        engine.run({"x": np.ones((1, 3, 2)), "y": np.ones((7, 5, 3))})
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run({"x": x, "y": y})
    with pytest.raises(EngineError):
        TorchScriptEngine(b"nothing", INPUTS, ["logits"])


def test_onnx_refuses_what_is_no_graph_and_wrong_inputs() -> None:
    with pytest.raises(BundleRefused, match="encoding"):
        OnnxEngine(Graph(b"nothing"))
    with pytest.raises(EngineError):
        OnnxEngine(Graph(b""))
    engine = OnnxEngine(Graph(tiny_bundle.graph(tiny_bundle.fitted())))
    wrong = {name: np.zeros((1, 1, 9), dtype=dtype) for name, dtype in engine.inputs.items()}
    with pytest.raises(EngineError):
        engine.run(wrong)


def test_a_bundle_without_the_engines_format_is_refused(published: Path) -> None:
    with pytest.raises(BundleRefused) as refused:
        load_version(published / "movies" / "1.0.0", "torchscript")
    assert refused.value.reason == "graph_missing"


def test_asking_for_onnx_does_not_load_torch(published: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from service.core.version import load_version;"
        f"load_version(Path({str(published)!r}) / 'movies' / '1.0.0'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

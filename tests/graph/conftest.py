"""Exported graphs, made once a session: an export takes seconds."""

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models.inputs import INPUT_NAMES
from tests.graph.cases import CASES
from tests.models.examples import lively
from training.graph.onnx import export_program, publish
from training.graph.torchscript import export_torchscript
from training.graph.upstream_noise import silenced

Run = Callable[..., Tensor]


class Exported:
    """One network and its graphs, each made when first asked for."""

    def __init__(self, name: str, folder: Path) -> None:
        build, config = CASES[name]
        self.config = config
        self.eager: nn.Module = lively(build, config).finalize()
        self.onnx_path = folder / f"{name}.onnx"
        self.torchscript_path = folder / f"{name}.ts"
        self._runs: dict[str, Run] = {}
        self.opaque: ir.Model | None = None  # as the exporter leaves it, with operators as single nodes

    def run(self, engine: str) -> Run:
        if engine not in self._runs:
            self._runs[engine] = self._open_onnx() if engine == "onnx" else self._open_torchscript()
        return self._runs[engine]

    def session(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(str(self.onnx_path), options)

    def _open_onnx(self) -> Run:
        program = export_program(self.eager)
        self.opaque = program.model.clone()
        publish(program, self.onnx_path)
        session = self.session()

        def run(*inputs: Tensor) -> Tensor:
            feed = {name: tensor.numpy() for name, tensor in zip(INPUT_NAMES, inputs, strict=True)}
            return torch.from_numpy(session.run(None, feed)[0])

        return run

    def _open_torchscript(self) -> Run:
        export_torchscript(self.eager, self.torchscript_path)
        with silenced():
            return torch.jit.load(str(self.torchscript_path))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    folder = tmp_path_factory.mktemp("graphs")
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            made[name] = Exported(name, folder)
        return made[name]

    return get


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)

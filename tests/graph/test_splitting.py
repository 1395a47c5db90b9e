"""A graph that was cut around its operators gives what the whole one gives, whatever the cut went through."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray

from bundle.graph_tables import Graph
from bundle.stages import (
    OPERATORS_FILE,
    STAGES_FILE,
    GraphStage,
    OperatorStage,
    Stages,
    parse_parameters,
    parse_stages,
    stage_files,
)
from models.inputs import INPUT_NAMES
from service.engines.kernel.engine import KernelEngine
from service.engines.kernel.library import open_library
from service.engines.onnx import OnnxEngine
from tests.graph.conftest import Exported
from tests.models.examples import random_inputs
from training.graph.splitting import split

# Operators of a case, in order.
CUT = {
    "dien-two-groups": ["gru_states", "gru_states", "evolved_interest", "evolved_interest"],
    "dien-augru-bilinear": ["gru_states", "evolved_interest"],
    "din-sum": ["target_interest"],
}


@pytest.mark.parametrize("name", sorted(CUT))
def test_the_stages_give_what_the_graph_gives(
    name: str, tmp_path: Path, kernel_library: Path, exported: Callable[[str], Exported]
) -> None:
    case = exported(name)
    case.run("onnx")
    assert case.opaque is not None
    stages = split(case.opaque, tmp_path)
    assert stages is not None
    operators = [stage.operator for stage in stages.stages if isinstance(stage, OperatorStage)]
    assert operators == CUT[name]
    plain = OnnxEngine(Graph(case.onnx_path.read_bytes()))
    engine = opened(tmp_path, stages, plain.inputs, kernel_library)
    for users, candidates, steps in ((1, 1, 1), (1, 40, 20), (3, 5, 9)):
        inputs = arrays(random_inputs(case.config.layout, users, candidates, steps, seed=users))
        inputs["behaviour_mask"][..., ::2, :] &= inputs["behaviour_mask"][..., ::2, :] & (candidates > 1)  # holes
        np.testing.assert_allclose(engine.run(inputs), plain.run(inputs), atol=5e-6)


def opened(folder: Path, stages: Stages, inputs: dict[str, str], library: Path) -> KernelEngine:
    read = parse_stages((folder / STAGES_FILE).read_bytes())
    assert read == stages
    assert {path.name for path in stage_files(folder)} == {STAGES_FILE, OPERATORS_FILE, *stages.graphs}
    graphs = {file: Graph((folder / file).read_bytes()) for file in stages.graphs}
    parameters = parse_parameters((folder / OPERATORS_FILE).read_bytes(), stages)
    return KernelEngine(open_library(library), stages, graphs, parameters, inputs)


def arrays(tensors: tuple[torch.Tensor, ...]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy().copy() for name, tensor in zip(INPUT_NAMES, tensors, strict=True)}


def chain(second_reads_weights: bool) -> ir.Model:
    """Two operators with a node between them; the last node needs something from before the first."""
    weights = [np.ones((6, 4), np.float32), np.ones((6, 2), np.float32), np.ones(6, np.float32), np.ones(6, np.float32)]
    again = [np.ones((6, 2), np.float32) * 0.5, *weights[1:]]
    text = """<ir_version: 10, opset_import: ["" : 18, "ctrlift" : 1]>
        stages (float[U,T,4] x, bool[U,T] m) => (float[U,T,2] y) {
            doubled = Add (x, x)
            first = ctrlift.gru_states (doubled, m, %s)
            between = Add (first, first)
            second = ctrlift.gru_states (between, m, %s)
            axes = Constant <value_ints = [2]> ()
            summed = ReduceSum (doubled, axes)
            y = Add (second, summed)
        }"""
    names = [f"w{place}" for place in range(8)]
    if not second_reads_weights:
        names[7] = "between"
    model = ir.from_onnx_text(text % (", ".join(names[:4]), ", ".join(names[4:])))
    for name, array in zip(names, weights + again, strict=True):
        if name != "between":
            value = next(
                value for node in model.graph for value in node.inputs if value is not None and value.name == name
            )
            value.const_value = ir.tensor(array, name=name)
            model.graph.register_initializer(value)
    return model


def test_an_operator_behind_an_operator_gets_a_piece_between(tmp_path: Path, kernel_library: Path) -> None:
    stages = split(chain(True), tmp_path)
    assert stages is not None
    kinds = ["graph" if isinstance(stage, GraphStage) else stage.operator for stage in stages.stages]
    assert kinds == ["graph", "gru_states", "graph", "gru_states", "graph"]
    engine = opened(tmp_path, stages, {"x": "float32", "m": "bool"}, kernel_library)
    x = np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)
    mask = np.ones((1, 3), dtype=np.bool_)
    found = engine.outputs({"x": x, "m": mask})["y"]
    assert found.shape == (1, 3, 2)
    np.testing.assert_allclose(found[..., 0], found[..., 1], atol=1e-6)  # all units have the same weights
    assert np.abs(found - (2 * x).sum(-1, keepdims=True)).max() <= 1.0  # what the last state, within one, adds


def test_parameters_that_are_computed_leave_the_graph_whole(tmp_path: Path) -> None:
    assert split(chain(False), tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert stage_files(tmp_path) == []


def test_a_graph_without_operators_is_left_alone(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 18]> whole (float[U] x) => (float[U] y) { y = Add (x, x) }"""
    assert split(ir.from_onnx_text(text), tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_stages_that_make_no_sense_are_refused() -> None:
    def stages(**changed: Any) -> bytes:
        first = {"graph": "stage0.onnx", "inputs": ["x"], "outputs": ["a", "m"]}
        second = {"operator": "gru_states", "inputs": ["a", "m"], "output": "b", "parameters": 4}
        whole: dict[str, Any] = {"inputs": ["x"], "outputs": ["b"], "stages": [first, second]} | changed
        return json.dumps(whole).encode()

    known = parse_stages(stages())
    assert known.graphs == ["stage0.onnx"]
    wrong: list[dict[str, Any]] = [
        {"inputs": ["y"]},
        {"outputs": ["c"]},
        {"stages": []},
        {"stages": [{"graph": "../stage0.onnx", "inputs": ["x"], "outputs": ["b"]}]},
        {"stages": [{"graph": "stage0.onnx", "inputs": ["x"], "outputs": ["x"]}], "outputs": ["x"]},
        {"stages": [{"operator": "other", "inputs": ["x", "x"], "output": "b", "parameters": 4}]},
        {"schema_version": 2},
    ]
    for changed in wrong:
        with pytest.raises(ValueError, match=r"stages\.json is not usable"):
            parse_stages(stages(**changed))
    with pytest.raises(ValueError, match=r"stages\.json"):
        parse_stages(b"{")
    empty = io.BytesIO()
    np.savez(empty)
    for content in (b"", b"PK", empty.getvalue()):
        with pytest.raises(ValueError, match=r"operators\.npz is not usable"):
            parse_parameters(content, known)

"""What must hold for every layer of the table."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models import layers
from models.layers.column_weights import ColumnWeighted
from tests.models.layer_table import CASES, Given, LayerCase
from training.graph.expansion import OPSET
from training.graph.onnx import publish
from training.graph.opaque import translations
from training.graph.upstream_noise import silenced

# Not layers: functions, tested with their users, and a declaration.
ELSEWHERE = {name for name in layers.__all__ if name.islower()} - {
    "dynamic_rnn_with_attention",
    "get_activation",
    "static_rnn_with_attention",
}
ELSEWHERE |= {"AttentionGroup", "FFM"}
EXAMPLE = {"B": 2, "T": 7}
OTHERS = ({"B": 5, "T": 4}, {"B": 1, "T": 1})
LIMIT = 1e-5
NAMES = sorted(CASES)


def lively(case: LayerCase, seed: int = 0) -> nn.Module:
    """A layer whose every number is random, so that nothing hides behind zeros."""
    torch.manual_seed(seed)
    layer = case.build()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.1, 0.6)
        for name, buffer in layer.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.3)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return layer


def draw(case: LayerCase, sizes: dict[str, int], seed: int = 1) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [
        given.draw(sizes, generator) if isinstance(given, Given) else [part.draw(sizes, generator) for part in given]
        for given in case.inputs
    ]


def call(layer: nn.Module, case: LayerCase, inputs: list[Any], seed: int = 2) -> list[Tensor]:
    """Outputs as a flat list, whatever their form; random layers draw the same every time."""
    torch.manual_seed(seed)
    if isinstance(layer, layers.GradNorm):
        shared = torch.ones(3, dtype=layer.weight.dtype, requires_grad=True)
        return list(layer([shared.square().sum(), 3 * shared.sum()], [shared]))
    outputs = layer(*inputs, **case.constants)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def close(left: list[Tensor], right: list[Tensor], limit: float = LIMIT) -> bool:
    return all(torch.allclose(a, b, rtol=limit, atol=limit) for a, b in zip(left, right, strict=True))


def scripted(layer: nn.Module) -> Any:
    buffer = io.BytesIO()
    with silenced():
        torch.jit.save(torch.jit.script(layer), buffer)
        buffer.seek(0)
        return torch.jit.load(buffer)


def test_every_public_name_is_in_the_table() -> None:
    assert set(layers.__all__) - ELSEWHERE == {name.split()[0] for name in CASES}


@pytest.mark.parametrize("name", NAMES)
def test_a_row_alone_is_the_row_in_its_batch(name: str) -> None:
    case = CASES[name]
    layer = lively(case).eval()
    inputs = draw(case, {"B": 4, "T": 5})
    batch = call(layer, case, inputs)
    assert all(torch.isfinite(output).all() for output in batch)
    if not case.by_row:
        return
    for row in (0, 3):
        alone = call(layer, case, [cut(given, row, row + 1) for given in inputs])
        assert close(alone, [output[row : row + 1] for output in batch], 1e-6)
    empty = call(layer, case, [cut(given, 0, 0) for given in inputs])
    assert [list(output.shape) for output in empty] == [[0, *output.shape[1:]] for output in batch]


def cut(given: Any, start: int, stop: int) -> Any:
    return [part[start:stop] for part in given] if isinstance(given, list) else given[start:stop]


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_training_takes_a_batch_of_one_and_of_none(name: str, rows: int) -> None:
    case = CASES[name]
    layer = lively(case).train()
    outputs = call(layer, case, draw(case, {"B": rows, "T": 5}))
    assert all(torch.isfinite(output).all() for output in outputs)
    assert not case.by_row or all(output.size(0) == rows for output in outputs)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    case = CASES[name]
    layer = lively(case).train()
    outputs = call(layer, case, draw(case, {"B": 8, "T": 5}))
    generator = torch.Generator().manual_seed(3)
    total = sum((output * torch.rand(output.shape, generator=generator)).sum() for output in outputs)
    named = dict(layer.named_parameters())
    if not named:
        return
    gradients = torch.autograd.grad(total, list(named.values()))
    still = [key for key, gradient in zip(named, gradients, strict=True) if not gradient.abs().sum() > 0]
    assert set(still) == case.cancels
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_training_differs_only_where_it_is_said(name: str) -> None:
    case = CASES[name]
    inputs = draw(case, {"B": 6, "T": 5})
    in_training = call(lively(case).train(), case, inputs)
    evaluated = call(lively(case).eval(), case, inputs)
    assert close(in_training, evaluated) != case.train_differs
    assert equal(evaluated, call(lively(case).eval(), case, inputs, seed=99))  # nothing random outside training


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_state_gives_the_same_numbers_in_both_precisions(name: str) -> None:
    case = CASES[name]
    layer, other = lively(case, 0).eval(), lively(case, 1).eval()
    other.load_state_dict(layer.state_dict())
    inputs = draw(case, {"B": 3, "T": 5})
    expected = call(layer, case, inputs)
    assert equal(call(other, case, inputs), expected)
    doubled = [[part.double() for part in given] if isinstance(given, list) else precise(given) for given in inputs]
    precise_outputs = call(layer.double(), case, doubled)
    assert {output.dtype for output in precise_outputs} == {torch.float64}
    assert close([output.float() for output in precise_outputs], expected)


def precise(given: Tensor) -> Tensor:
    return given.double() if given.is_floating_point() else given


@pytest.mark.parametrize("name", [name for name in NAMES if not CASES[name].no_script])
def test_torchscript_gives_the_same_numbers(name: str) -> None:
    case = CASES[name]
    layer = lively(case).eval()
    loaded = scripted(layer)
    for sizes in (EXAMPLE, *OTHERS):
        inputs = draw(case, sizes)
        assert close(call(loaded, case, inputs), call(layer, case, inputs), 1e-6)


class Together(nn.Module):
    """Several layers in one graph: most of the time of an export is spent once a graph."""

    def __init__(self, group: list[str]) -> None:
        super().__init__()
        self.names = group
        self.each = nn.ModuleList(lively(CASES[name]) for name in group)

    def forward(self, inputs: list[list[Any]]) -> list[list[Tensor]]:
        outputs = []
        for name, layer, given in zip(self.names, self.each, inputs, strict=True):
            output = layer(*given, **CASES[name].constants)
            outputs.append([output] if isinstance(output, Tensor) else list(output))
        return outputs


def exported(group: list[str], path: Path) -> tuple[nn.Module, Callable[[list[Any]], list[Tensor]]]:
    """The layers of a group and their graph, which returns all outputs in one list."""
    symbols = {"B": torch.export.Dim("B"), "T": torch.export.Dim("T")}

    def free(given: Given | list[Given]) -> Any:
        if isinstance(given, list):
            return [free(part) for part in given]
        return {i: symbols[axis] for i, axis in enumerate(given.axes) if isinstance(axis, str)}

    model = Together(group).eval()
    inputs = [draw(CASES[name], EXAMPLE) for name in group]
    with silenced(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (inputs,),
            dynamo=True,
            dynamic_shapes=([[free(given) for given in CASES[name].inputs] for name in group],),
            custom_translation_table=dict(translations()),
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    publish(program, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    names = [entry.name for entry in session.get_inputs()]

    def run(given: list[Any]) -> list[Tensor]:
        feed = {name: leaf.numpy() for name, leaf in zip(names, leaves(given), strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return model, run


def leaves(given: Any) -> list[Tensor]:
    return [given] if isinstance(given, Tensor) else [leaf for part in given for leaf in leaves(part)]


Pairs = list[tuple[list[Tensor], list[Tensor]]]


@pytest.fixture(scope="module")
def graph_and_eager(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pairs]:
    """Outputs of a layer's graph and of the layer itself, at every size; a group is exported when first asked for."""
    folder = tmp_path_factory.mktemp("layers")
    found: dict[str, Pairs] = {}

    def get(name: str) -> Pairs:
        if name not in found:
            group = next(group for group in GROUPS if name in group)
            model, run = exported(group, folder / f"{GROUPS.index(group)}.onnx")
            found.update({member: [] for member in group})
            for sizes in (EXAMPLE, *OTHERS):
                inputs = [draw(CASES[member], sizes) for member in group]
                with torch.no_grad():
                    eager = model(inputs)
                served = run(inputs)
                for member, outputs in zip(group, eager, strict=True):
                    found[member].append((served[: len(outputs)], outputs))
                    served = served[len(outputs) :]
        return found[name]

    return get


EXPORTED = [name for name in NAMES if not CASES[name].no_export]
GROUPS = [EXPORTED[start::6] for start in range(6)]


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_gives_the_same_numbers_at_other_sizes(name: str, graph_and_eager: Callable[[str], Pairs]) -> None:
    for served, eager in graph_and_eager(name):
        assert close(served, eager)


@pytest.mark.parametrize("name", ["NASSelectionLayer", "MixedNASLayer", "NASGatingLayer", "SimpleNasLayer"])
def test_a_finalized_search_is_one_multiplication(name: str) -> None:
    case = CASES[name]
    layer = lively(case)
    assert isinstance(layer, ColumnWeighted)
    with torch.no_grad():
        program = torch.export.export(layer.finalize(), tuple(draw(case, EXAMPLE)))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert called <= {"aten.cat.default", "aten.mul.Tensor"}

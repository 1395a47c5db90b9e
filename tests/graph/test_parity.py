"""Eager network = ONNX = TorchScript, at sizes none of which is the one that was exported."""

from collections.abc import Callable

import pytest
import torch

from models.inputs import INPUT_NAMES, OUTPUT_NAMES
from tests.graph.cases import CASES
from tests.graph.conftest import Exported
from tests.models.examples import random_inputs

SIZES = [(1, 1), (1, 7), (1, 100), (3, 5)]
STEPS = [1, 20, 50]
LIMIT = 5e-6  # logits vary by about one; measured 1.9e-6 at most, and other processors round otherwise


@pytest.mark.parametrize("engine", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_graph_gives_the_logits_of_the_network(name: str, engine: str, exported: Callable[[str], Exported]) -> None:
    case = exported(name)
    run = case.run(engine)
    logits = []
    for users, candidates in SIZES:
        for steps in STEPS:
            for lengths in ([0] * users, [1] * users, [steps] * users, None):
                inputs = random_inputs(case.config.layout, users, candidates, steps, len(logits), lengths)
                with torch.no_grad():
                    expected = case.eager(*inputs)
                    actual = run(*inputs)
                assert actual.shape == expected.shape == (users, candidates, len(case.config.tasks))
                assert torch.isfinite(actual).all()
                torch.testing.assert_close(actual, expected, rtol=0.0, atol=LIMIT)
                logits.append(expected.flatten(0, 1))
    assert torch.cat(logits).std(0).min() >= 0.5


@pytest.mark.parametrize("name", sorted(CASES))
def test_graph_has_every_input_in_order(name: str, exported: Callable[[str], Exported]) -> None:
    case = exported(name)
    case.run("onnx")
    session = case.session()
    assert tuple(entry.name for entry in session.get_inputs()) == INPUT_NAMES
    assert tuple(entry.name for entry in session.get_outputs()) == OUTPUT_NAMES
    widths = case.config.layout.widths()
    for entry in session.get_inputs():
        assert entry.shape[-1] == widths[entry.name]
        assert all(isinstance(axis, str) for axis in entry.shape[:-1])


@pytest.mark.parametrize("engine", ["onnx", "torchscript"])
def test_holes_and_left_padding_give_the_same_logits(engine: str, exported: Callable[[str], Exported]) -> None:
    for name in ("dien-aigru-mlp", "dien-augru-mlp", "dien-gru-mlp"):
        case = exported(name)
        inputs = list(random_inputs(case.config.layout, 3, 4, 9, lengths=[9, 9, 9]))
        inputs[6] = (
            torch.tensor([[0, 0, 1, 1, 0, 1, 1, 1, 0], [1, 0, 1, 0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0, 0, 0, 1]])
            .bool()
            .unsqueeze(-1)
        )
        with torch.no_grad():
            torch.testing.assert_close(case.run(engine)(*inputs), case.eager(*inputs), rtol=0.0, atol=LIMIT)


def test_graph_is_one_file(exported: Callable[[str], Exported]) -> None:
    case = exported("din-sum")
    case.run("onnx")
    assert case.onnx_path.is_file()
    assert not case.onnx_path.with_suffix(".onnx.data").exists()

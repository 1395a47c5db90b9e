"""Attention and evolution as single operators: equal to the layers, whole before they are expanded, and equal after."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models.layers import DIN, Interest, InterestAttention
from models.layers.activations import Dice, PReLU
from models.layers.dien import SteeredUpdates
from models.layers.interest_operators import Scoring
from models.layers.target_attention import attended_by
from training.graph import opaque, scoring_forms
from training.graph.expansion import OPSET, expand
from training.graph.onnx import optimised
from training.graph.upstream_noise import silenced

WIDTH = 4
AFFINE_DICE: Final[dict[str, Any]] = {"name": "dice", "affine": True}


def attention(activation: Any, layers: tuple[int, ...] = (6, 5), batchnorm: bool = False) -> nn.Module:
    return InterestAttention(WIDTH, layers, batchnorm=batchnorm, activation=activation)


def interest(kind: str, scoring: str = "mlp", activation: Any = "sigmoid") -> nn.Module:
    hidden = 5 if scoring == "bilinear" else None
    return Interest(WIDTH, kind, 0.0, (6, 5), 0.0, True, activation, scoring, hidden_size=hidden)


LAYERS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "softmax-sigmoid": lambda: attention("sigmoid"),
    "softmax-relu": lambda: attention("relu", (6,)),
    "softmax-linear-batchnorm": lambda: attention("linear", batchnorm=True),
    "softmax-prelu-batchnorm": lambda: attention("prelu", batchnorm=True),
    "softmax-dice": lambda: attention("dice", (6, 5, 3)),
    "softmax-dice-affine": lambda: attention(AFFINE_DICE),
    "sum-dice-decay": lambda: DIN(WIDTH, [6, 3, 1], activation="dice", decay=True),
    "sum-prelu": lambda: DIN(WIDTH, [6, 1], activation="prelu"),
    "augru-sigmoid": lambda: interest("AUGRU"),
    "augru-dice": lambda: interest("AUGRU", activation="dice"),
    "augru-bilinear": lambda: interest("AUGRU", "bilinear"),
    "agru-prelu": lambda: interest("AGRU", activation="prelu"),
    "agru-bilinear": lambda: interest("AGRU", "bilinear"),
    "gru-prelu": lambda: interest("GRU", activation="prelu"),
}
UNKNOWN: Final = "softmax-gelu"


def lively(layer: nn.Module) -> nn.Module:
    """Every number random, and the slopes and scales that the forms divide by, or compare, at their worst."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.1, 0.6)
        for name, buffer in layer.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.3)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
        for module in layer.modules():
            if isinstance(module, PReLU | Dice):
                module.alpha[:3] = torch.tensor([1.0, 1.7, -0.4])
            if isinstance(module, Dice) and module.bn.weight is not None:
                module.bn.weight[2:4] = torch.tensor([0.0, -0.8])
    return layer.eval()


def made(name: str) -> nn.Module:
    torch.manual_seed(len(name))
    return lively(LAYERS[name]())


def tensors(users: int, candidates: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and a mask with holes; the last user has no real step, and padding holds what must not matter."""
    generator = torch.Generator().manual_seed(users + 10 * candidates + 100 * steps)
    mask = torch.rand(users, steps, generator=generator) < 0.6
    mask[0, -1] = True
    if users > 1:
        mask[-1] = False
    keys = torch.randn(users, steps, WIDTH, generator=generator)
    keys = torch.where(mask.unsqueeze(-1), keys, torch.full((), float("nan")))
    return torch.randn(users, candidates, WIDTH, generator=generator), keys, mask


def by_operator(layer: nn.Module, queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """What the operator's own definition says for a layer."""
    if isinstance(layer, Interest):
        readout, states = layer.interest_evolution, layer.second_gru(layer.extract(keys, mask), mask)
        scoring: Scoring = layer.attention.scoring()  # type: ignore[operator]
        if isinstance(readout, SteeredUpdates):
            return readout.steered(layer.bridge(queries), states, mask, scoring)
        return attended_by(layer.bridge(queries), states, mask, scoring, "softmax")
    found: Scoring = layer.scoring()  # type: ignore[operator]
    return attended_by(queries, keys, mask, found, "sum" if isinstance(layer, DIN) else "softmax")


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_operator_means_the_layer(name: str) -> None:
    layer = made(name).double()
    for users, candidates, steps in ((1, 1, 1), (1, 3, 7), (2, 3, 7), (2, 9, 4)):
        queries, keys, mask = tensors(users, candidates, steps)
        given = (queries.double(), keys.double(), mask)
        with torch.no_grad():
            torch.testing.assert_close(by_operator(layer, *given), layer(*given), rtol=0, atol=1e-12)


def test_operator_refuses_what_it_does_not_know() -> None:
    assert InterestAttention(WIDTH, [6], activation="gelu").scoring() is None
    assert InterestAttention(WIDTH, [6], activation={"name": "relu", "max_value": 6.0}).scoring() is None
    assert DIN(WIDTH, [6, 1], activation="dice", mode="weighted").scoring() is None
    assert DIN(WIDTH, [1]).scoring() is None


class Together(nn.Module):
    """All layers on the same inputs, so that one export serves all."""

    def __init__(self) -> None:
        super().__init__()
        self.known = nn.ModuleList(made(name) for name in sorted(LAYERS))
        torch.manual_seed(0)
        self.unknown = lively(attention("gelu"))

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        return (*(layer(queries, keys, mask) for layer in self.known), self.unknown(queries, keys, mask))


@pytest.fixture(scope="module")
def together() -> Together:
    return Together().eval()


@pytest.fixture(scope="module")
def unexpanded(together: Together) -> ir.Model:
    users, candidates, steps = (torch.export.Dim(name) for name in "UCT")
    shapes = ({0: users, 1: candidates}, {0: users, 1: steps}, {0: users, 1: steps})
    with silenced(), torch.no_grad():
        program = torch.onnx.export(
            together,
            tensors(2, 3, 7),
            dynamo=True,
            input_names=["queries", "keys", "mask"],
            dynamic_shapes=shapes,
            custom_translation_table=dict(opaque.translations()),
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program.model


def test_every_operator_is_one_node_with_all_its_tensors(unexpanded: ir.Model) -> None:
    nodes = [node for node in unexpanded.graph if node.domain == opaque.DOMAIN]
    found = sorted(
        (node.op_type, len(node.inputs), str(node.attributes.get_string("activation", ""))) for node in nodes
    )
    assert found == sorted(
        [
            *[(opaque.GRU_STATES, 6, "")] * 7,
            *[(opaque.EVOLVED_INTEREST, 15, name) for name in ("dice", "prelu", "sigmoid")],
            *[(opaque.EVOLVED_INTEREST, 8, "bilinear")] * 2,
            *[(opaque.TARGET_INTEREST, 11, name) for name in ("sigmoid", "linear", "prelu", "prelu", "dice", "dice")],
            *[(opaque.TARGET_INTEREST, 8, name) for name in ("relu", "prelu")],
            (opaque.TARGET_INTEREST, 14, "dice"),
        ]
    )


@pytest.mark.parametrize("chunk_floats", [60, scoring_forms.CHUNK_FLOATS])
def test_graph_gives_what_the_layers_give(
    chunk_floats: int, together: Together, unexpanded: ir.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_forms, "CHUNK_FLOATS", chunk_floats)
    model = unexpanded.clone()
    expand(model)
    model = optimised(model)
    assert {node.domain for node in model.graph.all_nodes()} == {""}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    # One user or one candidate runs another recurrence, few candidates another first layer.
    for users, candidates, steps in ((1, 1, 1), (1, 3, 7), (2, 1, 7), (2, 3, 6), (1, 9, 13), (3, 9, 5)):
        given = tensors(users, candidates, steps)
        with torch.no_grad():
            expected = together(*given)
        feed = dict(zip(("queries", "keys", "mask"), (tensor.numpy() for tensor in given), strict=True))
        for name, actual, wanted in zip([*sorted(LAYERS), UNKNOWN], session.run(None, feed), expected, strict=True):
            assert actual.shape == wanted.shape
            np.testing.assert_allclose(actual, wanted.numpy(), rtol=0, atol=5e-6, err_msg=name)

"""Target attention against references, tiling, padding and its own other forms."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.layers import DIEN, DIN, DMR_U2I, AuxiliaryLoss, Interest, InterestAttention
from models.layers.pairs import all_pairs_affine, chosen_pairs_affine
from tests.models import references
from training.graph.upstream_noise import silenced

HOLES = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "din": lambda: DIN(4, [6, 1], activation="dice"),
    "din-decay": lambda: DIN(4, [6, 3, 1], activation="prelu", decay=True),
    "interest-attention": lambda: InterestAttention(4, [6, 3], activation="dice"),
    "dien-agru": lambda: DIEN(4, 5, query_dim=4),
    "dien-augru": lambda: DIEN(4, 5, "AUGRU", query_dim=4),
    **{
        f"interest-{kind}-{attention}": lambda kind=kind, attention=attention: Interest(
            4, kind, att_hidden_layers=(6,), attention=attention, hidden_size=5 if attention == "bilinear" else None
        )
        for kind in ("GRU", "AIGRU", "AGRU", "AUGRU")
        for attention in ("mlp", "bilinear")
    },
}


def tensors(targets: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (3, 4) if targets is None else (3, targets, 4)
    return (
        torch.randn(*shape, dtype=torch.float64, generator=generator),
        torch.randn(3, 5, 4, dtype=torch.float64, generator=generator),
    )


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[name]().double()


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_many_targets_equal_tiled_rows(name: str) -> None:
    layer = made(name).eval()
    for targets in (1, 2, 9):  # fewer and more than half the first layer's width: both forms of the product
        queries, keys = tensors(targets)
        actual = layer(queries, keys, HOLES)
        tiled = layer(queries.flatten(0, 1), keys.repeat_interleave(targets, 0), HOLES.repeat_interleave(targets, 0))
        torch.testing.assert_close(actual.flatten(0, 1), tiled, rtol=0, atol=1e-10)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_padding_changes_nothing(name: str, training: bool) -> None:
    query, keys = tensors()
    padded = torch.cat([keys, torch.full((3, 20, 4), float("nan"), dtype=torch.float64)], 1)
    mask = torch.cat([HOLES, torch.zeros(3, 20, dtype=torch.bool)], 1)
    plain, more = made(name).train(training), made(name).train(training)
    torch.testing.assert_close(more(query, padded, mask), plain(query, keys, HOLES))
    for (key, kept), changed in zip(plain.state_dict().items(), more.state_dict().values(), strict=True):
        torch.testing.assert_close(changed, kept, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_row_alone_equals_the_row_in_a_batch(name: str) -> None:
    layer = made(name).eval()
    query, keys = tensors()
    whole = layer(query, keys, HOLES)
    for row in range(3):
        alone = layer(query[row : row + 1], keys[row : row + 1], HOLES[row : row + 1])
        torch.testing.assert_close(alone[0], whole[row])
    assert torch.equal(whole[2], torch.zeros_like(whole[2]))  # an empty history


@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize(("rows", "steps"), [(0, 5), (3, 0), (1, 1)])
def test_small_shapes(name: str, rows: int, steps: int) -> None:
    for training in (False, True):
        layer = made(name).train(training)
        result = layer(torch.randn(rows, 4).double(), torch.randn(rows, steps, 4).double())
        assert result.shape[0] == rows
        assert torch.isfinite(result).all()


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_layers_script(name: str) -> None:
    layer = made(name).eval()
    with silenced():
        scripted = torch.jit.script(layer)
    for targets in (None, 2, 9):
        queries, keys = tensors(targets)
        torch.testing.assert_close(scripted(queries, keys, HOLES), layer(queries, keys, HOLES))


def test_din_equals_a_reference_in_numpy() -> None:
    torch.manual_seed(0)
    layer = DIN(4, [6, 1], activation="sigmoid").double()
    query, keys = tensors()
    tower = [tuple(part.detach().numpy() for part in dense.affine()) for dense in layer.dense_tower.dense]
    expected = np.zeros((3, 4))
    for row in range(3):
        for t in np.flatnonzero(HOLES[row].numpy()):
            expected[row] += (
                references.pair_score(tower, query[row].numpy(), keys[row, t].numpy()) * keys[row, t].numpy()
            )
    for training in (False, True):
        actual = layer.train(training)(query, keys, HOLES)
        np.testing.assert_allclose(actual.detach().numpy(), expected, atol=1e-12)


def test_interest_attention_equals_a_reference_in_numpy() -> None:
    torch.manual_seed(0)
    layer = InterestAttention(4, [6], batchnorm=False, activation="sigmoid", return_scores=True).double()
    query, keys = tensors()
    parts = [*layer.mlp.dense, layer.fc]
    tower = [tuple(part.detach().numpy() for part in dense.affine()) for dense in parts]
    raw = np.array(
        [
            [references.pair_score(tower, q, k) / 2.0 for k in row]
            for q, row in zip(query.numpy(), keys.numpy(), strict=True)
        ]
    )
    expected = [references.masked_softmax(scores, mask) for scores, mask in zip(raw, HOLES.numpy(), strict=True)]
    for training in (False, True):
        actual = layer.train(training)(query, keys, HOLES)
        np.testing.assert_allclose(actual.detach().numpy(), expected, atol=1e-12)


def test_first_layer_of_all_pairs_equals_the_concatenated_form() -> None:
    kernel, bias = torch.randn(16, 6).double(), torch.randn(6).double()
    for targets in (2, 9):
        queries, keys = tensors(targets)
        q = queries.unsqueeze(2).expand(-1, -1, 5, -1)
        k = keys.unsqueeze(1).expand(-1, targets, -1, -1)
        expected = torch.cat([q, k, q - k, q * k], -1) @ kernel + bias
        torch.testing.assert_close(all_pairs_affine(kernel, bias, queries, keys), expected)
        pairs = HOLES.unsqueeze(1).expand(-1, targets, -1).nonzero()
        chosen = chosen_pairs_affine(kernel, bias, queries, keys, pairs)
        torch.testing.assert_close(chosen, expected[tuple(pairs.t())])


def test_din_config_round_trips() -> None:
    layer = DIN(4, [6, 1], activation="prelu", mode="none", decay=True)
    again = DIN.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.mode, again.decay) == ("none", True)


def test_auxiliary_loss_of_three_steps_by_hand() -> None:
    torch.manual_seed(0)
    layer = AuxiliaryLoss(2, hidden_layers=(3,)).double()
    states, clicked, not_clicked = torch.randn(3, 2, 3, 2, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    (w0, b0), (w1, b1) = [tuple(part.detach().numpy() for part in dense.affine()) for dense in layer.net.dense]

    def z(state: Tensor, item: Tensor) -> float:
        hidden = references.sigmoid(np.concatenate([state.numpy(), item.numpy()]) @ w0 + b0)
        return float((hidden @ w1 + b1)[0])

    # Row 0 has the pairs (0, 1) and (1, 2), row 1 none: four terms.
    terms = []
    for t in (0, 1):
        terms.append(np.log1p(np.exp(-z(states[0, t], clicked[0, t + 1]))))
        terms.append(np.log1p(np.exp(z(states[0, t], not_clicked[0, t + 1]))))
    assert float(layer(states, clicked, not_clicked, mask).detach()) == pytest.approx(np.mean(terms), abs=1e-12)


@pytest.mark.parametrize("pairs", [1, 7, 1024, 2500])
def test_auxiliary_loss_in_pieces_equals_the_plain_one(pairs: int) -> None:
    torch.manual_seed(0)
    layer = AuxiliaryLoss(3, hidden_layers=(5, 4), state_size=2).double()
    rows = [torch.randn(1, pairs + 1, width, dtype=torch.float64, requires_grad=True) for width in (2, 3, 3)]
    leaves = [*rows, *layer.parameters()]
    outcomes = []
    for pieces in (True, False):
        layer.pieces = pieces
        loss = layer(*rows, None)
        outcomes.append((loss.detach(), *torch.autograd.grad(3.0 * loss, leaves)))
    for fast, plain in zip(*outcomes, strict=True):
        torch.testing.assert_close(fast, plain)


def test_auxiliary_loss_without_a_pair_is_zero_with_zero_gradient() -> None:
    layer = AuxiliaryLoss(2, hidden_layers=(3,))
    states = torch.randn(2, 3, 2, requires_grad=True)
    loss = layer(states, states, states, torch.tensor([[1, 0, 1], [0, 0, 0]]).bool())
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(states.grad, torch.zeros_like(states))
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in layer.parameters())


def test_dmr_takes_shorter_histories_and_refuses_longer_ones() -> None:
    layer = DMR_U2I(5, 4, 3, 2)
    assert layer(torch.randn(3, 3), torch.randn(3, 2, 4)).shape == (3, 3)
    empty = layer(torch.randn(3, 3), torch.randn(3, 5, 4), torch.zeros(3, 5, dtype=torch.bool))
    assert torch.equal(empty, torch.zeros(3, 3))  # act(b_l) is zero before training
    with pytest.raises(ValueError, match="T <= 5"):
        layer(torch.randn(3, 3), torch.randn(3, 6, 4))


def test_last_hidden_unit_of_din_is_one() -> None:
    with pytest.raises(ValueError, match="hidden_units must end with 1"):
        DIN(4, [6, 2])


def test_auxiliary_loss_scripts() -> None:
    layer = AuxiliaryLoss(2, hidden_layers=(3,))
    with silenced():
        scripted = torch.jit.script(layer)
    states, clicked, not_clicked = torch.randn(3, 3, 5, 2)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 1, 1, 0]]).bool()
    inputs = (states, clicked, not_clicked, mask)
    torch.testing.assert_close(scripted(*inputs), layer(*inputs))

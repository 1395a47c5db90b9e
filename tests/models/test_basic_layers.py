"""Masks, activations, dense layers, norms, pooling, logit correction and embeddings."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.inputs import IdField, Table
from models.layers import (
    MLP,
    BatchNorm,
    Dense,
    Dice,
    LayerNorm,
    LogitCorrection,
    PReLU,
    SequencePooling,
    advanced_activations,
    length_to_mask,
    log_sigmoid,
    masked_softmax,
)
from models.layers.embedding import FieldEmbedding
from training.graph.upstream_noise import silenced

NAMES = sorted([*advanced_activations.FUNCTIONS, *advanced_activations.CLASSES])


def scripted(module: nn.Module) -> nn.Module:
    with silenced():
        return torch.jit.script(module)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-500, 500), st.booleans()), min_size=1, max_size=9), st.floats(-100, 100))
def test_masked_softmax_is_a_distribution_over_real_steps(steps: list[tuple[float, bool]], shift: float) -> None:
    scores = torch.tensor([[score for score, _ in steps]], dtype=torch.float64)
    mask = torch.tensor([[real for _, real in steps]])
    weights = masked_softmax(scores, mask)
    assert torch.equal(weights[~mask], torch.zeros_like(weights[~mask]))
    assert float(weights.sum()) == pytest.approx(float(mask.any()))
    torch.testing.assert_close(masked_softmax(scores + shift, mask), weights, rtol=1e-9, atol=1e-9)


def test_masks_of_lengths_and_of_numbers() -> None:
    mask = length_to_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.tolist() == [[False] * 3, [True, True, False], [True] * 3]
    scores = torch.randn(3, 3)
    assert torch.equal(masked_softmax(scores, mask.int()), masked_softmax(scores, mask))
    assert masked_softmax(torch.empty(2, 0), torch.empty(2, 0, dtype=torch.bool)).shape == (2, 0)


def test_log_sigmoid_is_exact_far_out() -> None:
    z = torch.tensor([-800.0, -20.0, 0.0, 20.0, 800.0, -math.inf], dtype=torch.float64)
    expected = [-800.0, -20.0 - math.log1p(math.exp(-20.0)), -math.log(2.0), -math.log1p(math.exp(-20.0)), 0.0]
    torch.testing.assert_close(log_sigmoid(z)[:5], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    assert float(log_sigmoid(z)[5]) == -math.inf


@pytest.mark.parametrize("name", NAMES)
def test_activations_round_trip_script_and_keep_the_shape(name: str) -> None:
    activation = advanced_activations.get(name.upper(), num_features=3)
    text = advanced_activations.serialize(activation)
    again = advanced_activations.deserialize(text)
    assert advanced_activations.serialize(again) == text
    assert json.loads(text)["name"] == name
    assert again is not activation
    x = torch.randn(2, 4, 3)
    y = activation.eval()(x)
    assert y.shape == x.shape
    torch.testing.assert_close(scripted(activation)(x), y)
    torch.testing.assert_close(again.eval()(x), y)


def test_activation_identifiers() -> None:
    assert advanced_activations.get(None) is None
    assert advanced_activations.serialize(None) is None
    assert advanced_activations.get(torch.tanh) is torch.tanh
    assert isinstance(advanced_activations.get(nn.ReLU), nn.ReLU)
    assert advanced_activations.get("{'name': 'elu', 'alpha': 2.0}").alpha == 2.0
    assert advanced_activations.get({"name": "relu", "max_value": 6.0})(torch.tensor(9.0)) == 6.0
    for unknown in ("nonsense", {"name": "elu", "beta": 1.0}, "{'name': __import__('os')}", {"name": "prelu"}, 3):
        with pytest.raises(ValueError, match="activation"):
            advanced_activations.get(unknown)
    with pytest.raises(ValueError, match="serialized"):
        advanced_activations.serialize(nn.ReLU())


def test_relu_with_the_keras_options() -> None:
    activation = advanced_activations.get({"name": "relu", "negative_slope": 0.5, "threshold": 1.0, "max_value": 3.0})
    assert activation(torch.tensor([-1.0, 0.5, 1.0, 2.0, 5.0])).tolist() == [-1.0, -0.25, 1.0, 2.0, 3.0]


def test_dice_trains_on_batch_statistics_and_serves_on_running_ones() -> None:
    layer = Dice(3, momentum=0.25).double()
    x = torch.randn(8, 5, 3, dtype=torch.float64) * 2 + 1
    rows = x.reshape(-1, 3)
    share = torch.sigmoid((x - rows.mean(0)) / torch.sqrt(rows.var(0, unbiased=False) + 1e-8))
    torch.testing.assert_close(layer(x), share * x)
    torch.testing.assert_close(layer.bn.running_mean, 0.25 * rows.mean(0))
    layer.eval()
    torch.testing.assert_close(layer(x)[:1, :1], layer(x[:1, :1]))
    assert torch.isfinite(Dice(3).train()(torch.randn(1, 3))).all()  # a batch of one row has no variance
    assert Dice(3).train()(torch.empty(0, 3)).shape == (0, 3)


def test_prelu_slopes_the_last_axis() -> None:
    layer = PReLU(2)
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor([0.5, 2.0]))
    assert layer(torch.tensor([[[-1.0, -1.0], [3.0, -2.0]]])).tolist() == [[[-0.5, -2.0], [3.0, -4.0]]]
    with pytest.raises(ValueError, match="num_features = 2"):
        layer(torch.zeros(2, 3))


def test_kernel_norm_changes_nothing_at_first_and_fixes_the_column_lengths() -> None:
    torch.manual_seed(0)
    plain, normed = Dense(4, 3), Dense(4, 3, allow_kernel_norm=True, kernel_norm_trainable=True)
    normed.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        normed.kernel_norm.copy_(plain.kernel.norm(dim=0))
    x = torch.randn(5, 4)
    torch.testing.assert_close(normed(x), plain(x))
    with torch.no_grad():
        normed.kernel.mul_(7.0)
        normed.kernel[:, 0] = 0.0
    torch.testing.assert_close(normed(x)[:, 1:], plain(x)[:, 1:])
    normed(x).sum().backward()
    assert torch.isfinite(normed.kernel.grad).all()
    assert dict(Dense(4, 3, allow_kernel_norm=True).named_buffers()).keys() == {"kernel_norm"}


def test_monitor_counts_inactive_relus_while_training() -> None:
    layer = Dense(2, 2, "relu", inactive_relu_monitor=True, inactive_relu_monitor_decay=0.5)
    with torch.no_grad():
        layer.kernel.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        layer.bias.copy_(torch.tensor([0.0, -1.0]))
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    layer(x)
    torch.testing.assert_close(layer.inactive_relu_rate, torch.tensor([0.125, 0.5]))
    layer.eval()(x)
    torch.testing.assert_close(layer.inactive_relu_rate, torch.tensor([0.125, 0.5]))
    assert not hasattr(Dense(2, 2, "tanh", inactive_relu_monitor=True), "inactive_relu_rate")


def test_penalties_of_a_layer_and_its_children_are_added() -> None:
    layer = MLP(2, [3, 1], kernel_regularizer=lambda w: w.square().sum(), bias_regularizer=lambda b: b.abs().sum() + 1)
    expected = sum(float(dense.kernel.detach().square().sum()) + 1.0 for dense in layer.dense)
    assert float(layer.regularization_loss().detach()) == pytest.approx(expected)
    assert float(MLP(2, [1]).regularization_loss()) == 0.0


def test_mlp_activation_forms() -> None:
    def names(activations: object) -> list[str]:
        layer = MLP(2, [3, 4, 1], activations=activations)
        return [json.loads(advanced_activations.serialize(act))["name"] for act in layer.act]

    assert names(None) == ["relu", "relu", "linear"]
    assert names("tanh") == ["tanh", "tanh", "linear"]
    assert names(["prelu", None, "sigmoid"]) == ["prelu", "linear", "sigmoid"]
    shared = PReLU(3)
    layer = MLP(2, [3, 3, 1], activations=shared)
    assert layer.act[0] is not layer.act[1]
    with pytest.raises(ValueError, match="one entry for each of 3 layers, got 1"):
        MLP(2, [3, 4, 1], activations=["tanh"])


def test_mlp_with_batch_norm_takes_three_axes_one_row_and_none() -> None:
    layer = MLP(3, [4, 2], enable_batch_normalization=True, batch_normalization_renorm=True)
    for shape in ((5, 3), (2, 4, 3), (1, 3), (0, 3)):
        assert layer.train()(torch.randn(*shape)).shape == (*shape[:-1], 2)
    x = torch.randn(6, 3)
    torch.testing.assert_close(scripted(layer.eval())(x), layer(x))


def test_renormalised_batch_norm_by_hand() -> None:
    layer = BatchNorm(1, renorm=True, renorm_clipping={"rmax": 1.5, "dmax": 0.5}, eps=0.0, momentum=0.1).double()
    layer.running_mean.fill_(1.0)
    layer.running_var.fill_(4.0)
    x = torch.tensor([[0.0], [8.0]], dtype=torch.float64)  # mean 4, deviation 4; running mean 1, deviation 2
    # r = 4 / 2 clipped to 1.5, d = (4 - 1) / 2 clipped to 0.5
    torch.testing.assert_close(layer(x), torch.tensor([[-1.5 + 0.5], [1.5 + 0.5]], dtype=torch.float64))
    torch.testing.assert_close(layer.running_mean, torch.tensor([1.3], dtype=torch.float64))
    with pytest.raises(ValueError, match="renorm_clipping"):
        BatchNorm(1, renorm=True, renorm_clipping={"rmaxx": 1.0})


def test_batch_norm_equals_torchs() -> None:
    own, theirs = BatchNorm(3, eps=1e-3, momentum=0.01), nn.BatchNorm1d(3, eps=1e-3, momentum=0.01)
    for _ in range(3):
        x = torch.randn(7, 3) * 3 + 1
        torch.testing.assert_close(own(x), theirs(x))
    torch.testing.assert_close(own.eval()(x), theirs.eval()(x))


def test_layer_norm_of_a_constant_row_is_beta() -> None:
    layer = LayerNorm(4)
    nn.init.constant_(layer.beta, 0.3)
    torch.testing.assert_close(layer(torch.full((1, 4), 7.0)), torch.full((1, 4), 0.3))


@pytest.mark.parametrize("mode", ["sum", "avg", "max"])
def test_pooling_ignores_padding_and_gives_zero_for_nothing(mode: str) -> None:
    layer = SequencePooling(mode)
    x = torch.tensor([[[1.0], [5.0], [-2.0]], [[3.0], [3.0], [3.0]]])
    mask = torch.tensor([[1, 0, 1], [0, 0, 0]]).bool()
    expected = {"sum": -1.0, "avg": -0.5, "max": 1.0}[mode]
    assert layer(x, mask).tolist() == [[expected], [0.0]]
    assert torch.equal(scripted(layer)(x, mask), layer(x, mask))
    assert layer(x[:, :0]).tolist() == [[0.0], [0.0]]


def test_logit_correction_describes_the_sampled_data() -> None:
    rate = torch.tensor([0.1, 1.0, 2.0], dtype=torch.float64)
    p = torch.tensor([0.02, 0.3, 0.9], dtype=torch.float64)
    z = torch.log(p / (1 - p))
    kept = p / (p + (1 - p) * rate)  # share of positives among positives and the kept negatives
    torch.testing.assert_close(torch.sigmoid(LogitCorrection()(z, rate)), kept)
    doubled = p / (1 + p)  # every impression logged as a negative, and again when it converted
    torch.testing.assert_close(torch.sigmoid(LogitCorrection(sample_bias=True)(z)), doubled)
    assert torch.equal(LogitCorrection()(z, torch.ones(3)), z)
    assert LogitCorrection()(z.unsqueeze(1), rate).shape == (3, 1)
    for bad in (torch.zeros(3), torch.ones(2), torch.ones(3, 1, 1)):
        with pytest.raises(ValueError, match="sample_rate"):
            LogitCorrection()(z, bad)


def embedding() -> FieldEmbedding:
    tables = [Table(name="item", rows=6, dim=3), Table(name="tag", rows=5, dim=2)]
    sides = [
        [IdField(name="tags", table="tag", column=1, width=3), IdField(name="item", table="item", column=0)],
        [IdField(name="past", table="item", column=0)],
    ]
    return FieldEmbedding(tables, sides, std=1.0)


def test_fields_share_tables_and_average_their_values() -> None:
    layer = embedding()
    item, tag = (table.weight for table in layer.tables)
    tags, items = layer(torch.tensor([[4, 2, 0, 3], [1, 0, 0, 0]]), 0)
    torch.testing.assert_close(items, item[[4, 1]])
    torch.testing.assert_close(tags, torch.stack([(tag[2] + tag[3]) / 2, torch.zeros(2)]))
    assert torch.equal(layer(torch.tensor([[[4], [0]]]), 1)[0][0, 0], item[4])
    for got, expected in zip(scripted(layer)(torch.tensor([[4, 2, 0, 3]]), 0), (tags[:1], items[:1]), strict=True):
        torch.testing.assert_close(got, expected)


def test_padding_row_is_zero_and_gets_no_gradient() -> None:
    layer = embedding()
    loss: Tensor = sum((vector + 1).square().sum() for vector in layer(torch.tensor([[0, 2, 0, 0], [5, 0, 0, 1]]), 0))
    loss.backward()
    for table in layer.tables:
        assert torch.equal(table.weight[0], torch.zeros_like(table.weight[0]))
        assert torch.equal(table.weight.grad[0], torch.zeros_like(table.weight[0]))
        assert table.weight.grad[1:].abs().sum() > 0

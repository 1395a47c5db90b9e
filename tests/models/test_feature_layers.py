"""Crossing and transforming features: against slow references on random shapes, and the rules of each layer."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import layers
from tests.models import references_features as slow

SEEDS = range(6)


def random_state(layer: nn.Module, rng: np.random.Generator) -> slow.State:
    """Gives a layer random numbers, in double precision, and returns them."""
    layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(0.0, 0.7, parameter.shape)))
    return {name: tensor.numpy() for name, tensor in layer.state_dict().items()}


def tensors(*arrays: Any) -> list[Any]:
    return [
        list(map(torch.from_numpy, array)) if isinstance(array, list) else torch.from_numpy(array) for array in arrays
    ]


def check(actual: Tensor, expected: np.ndarray[Any, Any]) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_group_int(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, dim, many, few = rng.integers(1, 6, 4)
    left, right = ([rng.normal(size=(rows, dim)) for _ in range(count)] for count in (many, few))
    given = tensors(left, right)
    check(layers.GroupInt("dot")(*given), slow.group_int(left, right, "dot", {}))
    plain = slow.group_int(left, right, "multiply", {})
    check(layers.FFM("multiply")(*given), plain.reshape(rows, -1))
    check(layers.GroupInt("multiply", out_type="stack")(*given), plain)
    for column, product in enumerate(layers.GroupInt("multiply", out_type=None)(*given)):
        check(product, plain[:, column])
    attention = layers.GroupInt("multiply", True, [4, 1], out_type="stack", embedding_dim=int(dim))
    state = random_state(attention, rng)
    check(attention(*given), slow.group_int(left, right, "multiply", state))


@pytest.mark.parametrize("seed", SEEDS)
def test_all_int_and_c_dot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, fields, dim, compressed = (int(size) for size in rng.integers(1, 6, 4))
    x = rng.normal(size=(rows, fields, dim))
    layer = layers.AllInt(fields, compressed, use_bias=bool(seed % 2), out_type="stack")
    state = random_state(layer, rng)
    check(layer(torch.from_numpy(x)), slow.all_int(x, state))
    units = [4]
    tower = layers.CDot(fields, dim, compressed, units)
    state = random_state(tower, rng)
    check(tower(torch.from_numpy(x)), slow.c_dot(x, state, compressed))
    assert units == [4]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("sequence", "stacked"), [(False, False), (False, True), (True, False), (True, True)])
def test_can(seed: int, sequence: bool, stacked: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, dim, count, features, steps = (int(size) for size in rng.integers(1, 5, 5))
    user = rng.normal(size=(rows, features, steps, dim))
    item = rng.normal(size=(rows, count * dim * (dim + 1)))
    mask = rng.random((rows, features, steps)) < 0.6
    each = np.array(
        [
            [[slow.can(user[b, m, t], item[b], count, "tanh") for t in range(steps)] for m in range(features)]
            for b in range(rows)
        ]
    )
    layer = layers.CAN(dim, count, "tanh", sequence, stacked)
    where = (slice(None), slice(None) if stacked else 0, slice(None) if sequence else 0)
    given, expected = user[where], each[where]
    if sequence:
        expected = (expected * mask[where][..., None]).sum(-2)
        garbage = np.where(mask[where][..., None], given, np.nan)
        check(layer(*tensors(garbage, item, mask[where])), expected)
    else:
        check(layer(*tensors(given, item)), expected)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("kind", ["vector", "matrix", "mixed"])
@pytest.mark.parametrize("seed", SEEDS)
def test_dcn(seed: int, kind: str, normed: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, dim, count, experts, rank = (int(size) for size in rng.integers(1, 5, 5))
    x = rng.normal(size=(rows, dim))
    layer = layers.DCN(dim, count, kind, num_experts=experts, low_rank=rank, allow_kernel_norm=normed)
    state = random_state(layer, rng)
    check(layer(torch.from_numpy(x)), slow.dcn(x, state, kind, count))


@pytest.mark.parametrize("kind", ["vector", "matrix", "mixed"])
def test_kernel_norm_of_dcn_changes_nothing_at_first(kind: str) -> None:
    torch.manual_seed(0)
    normed = layers.DCN(4, 2, kind, num_experts=2, low_rank=3, allow_kernel_norm=True)
    plain = layers.DCN(4, 2, kind, num_experts=2, low_rank=3)
    plain.load_state_dict(normed.state_dict(), strict=False)
    x = torch.randn(5, 4)
    torch.testing.assert_close(normed(x), plain(x))


def test_dropout_of_dcn_keeps_its_share_and_stops_in_evaluation() -> None:
    layer = layers.DCN(100, 1, "vector", initializer="zeros", use_dropout=True, keep_prob=0.8)
    x = torch.ones(100, 100)
    assert float((layer(x) == 0).double().mean()) == pytest.approx(0.2, abs=0.02)
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
@pytest.mark.parametrize("seed", SEEDS)
def test_cin(seed: int, activation: str) -> None:
    rng = np.random.default_rng(seed)
    rows, fields, dim, *maps = (int(size) for size in rng.integers(1, 5, 5))
    x = rng.normal(size=(rows, fields, dim))
    layer = layers.CIN(fields, dim, activation=activation, hidden_units=maps)
    state = random_state(layer, rng)
    check(layer(torch.from_numpy(x)), slow.cin(x, state, maps, activation))


@pytest.mark.parametrize("seed", SEEDS)
def test_auto_int_and_se_net(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, fields, dim, count = (int(size) for size in rng.integers(1, 5, 4))
    x = rng.normal(size=(rows, fields, dim))
    check(layers.AutoInt(count, out_type="stack")(torch.from_numpy(x)), slow.auto_int(x, count))
    check(layers.AutoInt(0)(torch.from_numpy(x)), x.reshape(rows, -1))
    unequal = [rng.normal(size=(rows, dim + n)) for n in range(fields)]
    layer = layers.SeNet(fields, 3)
    state = random_state(layer, rng)
    check(layer(*tensors(unequal)), np.concatenate(slow.se_net(unequal, state), 1))
    same = [x[:, n] for n in range(fields)]
    check(layer(torch.from_numpy(x)), np.concatenate(slow.se_net(same, state), 1))
    bare = layers.SeNet(fields, None, out_type=None)
    for actual, expected in zip(bare(*tensors(same)), slow.se_net(same, {}), strict=True):
        check(actual, expected)


def test_self_attention_survives_large_embeddings() -> None:
    x = 1e3 * torch.randn(2, 3, 4)
    assert torch.isfinite(layers.AutoInt(2)(x)).all()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("spatial", [(), (2,), (2, 3), (2, 3, 4)])
def test_add_bias(spatial: tuple[int, ...], full: bool, first: bool) -> None:
    rng = np.random.default_rng(0)
    layer = layers.AddBias([*spatial, 5] if full else [5])
    state = random_state(layer, rng)
    shape = (2, 5, *spatial) if first else (2, *spatial, 5)
    x = rng.normal(size=shape)
    data_format = "channels_first" if first else "channels_last"
    check(layer(torch.from_numpy(x), data_format), slow.add_bias(x, state["bias"], first))


def test_merging_follows_the_table() -> None:
    a, b, cube = torch.randn(4, 3), torch.randn(4, 3), torch.randn(4, 2, 3)
    merge = layers.merge_tensor_list
    assert torch.equal(merge([a, b]), torch.cat([a, b], 1))
    assert torch.equal(merge([a, b], "stack", axis=0), torch.stack([a, b]))
    given = [a, b]
    assert merge(given, None) is given
    assert merge(a, None) is a
    assert merge([a], "stack") is a
    assert torch.equal(merge(cube), cube.flatten(1))
    assert merge(cube, "stack") is cube
    for actual, expected in zip(merge(cube, None, axis=2), cube.unbind(2), strict=True):
        assert torch.equal(actual, expected)
    wide = torch.randn(4, 6)
    assert merge(wide, num_feature=2) is wide
    assert torch.equal(merge(wide, "stack", num_feature=3), wide.view(4, 3, 2))
    assert [part.shape for part in merge(wide, None, num_feature=3)] == [(4, 2)] * 3
    assert merge(a, keep_list=True) == [a]
    assert len(merge([a, b], None, keep_list=True)) == 2
    kept = [cube]
    merge(kept)
    assert kept == [cube]


@pytest.mark.parametrize("name", ["sum", "avg", "max"])
def test_list_pooling(name: str) -> None:
    layer = {"sum": layers.SumPooling, "avg": layers.AvgPooling, "max": layers.MaxPooling}[name]()
    parts = [np.random.default_rng(seed).normal(size=(3, 2)) for seed in range(4)]
    expected = {"sum": sum(parts), "avg": sum(parts) / 4, "max": np.max(parts, 0)}[name]
    check(layer([torch.from_numpy(part) for part in parts]), expected)
    alone = torch.randn(2, 2)
    assert layer([alone]) is alone
    with pytest.raises(NotImplementedError):
        layers.Pooling()([alone, alone])


def test_penalties_of_matrices_in_lists() -> None:
    layer = layers.DCN(3, 2, "vector", regularizer=lambda kernel: kernel.square().sum())
    expected = sum(float(kernel.detach().square().sum()) for kernel in layer.kernel)
    assert float(layer.regularization_loss().detach()) == pytest.approx(expected)

"""Tops for several tasks: against the layers they are made of, and what they say about their gates."""

import math

import pytest
import torch
from torch import Tensor

from models.ctr.tower import MultiTaskTower, UserCandidateTower
from models.multitask import HiddenOptions, Top, build_top, read_top, top_to_dict

TASKS = ("ctr", "cvr", "share")
TOPS = {
    "shared_bottom": {"kind": "shared_bottom", "tower_layers": [4]},
    "mmoe": {"kind": "mmoe", "experts": 3, "tower_layers": [4]},
    "mmoe-topk": {"kind": "mmoe", "experts": 4, "gate": "topk", "top_k": 2, "tower_layers": []},
    "mmoe-noise": {"kind": "mmoe", "experts": 4, "gate": "noise_topk", "top_k": 2},
    "snr": {"kind": "snr", "subnets": 3, "tower_layers": [4]},
    "snr-aver": {"kind": "snr", "subnets": 3, "routing": "aver"},
}


def made(name: str, width: int = 7) -> Top:
    torch.manual_seed(0)
    layers = (6, 6) if name.startswith("snr") else (6, 5)
    top = build_top(read_top(TOPS[name]), width, HiddenOptions(layers=layers), TASKS).eval()
    with torch.no_grad():
        for parameter in top.parameters():
            if parameter.abs().max() == 0:
                parameter.normal_(0.0, 0.5)
    return top


@pytest.mark.parametrize("name", TOPS)
@pytest.mark.parametrize("widths", [(3, 4), (0, 7), (7, 0)])
@pytest.mark.parametrize("input_norm", [False, True])
def test_split_input_gives_what_the_joined_input_gives(name: str, widths: tuple[int, int], input_norm: bool) -> None:
    top = made(name)
    tower = MultiTaskTower(*widths, top, input_norm).eval()
    user, candidate = torch.randn(2, widths[0]), torch.randn(2, 5, widths[1])
    joined = torch.cat([user.unsqueeze(1).expand(-1, 5, -1), candidate], -1)
    if tower.norm is not None:
        joined = tower.norm(joined)
    logits = tower(user, candidate)
    assert logits.shape == (2, 5, len(TASKS))
    torch.testing.assert_close(logits, top(joined), rtol=1e-5, atol=1e-5)


def test_mmoe_top_is_the_layer_and_a_tower_a_task() -> None:
    for name in ("mmoe", "mmoe-topk", "mmoe-noise"):
        top = made(name)
        x = torch.randn(9, 7)
        mixed: list[Tensor] = top.mmoe(x)
        expected = torch.cat([tower(part) for tower, part in zip(top.towers.each, mixed, strict=True)], 1)
        torch.testing.assert_close(top(x), expected, rtol=1e-5, atol=1e-6)


def test_snr_top_is_its_routes_one_after_the_other() -> None:
    top = made("snr")
    x = torch.randn(9, 7)
    first = list(top.act[0](top.first(x)).chunk(3, 1))
    second = top.act[1](torch.cat(top.routes[0](first), 1)).chunk(3, 1)
    parts = top.routes[1](list(second))
    expected = torch.cat([tower(part) for tower, part in zip(top.towers.each, parts, strict=True)], 1)
    torch.testing.assert_close(top(x), expected)


def test_gate_statistics_tell_equal_experts_from_a_collapse() -> None:
    torch.manual_seed(0)
    top = build_top(read_top(TOPS["mmoe"]), 7, HiddenOptions(layers=(6, 5)), TASKS).train()
    assert top.gate_statistics() == {}
    x = torch.randn(64, 7)
    kernel, bias = top.first_affine()
    _, auxiliary = top.training_outputs(x @ kernel + bias)
    assert float(auxiliary.detach()) == 0.0  # a softmax gate is not balanced
    found = top.gate_statistics()
    assert set(found) == set(TASKS)
    for task in TASKS:
        assert found[task]["entropy"] == pytest.approx(math.log(3), abs=1e-6)
        assert found[task]["top_share"] == pytest.approx(1 / 3, abs=1e-6)
    with torch.no_grad():
        top.mmoe.gate_weight[0, 3 + 1] = 1e4
    positive = x.clone()
    positive[:, 0] = 1.0
    for _ in range(600):
        kernel, bias = top.first_affine()
        top.training_outputs((positive @ kernel + bias).detach())
    found = top.gate_statistics()
    assert found["cvr"]["top_share"] > 0.95
    assert found["cvr"]["entropy"] < 0.01
    assert found["ctr"]["top_share"] == pytest.approx(1 / 3, abs=1e-6)


def test_gate_statistics_are_no_part_of_the_state_and_forward_leaves_them() -> None:
    top = made("mmoe")
    before = {name: value.clone() for name, value in top.state_dict().items()}
    top.train()(torch.randn(8, 7))
    assert top.gate_statistics() == {}
    kernel, bias = top.first_affine()
    top.training_outputs(torch.randn(8, 7) @ kernel + bias)
    assert set(top.state_dict()) == set(before)
    assert all(torch.equal(value, before[name]) for name, value in top.state_dict().items())
    assert top.gate_statistics()


def test_load_balance_is_the_layers_times_its_weight() -> None:
    top = made("mmoe-topk").train()
    x = torch.randn(32, 7)
    kernel, bias = top.first_affine()
    logits, auxiliary = top.training_outputs(x @ kernel + bias)
    gates = top.mmoe.calc_gate(x)
    expected = 0.01 * top.mmoe.load_balance_loss(gates).sum()
    torch.testing.assert_close(auxiliary, expected)
    assert float(auxiliary.detach()) > 0
    torch.testing.assert_close(logits, top(x), rtol=1e-5, atol=1e-6)


def test_snr_counts_its_open_routes() -> None:
    top = build_top(read_top({"kind": "snr", "subnets": 2, "l0": 0.5}), 7, HiddenOptions(layers=(6,)), TASKS).train()
    routes = top.routes[0]
    with torch.no_grad():
        routes.log_alpha.copy_(torch.tensor([9.0, -9.0, 9.0, 9.0, -9.0, -9.0]).view(6, 1))
    _, auxiliary = top.training_outputs(torch.randn(4, 12))
    # Each of the three open routes counts 1, each of the closed ones 0, up to the sigmoid's tails.
    assert float(auxiliary.detach()) == pytest.approx(0.5 * 3, abs=0.01)
    found = top.gate_statistics()
    assert [found[task]["open_routes"] for task in TASKS] == [1.0, 0.0, 0.5]
    assert routes.training


def test_options_round_trip_and_default_to_the_plain_network() -> None:
    for given in (*TOPS.values(), "mlp", {"kind": "mlp"}):
        assert read_top(top_to_dict(read_top(given))) == read_top(given)
    assert top_to_dict(read_top("mmoe"))["kind"] == "mmoe"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mmoo", "top: 'mmoo' is not known; known are mlp, mmoe, shared_bottom, snr"),
        (3, "top must be a name or a mapping with 'kind', got 3"),
        ({"kind": "mmoe", "expert": 3}, "top mmoe: .*expert"),
        ({"kind": "mmoe", "experts": 0}, "experts and top_k must be at least 1, got 0"),
        ({"kind": "mmoe", "gate": "hard"}, "gate must be one of softmax, topk, noise_topk; got 'hard'"),
        ({"kind": "mmoe", "balance": -1}, "balance must not be negative, got -1"),
        ({"kind": "snr", "routing": "all"}, "routing must be one of trans, aver; got 'all'"),
        ({"kind": "snr", "subnets": 0}, "subnets must be at least 1, got 0"),
        ({"kind": "snr", "l0": -1}, "l0 must not be negative, got -1"),
        ({"kind": "shared_bottom", "tower_layers": [0]}, r"tower_layers must be positive, got \[0\]"),
    ],
)
def test_mistakes_name_the_argument(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_top(given)


def test_tops_need_layers_and_an_input() -> None:
    for name in ("shared_bottom", "mmoe", "snr"):
        with pytest.raises(ValueError, match="must name at least one"):
            build_top(read_top(name), 7, HiddenOptions(layers=()), TASKS)
    with pytest.raises(ValueError, match="out_subnet_dim must equal in_subnet_dim"):
        build_top(read_top({"kind": "snr", "routing": "aver"}), 7, HiddenOptions(layers=(6, 5)), TASKS)
    with pytest.raises(ValueError, match="at least one user or candidate feature"):
        MultiTaskTower(0, 0, made("mmoe"))
    with pytest.raises(ValueError, match="at least one user or candidate feature"):
        UserCandidateTower(0, 0, (4,), 1)
    with pytest.raises(ValueError, match="options must be of"):
        build_top(read_top("mlp"), 7, HiddenOptions(layers=(4,)), TASKS)

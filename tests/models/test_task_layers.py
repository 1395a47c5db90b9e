"""Multi-task layers, loss weights and architecture search: slow references on random shapes, and each layer's rules."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models import layers
from tests.models import references_tasks as slow
from tests.models.test_feature_layers import check, random_state, tensors

SEEDS = range(6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["softmax", "topk", "noise_topk"])
@pytest.mark.parametrize("seed", SEEDS)
def test_mmoe(seed: int, kind: str, training: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, width, tasks, experts, top_k, of_gate = (int(size) for size in rng.integers(1, 5, 6))
    layer = layers.MMoE(
        width, tasks, [3, 2], "relu", gate_type=kind, top_k=top_k, num_experts=experts, gate_in_features=of_gate
    ).train(training)
    state = random_state(layer, rng)
    x, gate_input = rng.normal(size=(rows, width)), rng.normal(size=(rows, of_gate))
    noise = rng.normal(size=(rows, tasks * experts))
    logits = gate_input @ state["gate_weight"]
    if kind == "noise_topk" and training:
        logits = logits + noise * np.log1p(np.exp(gate_input @ state["gate_noise"]))
    gates = slow.mmoe_gates(logits, tasks, experts, kind, top_k)
    check(layer.calc_gate(*tensors(gate_input, noise)), gates)
    for actual, expected in zip(layer(*tensors(x, gate_input, noise)), slow.mmoe(x, gates, state, 2), strict=True):
        check(actual, expected)
    load = gates.sum(0)
    check(layer.load_balance_loss(torch.from_numpy(gates)), load.var(0) / load.mean(0) ** 2)


def test_experts_may_differ_and_tell_their_number() -> None:
    nested = layers.MMoE(4, 2, [[5, 3], [3]], "relu")
    assert [len(expert.dense) for expert in nested.experts] == [2, 1]
    assert layers.MMoE(4, 2, [3], ["relu", "tanh", None]).num_experts == 3
    assert layers.MMoE(4, 2, [3], "relu", ["zeros", "ones"]).num_experts == 2
    per_expert = layers.MMoE(4, 1, [3, 2], ["tanh", "relu"])
    assert [type(expert.act[0]).__name__ for expert in per_expert.experts] == ["Elementwise", "ReLU"]
    assert layers.MMoE(4, 1, [2], None, gate_type="topk", topk=2, num_experts=3).top_k == 2


def test_noise_is_drawn_in_training_alone_and_an_empty_batch_is_balanced() -> None:
    torch.manual_seed(0)
    layer = layers.MMoE(4, 2, [3], None, gate_type="noise_topk", top_k=2, num_experts=4)
    nn.init.normal_(layer.gate_weight)
    x = torch.randn(8, 4)
    assert not torch.equal(layer.calc_gate(x), layer.calc_gate(x))
    layer.eval()
    assert torch.equal(layer.calc_gate(x), layer.calc_gate(x))
    assert layer.load_balance_loss(layer.calc_gate(x[:0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("ste", [False, True])
@pytest.mark.parametrize("kind", ["trans", "aver"])
@pytest.mark.parametrize("seed", SEEDS)
def test_snr(seed: int, kind: str, ste: bool) -> None:
    rng = np.random.default_rng(seed)
    rows, n_in, width, n_out, out = (int(size) for size in rng.integers(1, 5, 5))
    out = width if kind == "aver" else out
    layer = layers.SNR(n_in, width, n_out, out, kind, use_ste=ste)
    state = random_state(layer, rng)
    layer.log_alpha.data.mul_(3.0)
    inputs, u = [rng.normal(size=(rows, width)) for _ in range(n_in)], rng.uniform(size=(n_in * n_out, 1))
    for drawn in (u, None):
        layer.train(drawn is not None)
        outputs = layer(*tensors(inputs), None if drawn is None else torch.from_numpy(drawn))
        for actual, expected in zip(outputs, slow.snr(inputs, state, n_out, out, drawn), strict=True):
            check(actual, expected)
    odds = np.exp(state["log_alpha"] - 0.5 * np.log(0.1 / 1.1))
    check(layer.l0_loss(), (odds / (1 + odds)).sum())


def test_closed_routes_give_zeros_and_still_learn_straight_through() -> None:
    inputs = [torch.randn(3, 4), torch.randn(3, 4)]
    u = torch.full((2, 1), 0.5)
    for ste in (False, True):
        layer = layers.SNR(2, 4, 1, 4, use_ste=ste)
        nn.init.constant_(layer.log_alpha, -9.0)
        assert torch.equal(layer(inputs, u)[0], torch.zeros(3, 4))
        (gradient,) = torch.autograd.grad(layer(inputs, u)[0].sum(), layer.log_alpha)
        assert bool(gradient.any()) == ste
        assert torch.equal(layer.eval()(inputs)[0], torch.zeros(3, 4))
    assert torch.isfinite(layer.train()(inputs, torch.tensor([[0.0], [1.0]]))[0]).all()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0])
def test_grad_norm(power: float, relative: bool) -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 5):
        layer = layers.GradNorm([str(i) for i in range(count)], loss_pow=power, relative_diff=relative)
        state = random_state(layer, rng)
        norms, losses = rng.uniform(0, 3, count), rng.uniform(0, 3, count)
        found = layer.combine(*tensors(norms, losses))
        expected = slow.grad_norm(state["weight"], norms, losses, power, relative)
        for actual, value in zip(found, expected, strict=True):
            check(actual, np.array(value))
        zero, _ = layer.combine(torch.zeros(count).double(), torch.ones(count).double())
        (gradient,) = torch.autograd.grad(zero, layer.weight)
        assert float(zero.detach()) == 0.0
        assert torch.isfinite(gradient).all()


def test_gradient_norms_join_all_shared_tensors_of_any_shape() -> None:
    cube, matrix = torch.randn(2, 3, 4, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    losses = [3 * cube.sum(), cube.sum() + 2 * matrix.sum(), torch.tensor(1.0)]
    layer = layers.GradNorm(["a", "b", "constant"], loss_pow=1.0)
    norms = torch.tensor([3 * 24**0.5, (24 + 4 * 10) ** 0.5, 0.0])
    expected = layer.combine(norms, torch.stack(losses))
    for actual, value in zip(layer(losses, [cube, matrix]), expected, strict=True):
        torch.testing.assert_close(actual, value)


def test_grad_norm_trains_its_weights_alone_and_brings_the_gradients_together() -> None:
    layer = layers.GradNorm(["big", "small"])
    shared = torch.ones(4, requires_grad=True)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(300):
        gnorm_loss, weighted = layer([10 * shared.sum(), shared.sum()], [shared])
        optimizer.zero_grad()
        assert torch.autograd.grad(weighted, layer.weight, allow_unused=True, retain_graph=True) == (None,)
        gnorm_loss.backward()
        assert shared.grad is None
        optimizer.step()
    big, small = torch.softmax(layer.weight.detach(), 0)
    assert float(10 * big) == pytest.approx(float(small), rel=0.02)


def resumed(layer: nn.Module, optimizer: torch.optim.Optimizer, fresh: nn.Module) -> torch.optim.Optimizer:
    """Carry a layer and its optimizer over to a new process's objects."""
    fresh.load_state_dict(copy.deepcopy(layer.state_dict()))
    other = torch.optim.Adam(fresh.parameters(), lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return other


@pytest.mark.parametrize("kind", ["grad_norm", "uncertainty", "custom"])
def test_loss_weights_survive_a_resume(kind: str) -> None:
    def make() -> nn.Module:
        if kind == "grad_norm":
            return layers.GradNorm(["a", "b"])
        return layers.UncertaintyWeighting(2) if kind == "uncertainty" else layers.CustomMultiLossLayer(2)

    def step(layer: Any, optimizer: torch.optim.Optimizer) -> None:
        shared = torch.ones(3, requires_grad=True)
        if kind == "grad_norm":
            loss = layer([4 * shared.sum(), shared.sum()], [shared])[0]
        elif kind == "uncertainty":
            loss = layer(torch.tensor([0.3, 2.0]))
        else:
            loss = layer([torch.zeros(2, 1)] * 2, [torch.ones(2, 1), 3 * torch.ones(2, 1)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    layer = make()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(3):
        step(layer, optimizer)
    fresh = make()
    other = resumed(layer, optimizer, fresh)
    for _ in range(3):
        step(layer, optimizer)
        step(fresh, other)
    for before, after in zip(layer.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(before, after)
        assert before.abs().sum() > 0


def test_uncertainty_finds_the_noise_levels() -> None:
    layer = layers.UncertaintyWeighting(2, ["regression", "classification"])
    losses = torch.tensor([0.2, 0.7])
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        layer(losses).backward()
        optimizer.step()
    # The minimum of 0.5 e^-s L + 0.5 s is s = log L, that of e^-s L + 0.5 s is s = log 2 L.
    torch.testing.assert_close(layer.log_vars.detach(), torch.log(torch.tensor([0.2, 1.4])), rtol=0.0, atol=1e-3)


def test_clamped_uncertainty_is_bounded_and_the_keras_form_is_twice_the_paper() -> None:
    layer = layers.UncertaintyWeighting(1, clamp=(-2.0, 2.0))
    nn.init.constant_(layer.log_vars, -50.0)
    assert float(layer(torch.zeros(1)).detach()) == -1.0
    keras, paper = layers.CustomMultiLossLayer(1), layers.UncertaintyWeighting(1, ["regression"])
    nn.init.constant_(keras.log_vars, 0.4)
    nn.init.constant_(paper.log_vars, 0.4)
    error = torch.randn(6, 1)
    twice = keras([error], [torch.zeros(6, 1)])
    torch.testing.assert_close(twice, 2 * paper(error.square().mean().reshape(1)))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("mode", ["left", "diff", "none"])
@pytest.mark.parametrize("seed", SEEDS)
def test_nas_selection(seed: int, mode: str, mixed: bool) -> None:
    rng = np.random.default_rng(seed)
    sizes = [sorted(rng.choice(np.arange(1, 7), count, replace=False).tolist()) for count in rng.integers(1, 4, 3)]
    kind = layers.MixedNASLayer if mixed else layers.NASSelectionLayer
    choices = [[0, *each] for each in sizes] if mixed else sizes
    segments = [rng.normal(size=(4, sum(each) if mode == "none" else max(each))) for each in sizes]
    for soft in (None, 0.7):
        layer = kind(["a", "b", "c"], sizes, 0.7, mode, "none" if soft else ("discrete", "gumbel")[seed % 2]).eval()
        random_state(layer, rng)
        alphas = [alpha.detach().numpy() for alpha in layer.alpha]
        expected = slow.nas_selection(segments, alphas, choices, mode, soft)
        check(layer(*tensors(segments)), expected)
        check(layer.finalize()(*tensors(segments)), expected)
        best = [each[int(np.argmax(alpha))] for each, alpha in zip(choices, alphas, strict=True)]
        assert list(layer.selected_sizes().values()) == best


def test_random_masks_have_the_size_of_their_choice_and_travel_with_the_state() -> None:
    def make(seed: int) -> layers.NASSelectionLayer:
        return layers.NASSelectionLayer(
            ["a", "b"], [[2, 4, 6], [1, 5]], embedding_share_mode="random", seed=seed
        ).eval()

    layer, same, other = make(1), make(1), make(2)
    assert [mask.sum(1).tolist() for mask in layer.mask.buffers()] == [[2.0, 4.0, 6.0], [1.0, 5.0]]
    assert set(layer.state_dict()) == {"alpha.0", "alpha.1", "mask.0", "mask.1"}
    assert set(layers.NASSelectionLayer(["a"], [[2]]).state_dict()) == {"alpha.0"}
    nn.init.constant_(layer.alpha[0], 0.0)  # a tie: the first choice
    x = [torch.ones(1, 6), torch.ones(1, 5)]
    same.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), same(x))
    other.finalize().load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), other(x))
    assert not all(torch.equal(a, b) for a, b in zip(layer.mask.buffers(), make(3).mask.buffers(), strict=True))


@pytest.mark.parametrize("mode", ["discrete", "gumbel"])
def test_selection_draws_choices_by_their_probability(mode: str) -> None:
    layer = layers.NASSelectionLayer(["a"], [[1, 2]], embedding_share_mode="none", weight_grad_mode=mode)
    with torch.no_grad():
        layer.alpha[0].copy_(torch.tensor([0.0, 1.0]))
    torch.manual_seed(0)
    drawn = torch.cat([layer([torch.ones(1, 3)]).detach() for _ in range(2000)])
    first = drawn[:, 0] if mode == "discrete" else (drawn[:, 0] > 0.5).float()
    assert float(first.mean()) == pytest.approx(1 / (1 + np.e), abs=0.03)
    torch.testing.assert_close(drawn[:, 1], drawn[:, 2])


@pytest.mark.parametrize(("ste", "slope"), [("none", 0.235), ("clip", 1.0), ("softplus", 0.622)])
def test_gating(ste: str, slope: float) -> None:
    layer = layers.NASGatingLayer(["a", "b", "c"], [2, 1, 3], ste)
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor([0.5, -2.0, 0.0]))
    x = torch.randn(4, 6)
    torch.manual_seed(0)
    opened = torch.stack([layer.gates().detach() for _ in range(3000)])
    assert set(opened.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(opened.mean(0), torch.sigmoid(layer.alpha.detach()), rtol=0.0, atol=0.03)
    (gradient,) = torch.autograd.grad(layer.gates()[0], layer.alpha)
    assert float(gradient[0]) == pytest.approx(slope, abs=1e-3)
    (gradient,) = torch.autograd.grad(layer.gates()[1], layer.alpha)
    assert (float(gradient[1]) == 0.0) == (ste == "clip")
    expected = x * torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    assert torch.equal(layer.eval()(x), expected)
    assert torch.equal(layer.finalize()(x), expected)
    assert layer.selected_segments() == ["a", "c"]


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.3, 0.5, 0.9, 1.0, 2.0])
def test_simple_nas(threshold: float) -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 5):
        sizes = rng.integers(1, 4, count).tolist()
        layer = layers.SimpleNasLayer([str(i) for i in range(count)], sizes, threshold).eval()
        alpha = rng.normal(size=count).round()  # ties are likely
        layer.double().load_state_dict({"alpha": torch.from_numpy(alpha)})
        x = rng.normal(size=(3, sum(sizes)))
        gates = slow.simple_nas(alpha, threshold, 1.5)
        check(layer(torch.from_numpy(x)), x * np.repeat(gates, sizes))
        assert layer.selected_segments() == [str(i) for i in range(count) if gates[i]]


def test_simple_nas_stops_at_the_threshold_and_takes_equal_segments_in_their_order() -> None:
    layer = layers.SimpleNasLayer(["a", "b", "c", "d"], [1] * 4, 0.5).eval()
    assert layer.gates().tolist() == [1.0, 1.0, 0.0, 0.0]  # a quarter each, and a half is not below a half


def test_simple_nas_learns_by_the_gradient_of_its_probabilities() -> None:
    layer = layers.SimpleNasLayer(["a", "b"], [1, 1], 0.5, 2.0, use_gumbel=False).double()
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor([0.3, -0.2]))
    p = torch.softmax(layer.alpha / 2.0, 0)
    weights = torch.tensor([2.0, 5.0], dtype=torch.float64)
    found = torch.autograd.grad((layer.gates() * weights).sum(), layer.alpha)
    wanted = torch.autograd.grad((p * weights).sum(), layer.alpha)
    torch.testing.assert_close(found, wanted)
    layer.use_gumbel = True
    assert not all(torch.equal(layer.gates(), layer.gates()) for _ in range(50))


def test_training_forgets_a_finalized_choice() -> None:
    layer = layers.SimpleNasLayer(["a", "b"], [1, 1], 0.1).finalize()
    x = torch.ones(1, 2)
    assert layer(x).tolist() == [[1.0, 0.0]]
    layer.train()
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor([0.0, 1.0]))
    assert layer.eval()(x).tolist() == [[0.0, 1.0]]

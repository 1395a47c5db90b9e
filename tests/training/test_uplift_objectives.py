"""Losses of the uplift networks against NumPy, and what empty arms do to them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.uplift.dragonnet import clever_covariate
from models.uplift.ensemble import Ensemble
from models.uplift.learners import composed_outcomes
from tests.training.uplift_rows import random_rows, rows_of, small_network
from training.objectives.balance import imbalance, linear_mmd, sinkhorn
from training.objectives.catalog import OBJECTIVES
from training.objectives.ensemble import ensemble_plan
from training.objectives.factual import arm_weights, factual_loss, kernel_penalty, outcome_losses
from training.objectives.folds import row_folds
from training.objectives.meta_learners import doubly_robust_scores
from training.objectives.propensity import propensity_loss, squeezed
from training.objectives.targeted import targeted_loss
from training.objectives.tarnet import noise_likelihood
from training.uplift.plan import Plan

MINE = ("cfr", "dr_learner", "dragonnet", "s_learner", "t_learner", "tarnet", "x_learner")


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("reweight", [False, True])
def test_factual_loss_is_the_weighted_mean_over_each_arms_own_head(binary: bool, reweight: bool) -> None:
    rows = random_rows(20, binary=binary)
    outcome = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    mu, y, t, v = outcome.double().numpy(), rows.outcome.numpy(), rows.treatment.numpy(), rows.weight.double().numpy()
    total = 0.0
    for i in range(20):
        seen = mu[i, t[i]]
        loss = -(y[i] * np.log(sigmoid(seen)) + (1 - y[i]) * np.log(sigmoid(-seen))) if binary else (seen - y[i]) ** 2
        total += v[i] * loss * (v.sum() / (3 * v[t == t[i]].sum()) if reweight else 1.0)
    weights = arm_weights(rows, 3) if reweight else None
    found = factual_loss(outcome, rows, "binary" if binary else "continuous", weights)
    assert float(found) == pytest.approx(total / v.sum(), rel=1e-5)


def test_reweighted_loss_is_the_mean_of_the_arms_means() -> None:
    rows = random_rows(30)
    rows = replace(rows, weight=torch.ones(30))
    outcome = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    losses = outcome_losses(outcome.gather(1, rows.treatment[:, None])[:, 0], rows.outcome, "continuous")
    means = [float(losses[rows.treatment == arm].mean()) for arm in range(3)]
    assert float(factual_loss(outcome, rows, "continuous", arm_weights(rows, 3))) == pytest.approx(np.mean(means), 1e-5)


def test_a_weight_of_two_is_the_row_twice_and_of_zero_not_at_all() -> None:
    rows = random_rows(3)
    outcome = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    weighted = replace(rows, weight=torch.tensor([2.0, 1.0, 0.0]), outcome=torch.tensor([0.3, -1.0, 7.0]))
    index = torch.tensor([0, 0, 1])
    twice = replace(rows.take(index), weight=torch.ones(3), outcome=torch.tensor([0.3, 0.3, -1.0]))
    found = factual_loss(outcome, weighted, "continuous")
    assert float(found) == pytest.approx(float(factual_loss(outcome[index], twice, "continuous")), rel=1e-6)


@pytest.mark.parametrize("kind", ["continuous", "binary"])
def test_an_empty_arm_adds_nothing_and_gets_no_gradient(kind: Any) -> None:
    rows = random_rows(9, binary=True)
    alone = replace(rows, treatment=torch.full((9,), 1))
    outcome = torch.randn(9, 3, requires_grad=True)
    loss = factual_loss(outcome, alone, kind, arm_weights(alone, 3))
    loss.backward()
    assert torch.isfinite(loss)
    assert outcome.grad is not None
    assert float(outcome.grad[:, 0].abs().sum()) == float(outcome.grad[:, 2].abs().sum()) == 0.0
    assert float(outcome.grad[:, 1].abs().min()) > 0.0
    nobody = rows.take(torch.zeros(0, dtype=torch.int64))
    empty = torch.randn(0, 3, requires_grad=True)
    for nothing in (factual_loss(empty, nobody, kind), propensity_loss(empty, nobody)):
        assert float(nothing.detach()) == 0.0
        nothing.backward()


@pytest.mark.parametrize("name", MINE)
def test_no_loss_of_any_plan_breaks_on_an_empty_arm_or_a_single_row(name: str) -> None:
    for binary in (False, True):
        rows = random_rows(24, binary=binary)
        network = small_network(name, outcome="binary" if binary else "continuous")
        for stage in plan_of(name, network, rows).stages:
            losses: list[Callable[..., Tensor]] = [phase.loss for phase in stage.phases]
            for loss in (*losses, stage.validation):
                assert loss is not None
                for batch in (rows, *(rows.arm(arm) for arm in range(3)), rows.take(torch.tensor([3]))):
                    network.zero_grad()
                    value = loss(batch)
                    assert value.shape == ()
                    assert torch.isfinite(value)
                    if value.requires_grad:
                        value.backward()
                        for key, parameter in network.named_parameters():
                            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), key


def plan_of(name: str, network: Any, rows: Any, **settings: Any) -> Plan:
    entry = OBJECTIVES[name]
    return entry.plan(network, entry.settings(**settings), rows)


def test_a_head_without_rows_in_the_batch_gets_no_gradient() -> None:
    rows = random_rows(12)
    network = small_network("tarnet")
    phase = plan_of("tarnet", network, rows, head_l2=0.0).stages[0].phases[0]
    phase.loss(rows.arm(2)).backward()
    norms = [sum(float(p.grad.abs().sum()) for p in head.parameters()) for head in network.heads.heads]
    assert norms[0] == norms[1] == 0.0
    assert norms[2] > 0.0


def test_propensity_loss_is_the_cross_entropy_and_its_squeeze_keeps_it_finite() -> None:
    rows = random_rows(10)
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(2)) * 2
    g = np.exp(logits.double().numpy())
    g /= g.sum(1, keepdims=True)
    t, v = rows.treatment.numpy(), rows.weight.double().numpy()
    for c in (0.0, 0.001):
        expected = -(v * np.log(((g + c) / (1 + 3 * c))[np.arange(10), t])).sum() / v.sum()
        assert float(propensity_loss(logits, rows, c)) == pytest.approx(expected, rel=1e-5)
    assert float(squeezed(torch.softmax(logits, -1), 0.01).sum(-1).sub(1).abs().max()) < 1e-6
    certain = rows_of(torch.zeros(1, 1), torch.tensor([1]), torch.zeros(1))
    surely = torch.tensor([[200.0, -200.0, -200.0]])
    assert float(propensity_loss(surely, certain, 0.001)) == pytest.approx(np.log(1.003 / 0.001), rel=1e-5)


def test_two_arms_squeeze_as_the_authors_of_dragonnet_do() -> None:
    g = torch.tensor([0.0, 0.3, 1.0])
    both = squeezed(torch.stack([1 - g, g], 1), 0.001)
    torch.testing.assert_close(both[:, 1], (g + 0.001) / 1.002)


def test_clever_covariate_of_two_arms_and_of_three() -> None:
    logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(3))
    g = (torch.softmax(logits, -1)[:, 1] + 0.01) / 1.02
    torch.testing.assert_close(clever_covariate(logits), torch.stack([-1 / (1 - g), 1 / g], 1))
    three = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(clever_covariate(three), 1.03 / (torch.softmax(three, -1) + 0.01))
    assert torch.isfinite(clever_covariate(torch.tensor([[500.0, -500.0]]))).all()


def test_linear_mmd_and_its_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 4, generator=generator), torch.randn(7, 4, generator=generator) + 1
    difference = b.double().numpy().mean(0) - a.double().numpy().mean(0)
    assert float(linear_mmd(a, b)) == pytest.approx((difference**2).sum(), rel=1e-5)
    assert float(linear_mmd(a, a)) == 0.0


def test_sinkhorn_against_numpy_and_against_the_exact_plan() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 3, generator=generator), torch.randn(6, 3, generator=generator) + 1
    x, y = a.double().numpy(), b.double().numpy()
    distance = ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)
    kernel = np.exp(-10.0 * distance / distance.mean())
    v = np.ones(6)
    for _ in range(10):
        u = (1 / 4) / (kernel @ v)
        v = (1 / 6) / (kernel.T @ u)
    expected = (u[:, None] * kernel * v[None, :] * distance).sum()
    assert float(sinkhorn(a, b)) == pytest.approx(expected, rel=1e-4)
    # One to one, sorted points on a line: the cheapest plan is known.
    line = torch.tensor([[0.0], [1.0], [2.0]])
    assert float(sinkhorn(line, line + 3.0, iterations=500, sharpness=200.0)) == pytest.approx(9.0, rel=1e-3)
    far = torch.tensor([[0.0], [1e3]])
    assert torch.isfinite(sinkhorn(far, far + 1.0))
    assert float(sinkhorn(torch.ones(2, 3), torch.ones(3, 3))) == 0.0


@pytest.mark.parametrize("balance", ["mmd", "sinkhorn"])
def test_imbalance_is_the_mean_over_pairs_and_leaves_empty_pairs_out(balance: Any) -> None:
    phi = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    treatment = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    distance = linear_mmd if balance == "mmd" else sinkhorn
    expected = (distance(phi[:3], phi[3:6]) + distance(phi[:3], phi[6:])) / 2
    torch.testing.assert_close(imbalance(phi, treatment, 3, balance), expected)
    nobody = imbalance(phi, torch.ones(9, dtype=torch.int64), 3, balance)
    assert float(nobody) == 0.0
    imbalance(phi, treatment, 3, balance).backward()
    assert phi.grad is not None
    assert torch.isfinite(phi.grad).all()


def test_moving_one_arm_towards_the_other_lowers_the_penalty() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(20, 3, generator=generator), torch.randn(20, 3, generator=generator) + 2
    for distance in (linear_mmd, sinkhorn):
        far = b.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(distance(a, far), far)
        assert float(distance(a, b - 0.5 * len(b) * gradient / 2)) < float(distance(a, b))


def test_noise_likelihood_is_least_where_the_variance_is_the_loss() -> None:
    loss = torch.tensor(0.3)
    values = {s: float(noise_likelihood(loss, torch.tensor(s).log())) for s in (0.1, 0.25, 0.3, 0.35, 1.0)}
    assert min(values, key=values.__getitem__) == 0.3
    assert values[1.0] == pytest.approx(0.3)
    with pytest.raises(ValueError, match="noise must be fixed for a binary outcome"):
        plan_of("tarnet", small_network("tarnet", outcome="binary"), random_rows(9, binary=True), noise="learned")


def test_doubly_robust_scores_by_hand() -> None:
    rows = rows_of(torch.zeros(3, 1), torch.tensor([0, 2, 1]), torch.tensor([1.0, 3.0, 5.0]))
    mu = torch.tensor([[0.5, 9.0, 1.5], [1.0, 9.0, 2.0], [1.0, 9.0, 2.0]])
    g = torch.tensor([[0.5, 0.25, 0.25], [0.9, 0.099, 0.001], [0.3, 0.3, 0.4]])
    expected = [1.5 - 0.5 - (1.0 - 0.5) / 0.5, 2.0 - 1.0 + (3.0 - 2.0) / 0.01, 2.0 - 1.0]
    assert doubly_robust_scores(mu, g, rows, 2, (0.01, 0.99)).tolist() == pytest.approx(expected)


def test_composed_outcomes_differ_by_the_effects() -> None:
    control = torch.tensor([[-0.3], [-6.0]])
    effects = torch.tensor([[0.2, -0.1], [0.01, 0.0]])
    plain = composed_outcomes(control, effects, False)
    torch.testing.assert_close(plain[:, 1:] - plain[:, :1], effects, rtol=0, atol=1e-6)
    chances = torch.sigmoid(composed_outcomes(control, effects, True))
    torch.testing.assert_close(chances[:, 1:] - chances[:, :1], effects, rtol=0, atol=1e-6)
    beyond = composed_outcomes(torch.zeros(1, 1), torch.tensor([[5.0, -5.0]]), True)
    assert torch.sigmoid(beyond)[0].tolist() == pytest.approx([0.5, 1.0, 0.0], abs=2e-4)


def test_folds_are_the_rows_own_whatever_the_batch_and_its_padding() -> None:
    rows = random_rows(600, columns=2)
    folds = row_folds(rows, 3)
    assert torch.bincount(folds, minlength=3).min() > 150
    index = torch.randperm(600, generator=torch.Generator().manual_seed(0))[:50]
    other = replace(rows, outcome=rows.outcome + 1, treatment=(rows.treatment + 1) % 3).take(index)
    assert torch.equal(row_folds(other, 3), folds[index])
    ids = torch.randint(1, 9, (600, 4, 1), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(600, 4, 1, dtype=torch.bool)
    history = replace(rows, inputs=(*rows.inputs[:2], ids, torch.zeros(600, 4, 0), mask))
    longer = torch.cat([ids, torch.ones_like(ids)], 1)
    padded = replace(
        rows,
        inputs=(*rows.inputs[:2], longer, torch.zeros(600, 8, 0), torch.cat([mask, torch.zeros_like(mask)], 1)),
    )
    assert torch.equal(row_folds(history, 3), row_folds(padded, 3))
    assert not torch.equal(row_folds(history, 3), folds)


def test_folds_that_hold_a_whole_arm_are_refused() -> None:
    equal = rows_of(torch.zeros(9, 3), torch.arange(9) % 3, torch.zeros(9))
    with pytest.raises(ValueError, match="folds must leave rows of every treatment to learn from"):
        plan_of("dr_learner", small_network("dr_learner"), equal)
    assert plan_of("dr_learner", small_network("dr_learner", folds=1), equal).stages


def test_a_folds_networks_learn_from_no_row_that_they_score() -> None:
    rows = random_rows(40)
    network = small_network("dr_learner")
    stages = {stage.name: stage for stage in plan_of("dr_learner", network, rows, l2=0.0).stages}
    own = rows.take(row_folds(rows, 2) == 1)
    for stage in ("fold 2: outcome of control", "fold 2: propensity"):
        network.zero_grad()
        (phase,) = stages[stage].phases
        phase.loss(own).backward()
        assert all(p.grad is None or not p.grad.any() for p in network.parameters())
        phase.loss(rows).backward()
        assert any(p.grad is not None and p.grad.any() for p in phase.parameters)


@pytest.mark.parametrize("name", ["x_learner", "dr_learner"])
def test_the_effects_kernels_absolute_values_are_penalised(name: str) -> None:
    rows = random_rows(40, arms=2)
    network = small_network(name, arms=2)
    modules = network.effects if name == "dr_learner" else network.of_treated
    kernels = [p.detach() for key, p in modules[0].named_parameters() if key.endswith("kernel")]
    losses = []
    for l1 in (0.0, 0.5):
        plan = plan_of(name, network, rows, effects={"l1": l1, "l2": 0.0})
        stage = next(stage for stage in plan.stages if stage.name.startswith("effect of"))
        losses.append(float(stage.phases[0].loss(rows).detach()))
    expected = 0.5 * sum(float(kernel.abs().sum()) for kernel in kernels)
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["s_learner", "t_learner", "x_learner", "dr_learner"])
def test_the_last_weights_are_kept_where_the_settings_say_so(name: str) -> None:
    rows, network = random_rows(40), small_network(name)
    best = plan_of(name, network, rows).stages
    last = plan_of(name, network, rows, keep="last", patience=0).stages
    assert all(stage.validation is not None for stage in best)
    assert [stage.name for stage in last if stage.validation is None] == [
        stage.name for stage in last if "outcome" in stage.name
    ]
    with pytest.raises(ValidationError, match="keep 'last' looks at no validation loss"):
        OBJECTIVES[name].settings(keep="last")


@pytest.mark.parametrize("name", MINE)
def test_every_parameter_is_trained_by_some_stage(name: str) -> None:
    rows = random_rows(60)
    network = small_network(name)
    seen = {id(p) for stage in plan_of(name, network, rows).stages for ph in stage.phases for p in ph.parameters}
    assert [key for key, parameter in network.named_parameters() if id(parameter) not in seen] == []


@pytest.mark.parametrize("name", MINE)
def test_an_unknown_setting_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="learning_rates"):
        OBJECTIVES[name].settings(learning_rates=1)


def test_kernel_penalty_leaves_biases_out() -> None:
    network = small_network("tarnet")
    kernels = [p.detach() for key, p in network.heads.named_parameters() if key.endswith("kernel")]
    expected = sum(float(kernel.square().sum()) for kernel in kernels)
    assert float(kernel_penalty(network.heads).detach()) == pytest.approx(expected, rel=1e-6)


def test_targeted_loss_of_a_binary_outcome_moves_logits() -> None:
    rows = random_rows(8, arms=2, binary=True)
    mu = torch.randn(8, 2, generator=torch.Generator().manual_seed(5))
    h = clever_covariate(torch.zeros(8, 2))
    expected = factual_loss(mu + 0.1 * h, rows, "binary")
    torch.testing.assert_close(targeted_loss(mu + 0.1 * h, rows, "binary"), expected)


def test_an_ensembles_plan_has_every_members_stages_over_its_own_weights() -> None:
    rows = random_rows(12)
    members = [small_network("tarnet") for _ in range(2)]
    ensemble = Ensemble(members)
    entry = OBJECTIVES["tarnet"]
    stages = ensemble_plan(ensemble, entry.plan, entry.settings(), rows).stages
    assert [stage.name for stage in stages] == [
        f"member {number}: {name}" for number in (1, 2) for name in ("outcome", "propensity")
    ]
    mine = {id(parameter) for parameter in members[1].parameters()}
    assert all(id(p) in mine for stage in stages[2:] for phase in stage.phases for p in phase.parameters)
    with pytest.raises(ValueError, match="all of one configuration"):
        Ensemble([members[0], small_network("tarnet", propensity="none")])
    with pytest.raises(ValueError, match="all of one configuration; got 0"):
        Ensemble([])

"""Plans carried out on simulated rows whose effects are known in closed form."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.uplift.dragonnet import DragonNet, clever_covariate
from tests.training.uplift_rows import random_rows, rows_of, small_network
from training.objectives.catalog import OBJECTIVES
from training.objectives.targeted import targeted_loss
from training.uplift.fit import fit_plan
from training.uplift.rows import UpliftRows

LEARNERS = ("tarnet", "cfr", "dragonnet", "s_learner", "t_learner", "x_learner", "dr_learner")
ROWS = 2000


def settings_of(name: str, **more: Any) -> Any:
    """Short stages that a test can wait for."""
    short: dict[str, Any] = {"epochs": 25, "patience": 8, "learning_rate": 0.01, "batch_size": 128, **more}
    if name == "dragonnet":
        short["fine_tuning"] = {"enabled": False}
    else:
        short["propensity"] = {"epochs": 15, "learning_rate": 0.01}
    if name in ("x_learner", "dr_learner"):
        short["effects"] = {"epochs": 15, "patience": 5, "learning_rate": 0.01, "l2": 1e-3}
    if name == "cfr":
        short.setdefault("alpha", 0.01)
    return OBJECTIVES[name].settings(**short)


def fitted(name: str, rows: UpliftRows, *, seed: int = 0, settings: Any = None, **options: Any) -> Any:
    columns = rows.inputs[1].size(1)
    network = small_network(name, columns, arms=2, **options)
    valid = torch.arange(len(rows)) % 5 == 0
    train = rows.take(~valid)
    plan = OBJECTIVES[name].plan(network, settings or settings_of(name), train)
    fit_plan(network, plan, train, rows.take(valid), seed=seed)
    return network


def effects(network: Any, rows: UpliftRows) -> Any:
    with torch.no_grad():
        outcome, _ = network.eval()(*rows.inputs)
    return (outcome[:, 1] - outcome[:, 0]).double().numpy()


def simulated(
    effect: Callable[[Tensor], Tensor], confounding: float, *, seed: int = 1, noise: float = 0.5, columns: int = 3
) -> tuple[UpliftRows, Any]:
    """y = x_0 + t effect(x) + noise with P(t = 1) = sigmoid(confounding x_0)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, columns, generator=generator)
    treatment = (torch.rand(ROWS, generator=generator) < torch.sigmoid(confounding * x[:, 0])).long()
    truth = effect(x)
    outcome = x[:, 0] + treatment * truth + noise * torch.randn(ROWS, generator=generator)
    return rows_of(x, treatment, outcome), truth.double().numpy()


def test_cfr_with_alpha_zero_is_tarnet_bit_by_bit() -> None:
    rows, _ = simulated(lambda x: x[:, 1], 1.0)
    rows = rows.take(torch.arange(200))
    plain = fitted("tarnet", rows, settings=settings_of("tarnet", epochs=4))
    without = fitted("cfr", rows, settings=settings_of("cfr", epochs=4, alpha=0.0))
    penalised = fitted("cfr", rows, settings=settings_of("cfr", epochs=4, alpha=1.0))
    state, other, third = (network.state_dict() for network in (plain, without, penalised))
    assert all(torch.equal(state[key], other[key]) for key in state)
    assert any(not torch.equal(state[key], third[key]) for key in state)


def test_the_propensity_stage_moves_no_outcome() -> None:
    rows = random_rows(60, arms=2)
    network = small_network("tarnet", arms=2)
    plan = OBJECTIVES["tarnet"].plan(network, settings_of("tarnet"), rows)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fit_plan(network, type(plan)(plan.stages[1:]), rows, rows, seed=0)
    moved = {key for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith("propensity.") for key in moved)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("arms", [2, 3])
def test_targeting_solves_the_estimating_equation_at_its_optimum(binary: bool, arms: int) -> None:
    rows = random_rows(80, arms=arms, binary=binary)
    kind = "binary" if binary else "continuous"
    network: DragonNet = small_network("dragonnet", arms=arms, outcome=kind)
    optimiser = torch.optim.LBFGS([network.epsilon], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = targeted_loss(network.training_outputs(*rows.inputs).targeted, rows, kind)
        loss.backward()
        return loss

    optimiser.step(closure)
    found = network.training_outputs(*rows.inputs)
    received = rows.treatment[:, None]
    h = clever_covariate(found.propensity_logits).gather(1, received)[:, 0].detach().double()
    predicted = found.targeted.gather(1, received)[:, 0].detach().double()
    residual = h * (rows.outcome - (torch.sigmoid(predicted) if binary else predicted)) * rows.weight
    groups = [rows.treatment >= 0] if arms == 2 else [rows.treatment == arm for arm in range(3)]
    plug_in = found.outcome.gather(1, received)[:, 0].detach().double()
    before = h * (rows.outcome - (torch.sigmoid(plug_in) if binary else plug_in)) * rows.weight
    for group in groups:
        scale = float(before[group].abs().sum())
        assert abs(float(residual[group].sum())) < 1e-3 * scale
        assert abs(float(before[group].sum())) > 1e-2 * scale
    assert float(network.epsilon.detach().abs().min()) > 1e-4


def test_targeted_answers_add_epsilon_times_the_covariate() -> None:
    network = small_network("dragonnet", arms=2, effects="targeted")
    with torch.no_grad():
        network.epsilon.fill_(0.3)
        rows = random_rows(5, arms=2)
        found = network.training_outputs(*rows.inputs)
        outcome, logits = network(*rows.inputs)
    torch.testing.assert_close(outcome - found.outcome, 0.3 * clever_covariate(logits))


@pytest.mark.parametrize("name", LEARNERS)
def test_a_constant_effect_is_found(name: str) -> None:
    rows, truth = simulated(lambda x: torch.full((len(x),), 1.5), 0.0)
    found = effects(fitted(name, rows), rows)
    assert abs(found.mean() - 1.5) < 0.1
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.35


@pytest.mark.parametrize("name", LEARNERS)
def test_a_confounded_effect_is_found_where_the_difference_in_means_is_wrong(name: str) -> None:
    rows, _ = simulated(lambda x: torch.ones(len(x)), 1.0)
    t, y = rows.treatment.numpy(), rows.outcome.double().numpy()
    # E[x | t = 1] - E[x | t = 0] of a standard normal with a logistic treatment is 0.83.
    assert y[t == 1].mean() - y[t == 0].mean() - 1.0 == pytest.approx(0.83, abs=0.1)
    assert abs(effects(fitted(name, rows), rows).mean() - 1.0) < 0.1


@pytest.mark.parametrize("name", LEARNERS)
def test_no_effect_is_found_in_noise(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    treatment = torch.arange(ROWS) % 2
    outcome = torch.randn(ROWS, generator=generator)
    rows = rows_of(torch.randn(ROWS, 3, generator=generator), treatment, outcome)
    standard_error = 2.0 / ROWS**0.5
    assert abs(effects(fitted(name, rows), rows).mean()) < 2 * standard_error


@pytest.mark.parametrize("name", LEARNERS)
def test_treating_by_the_sign_of_the_effect_beats_treating_everyone(name: str) -> None:
    rows, truth = simulated(lambda x: 2.0 * x[:, 1], 0.5)
    found = effects(fitted(name, rows), rows)
    # The best policy is worth E[max(2 x, 0)] = 0.798, treating everyone 0.
    assert float((truth * (found > 0)).mean()) > 0.7
    assert float(np.corrcoef(found, truth)[0, 1]) > 0.9


@pytest.mark.parametrize("name", ["tarnet", "s_learner", "t_learner", "x_learner", "dr_learner", "dragonnet"])
def test_a_binary_outcomes_effect_is_a_difference_of_probabilities(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(ROWS, 2, generator=generator)
    treatment = (torch.rand(ROWS, generator=generator) < torch.sigmoid(x[:, 0])).long()
    chance = 0.2 + 0.2 * (x[:, 0] > 0) + 0.4 * treatment * (x[:, 1] > 0)
    rows = rows_of(x, treatment, torch.rand(ROWS, generator=generator) < chance)
    network = fitted(name, rows, outcome="binary")
    with torch.no_grad():
        chances = torch.sigmoid(network(*rows.inputs)[0].double()).numpy()
    found, high = chances[:, 1] - chances[:, 0], (x[:, 1] > 0).numpy()
    assert abs(found[high].mean() - 0.4) < 0.1
    assert abs(found[~high].mean()) < 0.1


def test_dragonnet_is_not_much_worse_than_tarnet_where_the_propensity_depends_on_an_instrument() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(ROWS, 3, generator=generator)
    treatment = (torch.rand(ROWS, generator=generator) < torch.sigmoid(2.0 * x[:, 2])).long()
    truth = 1.0 + x[:, 1]
    outcome = x[:, 0] + treatment * truth + 0.5 * torch.randn(ROWS, generator=generator)
    rows = rows_of(x, treatment, outcome)
    errors = {
        name: float(np.sqrt(np.mean((effects(fitted(name, rows), rows) - truth.double().numpy()) ** 2)))
        for name in ("tarnet", "dragonnet")
    }
    assert errors["dragonnet"] < 1.2 * errors["tarnet"]
    assert errors["tarnet"] < 0.3


@pytest.mark.parametrize("name", LEARNERS)
def test_same_seed_same_weights(name: str) -> None:
    rows = random_rows(60, arms=2)
    first, second, other = (
        fitted(name, rows, seed=seed, settings=settings_of(name, epochs=2, batch_size=16)).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_fitted_intercepts_leave_no_arm_a_mean_residual() -> None:
    rows, _ = simulated(lambda x: x[:, 1], 1.0)
    train = rows.take(torch.arange(len(rows)) % 5 != 0)
    left = {}
    for intercepts in (False, True):
        network = fitted("tarnet", rows, settings=settings_of("tarnet", epochs=3, intercepts=intercepts))
        with torch.no_grad():
            residual = train.outcome - network(*train.inputs)[0].gather(1, train.treatment[:, None])[:, 0]
        left[intercepts] = max(abs(float(residual[train.treatment == arm].mean())) for arm in (0, 1))
    assert left[True] < 1e-4
    assert left[False] > 1e-3


def test_learned_noise_shrinks_a_penalty_that_would_hide_an_effect() -> None:
    rows, truth = simulated(lambda x: x[:, 1], 0.0, noise=0.05)
    errors = {}
    for noise in ("fixed", "learned"):
        chosen = settings_of("tarnet", noise=noise, head_l2=0.03, representation_l2=0.03)
        errors[noise] = np.sqrt(np.mean((effects(fitted("tarnet", rows, settings=chosen), rows) - truth) ** 2))
    assert errors["learned"] < 0.7 * errors["fixed"]

"""Splines, densities, strata and heads against slow NumPy forms; what is continuous and what jumps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from models.uplift.dose_density import DoseDensity
from models.uplift.dose_strata import DoseStrata
from models.uplift.drnet import DRNet
from models.uplift.varying_coefficients import BSplineBasis, TruncatedPowerBasis
from models.uplift.vcnet import VCNet
from tests.models.uplift_dose_examples import CASES, dose_inputs, network

Float = NDArray[np.float64]


def array(tensor: torch.Tensor) -> Float:
    return np.asarray(tensor.detach().double().numpy())


def truncated_powers(s: float, degree: int, knots: tuple[float, ...]) -> Float:
    return np.array([s**power for power in range(degree + 1)] + [max(s - knot, 0.0) ** degree for knot in knots])


def b_splines(s: float, degree: int, knots: tuple[float, ...]) -> Float:
    """The textbook recursion, one function at a time."""
    places = [0.0] * (degree + 1) + list(knots) + [1.0] * (degree + 1)

    def value(i: int, order: int) -> float:
        if order == 0:
            last = places[i] < places[i + 1] == 1.0
            return float(places[i] <= s < places[i + 1] or (last and s == 1.0))
        total = 0.0
        if places[i + order] > places[i]:
            total += (s - places[i]) / (places[i + order] - places[i]) * value(i, order - 1)
        if places[i + order + 1] > places[i + 1]:
            gap = places[i + order + 1] - places[i + 1]
            total += (places[i + order + 1] - s) / gap * value(i + 1, order - 1)
        return total

    return np.array([value(i, degree) for i in range(degree + 1 + len(knots))])


SPLINES = [(1, (0.5,)), (2, (1 / 3, 2 / 3)), (3, (0.1, 0.4, 0.9)), (2, ())]
DOSES = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]


def test_truncated_powers_worked_by_hand() -> None:
    basis = TruncatedPowerBasis(2, (0.25, 0.5))
    expected = [[1, 0, 0, 0, 0], [1, 0.5, 0.25, 0.0625, 0], [1, 1, 1, 0.5625, 0.25]]
    assert basis(torch.tensor([0.0, 0.5, 1.0])).tolist() == expected


@pytest.mark.parametrize(("degree", "knots"), SPLINES)
def test_bases_equal_their_definitions(degree: int, knots: tuple[float, ...]) -> None:
    s = torch.tensor(DOSES)
    for basis, definition in ((TruncatedPowerBasis, truncated_powers), (BSplineBasis, b_splines)):
        expected = np.stack([definition(dose, degree, knots) for dose in DOSES])
        np.testing.assert_allclose(array(basis(degree, knots)(s)), expected, atol=1e-6)


@pytest.mark.parametrize(("degree", "knots"), SPLINES)
def test_both_bases_span_the_same_splines(degree: int, knots: tuple[float, ...]) -> None:
    s = torch.linspace(0.0, 1.0, 401)
    powers, local = array(TruncatedPowerBasis(degree, knots)(s)), array(BSplineBasis(degree, knots)(s))
    for one, other in ((powers, local), (local, powers)):
        assert np.abs(one - other @ np.linalg.lstsq(other, one, rcond=None)[0]).max() < 1e-4
    np.testing.assert_allclose(local.sum(1), 1.0, atol=1e-6)
    assert local.min() >= 0
    assert powers[0].tolist() == local[0].tolist() == [1.0] + [0.0] * (degree + len(knots))


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_the_density_integrates_to_one_for_every_user(bins: int) -> None:
    torch.manual_seed(0)
    density = DoseDensity(3, 2, bins)
    nn.init.normal_(density.logits.kernel, 0.0, 2.0)
    grid = torch.linspace(0.0, 1.0, 40 * bins + 1)
    values = array(density.along(density(torch.randn(6, 3)), grid))
    np.testing.assert_allclose(np.trapezoid(values, array(grid), axis=-1), 1.0, atol=1e-5)
    assert values.min() >= 0
    assert values.std(axis=-1).min() > 0.01


def test_the_density_is_the_interpolated_softmax_over_its_integral() -> None:
    torch.manual_seed(1)
    density = DoseDensity(3, 2, 4)
    nn.init.normal_(density.logits.bias)
    x, s = torch.randn(5, 3), torch.rand(5, 2)
    s[0] = torch.tensor([0.0, 1.0])
    s[1] = torch.tensor([0.25, 0.75])
    logits = array(density.logits(x)).reshape(5, 2, 5)
    heights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    corners = np.linspace(0.0, 1.0, 5)
    found = array(density.at(density(x), s))
    for user in range(5):
        for arm in range(2):
            p = heights[user, arm]
            expected = np.interp(float(s[user, arm]), corners, p) / np.trapezoid(p, corners)
            assert found[user, arm] == pytest.approx(expected, abs=1e-6)


def test_doses_belong_to_the_upper_stratum_on_an_edge_and_one_to_the_last() -> None:
    strata = DoseStrata(5)
    doses = torch.tensor([0.0, 0.1999, 0.2, 0.4, 0.5999, 0.6, 0.8, 0.99, 1.0])
    assert strata(doses).tolist() == [0, 0, 1, 2, 2, 3, 4, 4, 4]
    assert DoseStrata(1)(doses).tolist() == [0] * 9


def dense(x: Float, layer: Any) -> Float:
    return np.asarray(x @ array(layer.kernel) + array(layer.bias))


def elu(x: Float) -> Float:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def test_vcnet_equals_a_loop_over_users_arms_and_doses() -> None:
    config, model = network("vcnet")
    assert isinstance(model, VCNet)
    inputs = dose_inputs(config, 4, 6)
    outcome, logits, curve, density = (array(part) for part in model(*inputs))
    trunk = array(model.encoder(*inputs[:5]))
    for layer in model.trunk.dense:
        trunk = np.maximum(dense(trunk, layer), 0)

    def answer(user: int, arm: int, s: float) -> float:
        s = s if config.treatments[arm] in config.dosed else 0.0
        phi = b_splines(s, config.degree, config.knots)
        x = trunk[user]
        for i, layer in enumerate(model.head.layers):
            theta = np.einsum("iol,l->io", array(layer.kernel)[arm], phi)
            shift = np.concatenate([phi, phi * s]) @ array(layer.shift)[arm]
            x = (np.maximum(x, 0) if i else x) @ theta + shift
        return float(x[0])

    for user in range(4):
        for arm in range(3):
            assert outcome[user, arm] == pytest.approx(answer(user, arm, float(inputs[5][user, arm])), abs=1e-5)
            expected = [answer(user, arm, float(s)) for s in inputs[6]]
            np.testing.assert_allclose(curve[user, arm], expected, atol=1e-5)
    np.testing.assert_allclose(logits, dense(trunk, model.propensity.output), atol=1e-5)
    assert (density[:, :2] == 1).all()
    assert np.abs(density[:, 2] - 1).max() > 0.01


def test_drnet_equals_a_loop_over_users_arms_and_doses() -> None:
    config, model = network("drnet")
    assert isinstance(model, DRNet)
    inputs = dose_inputs(config, 4, 7)
    outcome, _, curve = (array(part) for part in model(*inputs))
    base = array(model.encoder(*inputs[:5]))
    for layer in model.base.layers.dense:
        base = elu(dense(base, layer))

    def answer(user: int, arm: int, s: float) -> float:
        s = s if config.treatments[arm] in config.dosed else 0.0
        stratum = min(int(np.floor(s * config.strata)), config.strata - 1)
        x = base[user]
        for layer in model.treatment[arm].dense:
            x = elu(dense(x, layer))
        for i, head in enumerate(model.heads):
            kernel, bias = array(head.kernel)[arm, stratum], array(head.bias)[arm, stratum]
            x = (elu(x) if i else x) @ kernel + (2 * s - 1) * array(head.dose)[arm, stratum] + bias
        return float(x[0])

    for user in range(4):
        for arm in range(3):
            assert outcome[user, arm] == pytest.approx(answer(user, arm, float(inputs[5][user, arm])), abs=1e-5)
            expected = [answer(user, arm, float(s)) for s in inputs[6]]
            np.testing.assert_allclose(curve[user, arm], expected, atol=1e-5)


def jumps(model: nn.Module, config: Any, places: tuple[float, ...]) -> tuple[float, float]:
    """Largest step of the average curve across the places, 1e-4 to either side, and the range of the curve."""
    inputs = dose_inputs(config, 50, 101, seed=5)
    sides = torch.tensor([[place - 1e-4, place + 1e-4] for place in places]).flatten()
    with torch.no_grad():
        curve = model(*inputs)[2][:, -1].mean(0)
        around = model(*inputs[:6], sides)[2][:, -1].mean(0).reshape(-1, 2)
    return float((around[:, 1] - around[:, 0]).abs().max()), float(curve.max() - curve.min())


@pytest.mark.parametrize("name", ["vcnet", "vcnet-binary-truncated", "vcnet-deep-cubic"])
def test_the_average_curve_of_vcnet_is_continuous_at_knots_and_strata(name: str) -> None:
    config, model = network(name)
    step, span = jumps(model, config, (*config.knots, 0.2, 0.4, 0.6, 0.8))
    assert step < 1e-2 * span


def test_the_average_curve_of_drnet_jumps_at_its_edges() -> None:
    config, model = network("drnet")
    step, span = jumps(model, config, (1 / 3, 2 / 3))
    assert step > 1e-2 * span


@pytest.mark.parametrize("name", ["drnet", "drnet-referenced"])
def test_jump_sizes_are_the_steps_of_the_curves(name: str) -> None:
    config, model = network(name)
    assert isinstance(model, DRNet)
    inputs = dose_inputs(config, 9, 2)
    sizes = model.jump_sizes(inputs[:5])
    assert sizes.shape == (len(config.treatments), config.strata - 1)
    assert sizes[0].abs().max() == 0
    for number in range(1, config.strata):
        edge = number / config.strata
        sides = model(*inputs[:6], torch.tensor([edge - 1e-5, edge + 1e-5]))[2][:, -1]
        step = (sides[:, 1] - sides[:, 0]).abs().mean()
        torch.testing.assert_close(sizes[-1, number - 1], step, rtol=0, atol=1e-3)


def test_strata_without_rows_are_answered_by_the_nearest_with_rows() -> None:
    build, config = CASES["drnet"]
    model = build(replace(config, strata=5))
    model.answer_from(torch.tensor([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 4, 0, 0, 2]]))
    assert model.answering.tolist() == [[0, 0, 0, 0, 0], [0, 1, 2, 3, 4], [1, 1, 1, 4, 4]]
    inputs = dose_inputs(config, 5, 6)
    before = model(*inputs)[2]
    with torch.no_grad():
        for head in model.heads:
            for part in (head.kernel, head.bias, head.dose):
                part[2, [0, 2, 3]] = torch.nan
    assert torch.equal(model(*inputs)[2][:, 2], before[:, 2])


def test_the_targeted_average_curve_adds_epsilon_over_the_joint_density() -> None:
    config, model = network("vcnet-binary-truncated")
    assert isinstance(model, VCNet)
    inputs = dose_inputs(config, 6, 5)
    _, logits, curve, density = (array(part) for part in model(*inputs))
    g = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    average = array(model.average_curve(inputs[:5], inputs[6], floor=0.05))
    for arm in range(3):
        for point, dose in enumerate(array(inputs[6])):
            s = float(dose) if config.treatments[arm] in config.dosed else 0.0
            phi = truncated_powers(s, config.targeting_degree, config.targeting_knots)
            epsilon = float(array(model.targeting.weight)[arm] @ phi)
            joint = np.maximum(density[:, arm, point] * g[:, arm], 0.05)
            expected = (1 / (1 + np.exp(-curve[:, arm, point])) + epsilon / joint).mean()
            assert average[arm, point] == pytest.approx(expected, abs=1e-4)


def test_the_trunk_runs_once_a_user_whatever_the_grid() -> None:
    config, model = network("vcnet")
    seen: list[tuple[int, ...]] = []
    model.trunk.register_forward_hook(lambda _module, given, _made: seen.append(tuple(given[0].shape)))
    model(*dose_inputs(config, 3, 201))
    assert len(seen) == 1
    assert seen[0][0] == 3

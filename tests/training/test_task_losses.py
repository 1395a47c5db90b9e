"""Losses of several tasks against their formulas: the entire space in log space, and how losses become one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from training.objectives.click import weighted_bce
from training.objectives.entire_space import entire_space_losses, log_both
from training.objectives.weighting import EqualGradients, FixedWeighting, LearnedUncertainty, shared_parameters

CLICK, CONVERSION = 0, 1


def oracle(logits: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64]) -> list[float]:
    """Both losses from probabilities, as the paper writes them; float64 and moderate logits only."""
    p = 1 / (1 + np.exp(-logits))
    click, both = p[:, CLICK], p[:, CLICK] * p[:, CONVERSION]
    found = []
    for chance, column in ((click, CLICK), (both, CONVERSION)):
        y, w = labels[:, column], weights[:, column]
        found.append(float((-w * (y * np.log(chance) + (1 - y) * np.log(1 - chance))).sum() / w.sum()))
    return found


def some_rows(rows: int = 40) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(0)
    click = (random.random(rows) < 0.5).astype(float)
    both = click * (random.random(rows) < 0.5)
    return random.normal(0, 2, (rows, 2)), np.stack([click, both], 1), random.uniform(0.2, 3, (rows, 2))


def test_the_entire_space_loss_equals_its_formula() -> None:
    logits, labels, weights = some_rows()
    tensors = [torch.from_numpy(x) for x in (logits, labels, weights)]
    found = entire_space_losses(tensors[0], tensors[1], tensors[2], CLICK, CONVERSION)
    np.testing.assert_allclose(found.numpy(), oracle(logits, labels, weights), rtol=1e-12)


def test_a_worked_example_by_hand() -> None:
    # Logits of 0 are chances of one half: a click costs log 2, both together log 4, and not both log(4/3).
    logits = torch.zeros(2, 2)
    labels = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    losses = entire_space_losses(logits, labels, torch.ones(2, 2), CLICK, CONVERSION)
    assert losses.tolist() == pytest.approx([math.log(2), (math.log(4) + math.log(4 / 3)) / 2])


@pytest.mark.parametrize("click", [-40.0, 0.0, 40.0, 400.0])
@pytest.mark.parametrize("conversion", [-40.0, 0.0, 40.0, -400.0])
def test_large_logits_give_the_exact_value_and_a_finite_gradient(click: float, conversion: float) -> None:
    logits = torch.tensor([[click, conversion]], requires_grad=True)
    log_p, log_rest = log_both(logits[:, 0], logits[:, 1])
    # log(1 - p) as log(-expm1(log p)) in float64, whose range holds these.
    exact = -np.logaddexp(0, -click) - np.logaddexp(0, -conversion)
    assert log_p.item() == pytest.approx(exact, rel=1e-6)
    rest = np.logaddexp(-np.logaddexp(0, click), -np.logaddexp(0, -click) - np.logaddexp(0, conversion))
    assert log_rest.item() == pytest.approx(rest, rel=1e-5, abs=1e-30)
    if abs(click) <= 40 and abs(conversion) <= 40:
        assert log_rest.item() == pytest.approx(float(np.log(-np.expm1(np.float64(exact)))), rel=1e-5, abs=1e-17)
    for label in (0.0, 1.0):
        loss = entire_space_losses(logits, torch.full((1, 2), label), torch.ones(1, 2), CLICK, CONVERSION).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_the_gradient_is_that_of_the_formula() -> None:
    logits, labels, weights = some_rows(6)
    z = torch.from_numpy(logits).requires_grad_()
    loss = entire_space_losses(z, torch.from_numpy(labels), torch.from_numpy(weights), CLICK, CONVERSION).sum()
    (gradient,) = torch.autograd.grad(loss, z)
    for row in range(6):
        for column in (0, 1):
            moved = [logits.copy(), logits.copy()]
            moved[0][row, column] += 1e-6
            moved[1][row, column] -= 1e-6
            slope = (sum(oracle(moved[0], labels, weights)) - sum(oracle(moved[1], labels, weights))) / 2e-6
            assert gradient[row, column].item() == pytest.approx(slope, abs=1e-7)


def test_weight_two_is_the_row_twice_and_weight_zero_may_be_nan() -> None:
    logits, labels, _ = (torch.from_numpy(x) for x in some_rows(6))
    ones = torch.ones(6, 2, dtype=torch.float64)
    doubled = ones.clone()
    doubled[4] = 2
    twice = [0, 1, 2, 3, 4, 4, 5]
    first = entire_space_losses(logits, labels, doubled, CLICK, CONVERSION)
    second = entire_space_losses(logits[twice], labels[twice], ones[[*range(6), 0]], CLICK, CONVERSION)
    torch.testing.assert_close(first, second, rtol=1e-13, atol=0)
    unknown, absent = labels.clone(), ones.clone()
    unknown[3, CONVERSION], absent[3, CONVERSION] = float("nan"), 0
    found = entire_space_losses(logits, unknown, absent, CLICK, CONVERSION)[CONVERSION]
    kept = [0, 1, 2, 4, 5]
    expected = entire_space_losses(logits[kept], labels[kept], ones[kept], CLICK, CONVERSION)[CONVERSION]
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


def test_other_tasks_keep_their_own_loss_and_a_batch_of_one_works() -> None:
    logits = torch.tensor([[0.3, -0.2, 1.5]])
    labels, weights = torch.tensor([[1.0, 0.0, 1.0]]), torch.ones(1, 3)
    found = entire_space_losses(logits, labels, weights, CLICK, CONVERSION)
    own = weighted_bce(logits, labels, weights)
    assert torch.equal(found[[0, 2]], own[[0, 2]])
    assert found[1] != own[1]


def test_fixed_weights_multiply() -> None:
    weighting = FixedWeighting(("ctr", "cvr"), {"cvr": 3.0})
    assert float(weighting(torch.tensor([0.5, 0.2]), [])) == pytest.approx(0.5 + 3 * 0.2)
    assert not list(weighting.parameters())
    assert weighting.state_dict() == {}


def test_uncertainty_starts_at_the_plain_sum_and_finds_the_noise_of_each_task() -> None:
    weighting = LearnedUncertainty(("ctr", "cvr", "buy"), [0, 2])
    losses = torch.tensor([0.5, 100.0, 2.0])
    assert weighting(losses, []).item() == pytest.approx(2.5)  # the one that has nothing to learn is not counted
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.2)
    for _ in range(400):
        optimizer.zero_grad()
        weighting(losses, []).backward()
        optimizer.step()
    # d/ds (e^-s L + s / 2) = 0 at e^-s = 1 / (2 L)
    assert weighting.log_line() == pytest.approx({"ctr": 1 / (2 * 0.5), "buy": 1 / (2 * 2.0)}, rel=1e-3)


def test_equal_gradients_turn_to_the_task_that_pulls_less() -> None:
    weighting = EqualGradients(("ctr", "cvr"), [0, 1])
    shared = nn.Parameter(torch.ones(2, 2))
    losses = torch.stack([10 * shared.sum(), shared.sum()])
    total = weighting(losses, [shared])
    # Losses 40 and 4, each times 1; norms 20 and 2 times one half are 10 and 1, both 4.5 from their mean.
    assert total.item() == pytest.approx(40 + 4 + 2 * 4.5**2)
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        weighting(torch.stack([10 * shared.sum(), shared.sum()]), [shared]).backward()
        optimizer.step()
    found = weighting.log_line()
    assert found["ctr"] * 10 == pytest.approx(found["cvr"], rel=0.02)
    assert found["ctr"] + found["cvr"] == pytest.approx(2)


def test_the_shared_parameters_are_those_of_no_single_task() -> None:
    from models.catalog import CATALOG

    entry = CATALOG["ctr"]
    config = entry.config.from_dict(
        {**entry.tiny().to_dict(), "tasks": ["ctr", "cvr"], "top": {"kind": "mmoe"}, "wide": True}
    )
    network = entry.model(config)
    chosen = {id(parameter) for parameter in shared_parameters(network)}
    names = [name for name, parameter in network.named_parameters() if id(parameter) in chosen]
    assert any("experts" in name for name in names)
    assert not any(part in name for name in names for part in ("towers", "gate", "wide", "embedding"))

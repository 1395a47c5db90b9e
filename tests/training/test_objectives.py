"""The loss against its formula, and the promise about weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.objectives.click import total_loss, weighted_bce


def test_the_loss_equals_its_formula() -> None:
    logits = torch.tensor([[0.3, -2.0], [1.5, 0.0], [-0.7, 4.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    weights = torch.tensor([[1.0, 0.5], [2.0, 1.0], [0.25, 3.0]])
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    y, w = labels.numpy(), weights.numpy()
    expected = (-w * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum(0) / w.sum(0)
    np.testing.assert_allclose(weighted_bce(logits, labels, weights).numpy(), expected, rtol=1e-6)


def test_weight_two_is_the_row_twice() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    labels = (torch.rand(6, 2, generator=generator) > 0.5).double()
    weights = torch.ones(6, 2, dtype=torch.float64)
    weights[4] = 2.0
    twice = [0, 1, 2, 3, 4, 4, 5]
    weighted = weighted_bce(logits, labels, weights)
    repeated = weighted_bce(logits[twice], labels[twice], torch.ones(7, 2, dtype=torch.float64))
    torch.testing.assert_close(weighted, repeated, rtol=1e-14, atol=0)


def test_a_missing_label_costs_nothing_and_gives_no_gradient() -> None:
    logits = torch.tensor([[0.5, 0.5], [1.0, -1.0]], requires_grad=True)
    labels = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    weights = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    losses = weighted_bce(logits, labels, weights)
    losses.sum().backward()
    assert losses[1] == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad[:, 1], torch.zeros(2))
    assert torch.all(logits.grad[:, 0] != 0)


@pytest.mark.parametrize("logit", [-800.0, 800.0])
def test_extreme_logits_stay_finite(logit: float) -> None:
    loss = weighted_bce(torch.tensor([[logit]]), torch.tensor([[1.0]]), torch.ones(1, 1))
    assert float(loss[0]) == pytest.approx(max(-logit, 0.0))


def test_tasks_and_the_auxiliary_loss_add_up_with_their_weights() -> None:
    total = total_loss(torch.tensor([0.5, 0.2]), torch.tensor([1.0, 3.0]), torch.tensor(0.7), 0.5)
    assert float(total) == pytest.approx(0.5 + 3 * 0.2 + 0.5 * 0.7)


def test_without_alpha_the_auxiliary_loss_is_left_out_even_if_it_is_not_finite() -> None:
    total = total_loss(torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor(float("inf")), 0.0)
    assert float(total) == 0.5

"""Objectives over environments: closed forms, unbiasedness by enumeration, schedule, rules, the null predictor."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from bundle.correct import sigmoid
from training.environments import environment_batches, environments_of
from training.errors import DataError, NullPredictor
from training.null_predictor import refuse_null_predictor
from training.objectives.environment_loss import EnvironmentLoss
from training.objectives.invariance import (
    Outcome,
    environment_means,
    first_halves,
    half_penalty,
    penalised,
    risk_variance,
    row_gradients,
    row_losses,
    square_penalty,
    updated_group_weights,
)
from training.objectives.invariance_settings import InvarianceSection, Objective

OUTCOMES: tuple[Outcome, ...] = ("binary", "continuous")
E, K, B = 3, 2, 40


def rows(outcome: Outcome, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Predictions, targets, weights (B, K), environments (B,): some weights 0, some not 1."""
    generator = torch.Generator().manual_seed(3)
    predictions = 3 * torch.randn(B, K, generator=generator, dtype=dtype)
    targets = torch.randn(B, K, generator=generator, dtype=dtype)
    if outcome == "binary":
        targets = (targets > 0).to(dtype)
    weights = torch.rand(B, K, generator=generator, dtype=dtype) + 0.5
    weights[torch.rand(B, K, generator=generator) < 0.2] = 0
    return predictions, targets, weights, torch.randint(0, E, (B,), generator=generator)


def autograd_penalty(outcome: Outcome, half: int | None = None) -> torch.Tensor:
    """||d/dw R_e(w f)||^2 by differentiating a scale of each output, one environment and output after the other."""
    predictions, targets, weights, environments = rows(outcome)
    found = []
    for e in range(E):
        total = torch.zeros((), dtype=torch.float64)
        for k in range(K):
            mine = (environments == e) & (weights[:, k] > 0)
            y, f, v = targets[mine, k], predictions[mine, k], weights[mine, k]
            gradients = []
            for part in (slice(0, None, 2), slice(1, None, 2)) if half else (slice(None),):
                w = torch.ones((), dtype=torch.float64, requires_grad=True)
                loss = (
                    torch.nn.functional.binary_cross_entropy_with_logits(w * f[part], y[part], weight=v[part])
                    * len(f[part])
                    if outcome == "binary"
                    else (v[part] * (w * f[part] - y[part]) ** 2).sum()
                )
                gradients.append(torch.autograd.grad(loss / v[part].sum(), w)[0])
            total = total + gradients[0] * gradients[-1]
        found.append(total)
    return torch.stack(found)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_closed_form_is_the_gradient_that_autograd_finds(outcome: Outcome) -> None:
    predictions, targets, weights, environments = rows(outcome)
    gradients = row_gradients(predictions, targets, outcome)
    found = square_penalty(gradients, weights, environments, E)
    torch.testing.assert_close(found, autograd_penalty(outcome), rtol=1e-6, atol=1e-6)
    assert (found > 1e-3).all()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_two_halves_are_every_second_counted_row(outcome: Outcome) -> None:
    predictions, targets, weights, environments = rows(outcome)
    gradients = row_gradients(predictions, targets, outcome)
    found = half_penalty(gradients, weights, environments, E)
    torch.testing.assert_close(found, autograd_penalty(outcome, half=2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_penalty_s_own_gradient_is_that_of_double_backward(outcome: Outcome) -> None:
    predictions, targets, _, _ = rows(outcome)
    f, y = predictions[:, 0].clone().requires_grad_(), targets[:, 0]
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    risk = row_losses(w * f, y, outcome).mean()
    (slope,) = torch.autograd.grad(risk, w, create_graph=True)
    (expected,) = torch.autograd.grad(slope**2, f)
    one = torch.zeros(B, dtype=torch.int64)
    penalty = square_penalty(row_gradients(f, y, outcome)[:, None], torch.ones(B, 1, dtype=torch.float64), one, 1)
    (found,) = torch.autograd.grad(penalty.sum(), f)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_the_half_penalty_is_unbiased_and_the_square_is_not() -> None:
    """All 4^4 equally likely samples of four rows: the mean of the products is the square of the mean gradient."""
    gradients = torch.tensor([[-1.0], [0.25], [2.0], [3.5]], dtype=torch.float64)
    samples = torch.tensor(list(itertools.product(range(4), repeat=4)))
    drawn = gradients[samples.flatten()]
    environments = torch.arange(len(samples)).repeat_interleave(4)
    ones = torch.ones_like(drawn)
    halves = half_penalty(drawn, ones, environments, len(samples))
    squares = square_penalty(drawn, ones, environments, len(samples))
    truth = gradients.mean() ** 2
    assert halves.mean().item() == pytest.approx(truth.item(), rel=1e-12)
    variance = gradients.var(correction=0)
    assert squares.mean().item() == pytest.approx((truth + variance / 4).item(), rel=1e-12)
    assert halves.min() < 0 <= squares.min()


def test_a_row_without_weight_is_in_no_half_and_changes_nothing() -> None:
    weights = torch.tensor([[1.0], [0.0], [1.0], [1.0], [0.0], [1.0], [1.0]])
    environments = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    assert first_halves(weights, environments, 2)[:, 0].tolist() == [True, False, False, True, False, False, True]


def test_an_environment_that_is_empty_costs_nothing_and_has_no_gradient() -> None:
    values = torch.tensor([[2.0], [4.0]], requires_grad=True)
    weights, environments = torch.tensor([[1.0], [0.0]]), torch.tensor([0, 1])
    means = environment_means(values, weights, environments, 3)
    assert means[:, 0].tolist() == [2.0, 0.0, 0.0]
    penalty = half_penalty(values, weights, environments, 3) + square_penalty(values, weights, environments, 3)
    torch.autograd.backward(means.sum() + penalty.sum())
    assert values.grad is not None
    assert values.grad[:, 0].tolist() == [5.0, 0.0]
    alone = half_penalty(torch.ones(1, 1), torch.ones(1, 1), torch.zeros(1, dtype=torch.int64), 1)
    assert alone.tolist() == [0.0]


def test_variance_of_risks_and_group_weights_are_the_papers() -> None:
    risks = torch.tensor([1.0, 2.0, 6.0])
    assert risk_variance(risks).item() == pytest.approx((4 + 1 + 9) / 3)
    raised = [0.5 * math.exp(0.1 * 1), 0.25 * math.exp(0.1 * 2), 0.25 * math.exp(0.1 * 6)]
    found = updated_group_weights(torch.tensor([0.5, 0.25, 0.25]), risks, 0.1)
    assert found.tolist() == pytest.approx([value / sum(raised) for value in raised])
    assert updated_group_weights(found, torch.tensor([1e5, 0.0, 0.0]), 1.0).tolist() == [1.0, 0.0, 0.0]


def test_the_whole_loss_is_divided_once_lambda_is_above_one() -> None:
    risk, penalty = torch.tensor(3.0), torch.tensor(-0.5)
    assert penalised(risk, penalty, 0.0).item() == 3.0
    assert penalised(risk, penalty, 1.0).item() == 2.5
    assert penalised(risk, penalty, 10.0).item() == pytest.approx((3 - 5) / 10)


def test_the_schedule_warms_up_anneals_and_then_stays() -> None:
    section = InvarianceSection(column="day", lambda_max=50, warm_start=3, anneal_iters=2)
    assert [section.penalty_weight(step) for step in range(7)] == [0, 0, 0, 1, 1, 50, 50]
    assert section.first_step == 5
    groups = InvarianceSection(column="day", objective="groupdro", warm_start=2, anneal_iters=9)
    assert [groups.penalty_weight(step) for step in range(4)] == [0, 0, 1, 1]
    assert groups.first_step == 2
    plain = InvarianceSection(column="day", objective="erm")
    assert (plain.penalty_weight(10_000), plain.first_step) == (0, 0)


def test_training_cannot_begin_without_a_warm_start() -> None:
    with pytest.raises(ValidationError, match="warm_start"):
        InvarianceSection(column="day", warm_start=0)


@pytest.mark.parametrize(("objective", "expected"), [("erm", 0.0), ("groupdro", 0.0), ("vrex", 2 / 3), ("irm", 9.0)])
def test_each_objective_has_its_penalty(objective: Objective, expected: float) -> None:
    section = InvarianceSection(column="day", objective=objective)
    loss = EnvironmentLoss(section, 3, full_batch=True)
    gradients = torch.full((3, 1), 3.0)
    found = loss.penalty(torch.tensor([1.0, 2.0, 3.0]), gradients, torch.ones(3, 1), torch.arange(3))
    assert found.item() == pytest.approx(expected)
    assert torch.equal(loss.shares(torch.ones(3), active=False), torch.full((3,), 1 / 3))


def test_group_weights_move_only_once_active_and_survive_their_state() -> None:
    section = InvarianceSection(column="day", objective="groupdro", group_step=1.0)
    loss, risks = EnvironmentLoss(section, 2, full_batch=False), torch.tensor([0.0, math.log(3.0)])
    assert loss.shares(risks, active=False).tolist() == [0.5, 0.5]
    assert loss.shares(risks, active=True).tolist() == pytest.approx([0.25, 0.75])
    again = EnvironmentLoss(section, 2, full_batch=False)
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again.shares(risks, active=True), loss.shares(risks, active=True))
    with pytest.raises(ValueError, match="group_weights must be of 3 environments, got 2"):
        EnvironmentLoss(section, 3, full_batch=False).load_state_dict(loss.state_dict())
    with pytest.raises(ValueError, match="count must be at least 2"):
        EnvironmentLoss(section, 1, full_batch=False)


LABELS = np.array([[0.0], [1.0], [0.0], [1.0], [1.0], [1.0], [1.0]])
TEXTS = ["mon", "mon", "tue", "tue", "wed", "wed", "thu"]


def test_environments_that_teach_nothing_are_left_out_with_a_warning() -> None:
    found = environments_of(pl.Series(TEXTS), LABELS, np.ones((7, 1)), "day")
    assert found.names == ("mon", "tue")
    assert (found.rows.tolist(), found.codes.tolist()) == ([0, 1, 2, 3], [0, 0, 1, 1])
    assert found.warnings == (
        "environment day=thu is left out: it has 1 labelled row",
        "environment day=wed is left out: it has only the label 1",
    )


def test_rows_without_a_label_do_not_make_an_environment() -> None:
    weights = np.ones((7, 1))
    weights[2] = 0
    with pytest.raises(DataError, match=r"day gives 1 .*day=tue is left out: it has 1 labelled row"):
        environments_of(pl.Series(TEXTS), LABELS, weights, "day")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["mon"] * 7, "needs at least 2, and day gives 1"),
        (["mon"] * 3 + ["tue"] * 3 + [None], "1 training rows have no day"),
        (list("abcdefg"), "day gives 0"),
    ],
)
def test_too_few_environments_are_one_sentence(texts: list[str | None], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        environments_of(pl.Series(texts), LABELS, np.ones((7, 1)), "day")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch_size", [7, 64, 1_000])
def test_every_batch_holds_every_environment_and_every_row_comes(batch_size: int) -> None:
    codes = np.repeat([0, 1, 2], [150, 60, 3])
    batches = environment_batches(codes, batch_size, np.random.default_rng(0))
    assert len(batches) == -(-len(codes) // batch_size)
    for batch in batches:
        assert (np.bincount(codes[batch], minlength=3) >= 2).all()
    counts = np.bincount(np.concatenate(batches), minlength=len(codes))
    assert (counts >= 1).all()
    assert (counts[codes == 0] == 1).all()
    sizes = [np.bincount(codes[batch], minlength=3)[0] for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    again = environment_batches(codes, batch_size, np.random.default_rng(0))
    assert all(np.array_equal(one, two) for one, two in zip(batches, again, strict=True))


def test_rows_stand_in_random_order_inside_a_batch() -> None:
    codes = np.repeat([0, 1], [500, 500])
    batch = environment_batches(codes, 1_000, np.random.default_rng(0))[0]
    assert 100 < codes[batch][:300].sum() < 200


def test_a_network_that_predicts_nothing_fails_the_run() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=2_000)
    y = x + generator.normal(size=2_000)
    ones = np.ones(2_000)
    refuse_null_predictor(y, x, ones, "continuous", "spend")
    for useless in (np.zeros(2_000), np.full(2_000, y.mean()), -x, 1e-4 * x):
        with pytest.raises(NullPredictor, match=r"predicts nothing about 'spend'.*R2"):
            refuse_null_predictor(y, useless, ones, "continuous", "spend")


def test_logits_near_zero_rank_well_and_are_refused_nevertheless() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=2_000)
    y = (generator.random(2_000) < 1 / (1 + np.exp(-x))).astype(float)

    ones = np.ones(2_000)
    refuse_null_predictor(y, sigmoid(x), ones, "binary", "ctr")
    with pytest.raises(NullPredictor, match="log loss"):
        refuse_null_predictor(y, sigmoid(1e-3 * x), ones, "binary", "ctr")
    with pytest.raises(NullPredictor, match=r"AUC is 0\.5"):
        refuse_null_predictor(y, np.full(2_000, 0.5), ones, "binary", "ctr")
    with pytest.raises(NullPredictor, match="AUC"):
        refuse_null_predictor(y, sigmoid(generator.normal(size=2_000)), ones, "binary", "ctr")
    with pytest.raises(NullPredictor, match="one class"):
        refuse_null_predictor(np.ones(2_000), sigmoid(x), ones, "binary", "ctr")


def test_rows_of_weight_zero_say_nothing_about_the_predictor() -> None:
    y, f = np.array([0.0, 1.0, 2.0, np.nan]), np.array([0.1, 0.9, 2.1, 50.0])
    refuse_null_predictor(y, f, np.array([1.0, 1.0, 1.0, 0.0]), "continuous", "spend")


def test_the_page_tells_every_key_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "invariance.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE))
    for name, field in InvarianceSection.model_fields.items():
        if field.is_required():
            assert told[name] == "none, required"
        else:
            assert told[name] == (f"`{field.default}`" if isinstance(field.default, str) else f"{field.default:g}"), (
                name
            )

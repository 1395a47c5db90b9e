"""Plans for treatment effects across environments: the wrapped loss against NumPy, stages, and a fit that uses them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.inputs import InputLayout, NumberField
from models.uplift.inputs import OutcomeKind
from models.uplift.tarnet import PropensityKind, TARNet, TARNetConfig
from training.objectives.catalog import OBJECTIVES
from training.objectives.environment_loss import EnvironmentLoss
from training.objectives.factual import factual_loss
from training.objectives.invariance_settings import InvarianceSection, Objective
from training.objectives.invariance_uplift import InvariantLoss, environment_weights, invariant_plan
from training.objectives.tarnet import TARNetSettings
from training.uplift.fit import fit_plan
from training.uplift.plan import Phase, Plan, Stage
from training.uplift.rows import UpliftRows


def rows(count: int, seed: int = 0, flipped: float | None = None) -> UpliftRows:
    """Outcome = x0 + t plus noise; x1 is the outcome plus noise that depends on the environment.

    ``flipped`` makes one environment in which x1 is minus the outcome.
    """
    draw = torch.Generator().manual_seed(seed)
    environment = torch.zeros(count, dtype=torch.int64) if flipped else (torch.arange(count) % 3 > 0).long()
    treatment = torch.randint(0, 2, (count,), generator=draw)
    cause = torch.randn(count, generator=draw)
    outcome = cause + treatment + 0.5 * torch.randn(count, generator=draw)
    noise = torch.where(environment == 1, 1.0, 0.2) * torch.randn(count, generator=draw)
    effect = (-1.0 if flipped else 1.0) * outcome + noise
    empty = torch.zeros(count, 1, 0)
    return UpliftRows(
        inputs=(
            torch.zeros(count, 0, dtype=torch.int64),
            torch.stack([cause, effect], dim=1),
            empty.long(),
            empty,
            empty.bool(),
        ),
        treatment=treatment,
        dose=torch.zeros(count),
        outcome=outcome,
        weight=torch.rand(count, generator=draw) + 0.5,
        environment=environment,
    )


LAYOUT = InputLayout(user_numbers=(NumberField(name="cause", column=0), NumberField(name="effect", column=1)))


def network(seed: int = 0, propensity: PropensityKind = "none") -> TARNet:
    torch.manual_seed(seed)
    return TARNet(TARNetConfig(layout=LAYOUT, representation_layers=(8,), head_layers=(6,), propensity=propensity))


def section(**changes: Any) -> InvarianceSection:
    return InvarianceSection(column="day", **{"lambda_max": 50.0, "warm_start": 10, "anneal_iters": 4, **changes})


def fixed(predictions: Tensor) -> Any:
    return lambda batch: predictions


def expected(batch: UpliftRows, predictions: Tensor, objective: Objective, lam: float, kind: OutcomeKind) -> float:
    """The definition, environment after environment, in float64 NumPy."""
    f = predictions.double().numpy()[np.arange(len(batch)), batch.treatment.numpy()]
    y, w = batch.outcome.double().numpy(), batch.weight.double().numpy()
    probability = 1 / (1 + np.exp(-f))
    loss = -(y * np.log(probability) + (1 - y) * np.log(1 - probability)) if kind == "binary" else (f - y) ** 2
    slope = (probability - y) * f if kind == "binary" else 2 * (f - y) * f
    risks, squares = [], []
    for e in range(2):
        mine = batch.environment.numpy() == e
        risks.append(np.average(loss[mine], weights=w[mine]))
        arms = [np.average(np.where(batch.treatment.numpy() == k, slope, 0)[mine], weights=w[mine]) for k in range(2)]
        squares.append(sum(value**2 for value in arms))
    if objective == "groupdro":
        raised = 0.5 * np.exp(0.3 * np.array(risks))
        return float(np.dot(raised / raised.sum(), risks))
    penalty = {"irm": np.mean(squares), "vrex": np.var(risks), "erm": 0.0}[objective]
    return float((np.mean(risks) + lam * penalty) / max(lam, 1.0))


@pytest.mark.parametrize("kind", ["continuous", "binary"])
@pytest.mark.parametrize("objective", ["erm", "irm", "vrex", "groupdro"])
@pytest.mark.parametrize("lam", [1.0, 50.0])
def test_the_wrapped_loss_is_the_definition(objective: Objective, kind: OutcomeKind, lam: float) -> None:
    batch = rows(60)
    if kind == "binary":
        batch = replace(batch, outcome=(batch.outcome > 0).float())
    predictions = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
    terms = EnvironmentLoss(section(objective=objective, group_step=0.3), 2, full_batch=True)
    lam = 1.0 if objective in ("erm", "groupdro") else lam
    loss = InvariantLoss(
        lambda given: factual_loss(predictions, given, kind), fixed(predictions), kind, terms, penalty_weight=lam
    )
    assert loss(batch).item() == pytest.approx(expected(batch, predictions, objective, lam, kind), rel=1e-5)
    assert set(loss.log_line()) == {"penalty", "penalty_weight", "risks"}


def test_environments_weigh_their_shares_whatever_their_size() -> None:
    batch = rows(60)
    weights = environment_weights(batch, torch.tensor([0.25, 0.75]))
    assert weights.sum().item() == pytest.approx(batch.weight.sum().item(), rel=1e-6)
    assert (weights[batch.environment == 1].sum() / weights.sum()).item() == pytest.approx(0.75, rel=1e-6)
    alone = batch.take(batch.environment == 0)
    assert torch.isfinite(environment_weights(alone, torch.tensor([0.5, 0.5]))).all()


def test_a_batch_of_one_row_costs_its_loss_and_has_no_penalty() -> None:
    one = rows(1)
    terms = EnvironmentLoss(section(), 2, full_batch=False)
    predictions = torch.full((1, 2), 0.5, requires_grad=True)
    loss = InvariantLoss(
        lambda given: factual_loss(predictions, given, "continuous"), fixed(predictions), "continuous", terms, 1.0
    )
    assert torch.isfinite(loss(one))
    assert loss.log_line()["penalty"] == 0.0


def test_an_outcome_stage_becomes_warm_start_annealing_and_itself() -> None:
    train, model = rows(100), network(propensity="estimated")
    settings = TARNetSettings(batch_size=32, epochs=7, patience=3, weight_decay=0.2, optimizer="adam")
    plain = OBJECTIVES["tarnet"].plan(model, settings, train)
    plan = invariant_plan(model, plain, section(), train)
    assert [stage.name for stage in plan.stages] == [
        "outcome, warm start",
        "outcome, annealing",
        "outcome",
        *(stage.name for stage in plain.stages[1:]),
    ]
    warm, annealing, last = plan.stages[:3]
    assert [stage.epochs for stage in (warm, annealing, last)] == [3, 1, 7]  # 10 and 4 steps of 4 an epoch
    assert [stage.phases[0].loss.penalty_weight for stage in (warm, annealing, last)] == [0.0, 1.0, 50.0]  # type: ignore[attr-defined]
    assert (warm.validation, annealing.validation) == (None, None)
    assert (last.validation, last.patience) == (plain.stages[0].validation, 3)
    assert last.phases[0].weight_decay == pytest.approx(0.2 / 50)
    assert warm.phases[0].weight_decay == 0.2
    assert plan.stages[3:] == plain.stages[1:]
    decoupled = invariant_plan(
        model, OBJECTIVES["tarnet"].plan(model, settings.model_copy(update={"optimizer": "adamw"}), train),
        section(), train,
    )  # fmt: skip
    assert decoupled.stages[2].phases[0].weight_decay == 0.2


@pytest.mark.parametrize(
    ("objective", "names"), [("erm", ["outcome"]), ("groupdro", ["outcome, warm start", "outcome"])]
)
def test_objectives_without_a_penalty_have_fewer_stages(objective: Objective, names: list[str]) -> None:
    train, model = rows(100), network()
    plain = OBJECTIVES["tarnet"].plan(model, TARNetSettings(), train)
    plan = invariant_plan(model, Plan(plain.stages[:1]), section(objective=objective), train)
    assert [stage.name for stage in plan.stages] == names


def test_plans_that_fit_arms_apart_are_refused() -> None:
    model = network()
    apart = Stage(
        name="outcome",
        phases=tuple(
            Phase(name=str(arm), parameters=tuple(model.parameters()), loss=lambda batch: batch.outcome.sum(), arm=arm)
            for arm in (0, 1)
        ),
        validation=None,
        epochs=1,
    )
    with pytest.raises(ValueError, match="outcome of all arms is fitted at once"):
        invariant_plan(model, Plan((apart,)), section(), rows(20))
    with pytest.raises(ValueError, match="outcome of all arms is fitted at once"):
        invariant_plan(nn.Linear(1, 1), Plan((apart,)), section(), rows(20))


def test_rows_of_one_environment_are_refused() -> None:
    train, model = rows(20), network()
    alone = replace(train, environment=torch.zeros(20, dtype=torch.int64))
    with pytest.raises(ValueError, match="count must be at least 2 environments, got 1"):
        invariant_plan(model, OBJECTIVES["tarnet"].plan(model, TARNetSettings(), train), section(), alone)


def fitted_loss(objective: Objective, batch_size: int) -> tuple[float, list[float]]:
    """Squared error where x1 is turned round, after a fit on rows where it helps; and the logged penalties."""
    train, valid = rows(900), rows(300, seed=1)
    model = network()
    settings = TARNetSettings(batch_size=batch_size, epochs=60, patience=0, learning_rate=1e-2)
    outcome = OBJECTIVES["tarnet"].plan(model, settings, train).stages[0]
    plain = Plan((replace(outcome, validation=None),))
    steps = math.ceil(900 / batch_size)
    given = section(objective=objective, warm_start=20 * steps, anneal_iters=0, lambda_max=300.0)
    lines: list[dict[str, Any]] = []
    fit_plan(model, invariant_plan(model, plain, given, train), train, valid, seed=0, log=lines.append)  # type: ignore[arg-type]
    turned = rows(500, seed=2, flipped=1.0)
    with torch.no_grad():
        error = factual_loss(model(*turned.inputs)[0], turned, "continuous").item()
    return error, [line["penalty"] for line in lines if line["kind"] == "epoch"]


def test_a_fit_across_environments_relies_less_on_what_changes() -> None:
    plain, none = fitted_loss("erm", 128)
    invariant, penalties = fitted_loss("irm", 128)
    assert set(none) == {0.0}
    assert len(penalties) == 80
    assert any(value < 0 for value in penalties[20:])
    assert invariant < 0.6 * plain

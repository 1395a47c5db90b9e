"""What DCN-PD, DRNet and VCNet minimise: losses by hand, what holds still, empty arms and strata, known truths."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.catalog import UPLIFT_CATALOG
from models.inputs import InputLayout, NumberField
from models.uplift.dcn_pd import DCNPD, DCNPDConfig
from models.uplift.drnet import DRNet, DRNetConfig
from models.uplift.vcnet import VCNet, VCNetConfig
from training.objectives import dcn_pd, drnet, vcnet
from training.objectives.dcn_pd import DCNPDSettings, OracleRows, oracle_loss
from training.objectives.drnet import DRNetSettings, NearestInPropensity, stratum_counts
from training.objectives.settings import PropensitySchedule
from training.objectives.vcnet import VCNetObjective, VCNetSettings
from training.uplift.fit import fit_plan
from training.uplift.plan import Plan
from training.uplift.rows import UpliftRows

LAYOUT: Final = InputLayout(user_numbers=tuple(NumberField(name=f"x{i}", column=i) for i in range(3)))
ARMS: Final = ("control", "letter", "call")
BRIEF: Final = PropensitySchedule(epochs=2)
SMALL_VCNET: Final = VCNetConfig(layout=LAYOUT, treatments=ARMS, trunk_layers=(6,), head_layers=(5,))
SMALL_DRNET: Final = DRNetConfig(
    layout=LAYOUT, treatments=ARMS, base_layers=(6,), treatment_layers=(5,), head_layers=(4,)
)
SMALL_DCN: Final = DCNPDConfig(layout=LAYOUT, treatments=ARMS, shared_layers=(6,), head_layers=(5,))


def rows_of(x: Tensor, treatment: Tensor, dose: Tensor, outcome: Tensor) -> UpliftRows:
    count = len(x)
    return UpliftRows(
        inputs=(
            torch.zeros(count, 0, dtype=torch.int64),
            x,
            torch.zeros(count, 0, 0, dtype=torch.int64),
            torch.zeros(count, 0, 0),
            torch.zeros(count, 0, 1, dtype=torch.bool),
        ),
        treatment=treatment,
        dose=dose,
        outcome=outcome,
        weight=torch.ones(count),
        environment=torch.zeros(count, dtype=torch.int64),
    )


def random_rows(count: int, arms: int = 3, seed: int = 0, binary: bool = False) -> UpliftRows:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=draw)
    treatment = torch.arange(count) % arms
    dose = torch.where(treatment > 0, torch.rand(count, generator=draw), torch.zeros(count))
    outcome = x[:, 0] + treatment * dose + 0.1 * torch.randn(count, generator=draw)
    return rows_of(x, treatment, dose, (outcome > 0).float() if binary else outcome)


def build(kind: Callable[[Any], nn.Module], config: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return kind(config)


def bytes_of(module: nn.Module) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in module.parameters())


def doubles(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().double().numpy())


@pytest.mark.parametrize("outcome", ["continuous", "binary"])
def test_the_loss_of_vcnet_by_hand(outcome: str) -> None:
    model: VCNet = build(VCNet, replace(SMALL_VCNET, outcome=outcome)).eval()
    nn.init.normal_(model.targeting.weight, 0.0, 0.1)
    rows = replace(random_rows(12, binary=outcome == "binary"), weight=torch.arange(12.0))
    settings = VCNetSettings(density_weight=0.3, targeting_weight=0.7, density_floor=0.2)
    seen = model.training_outputs(rows.inputs, rows.dose.unsqueeze(1).expand(-1, 3))
    mu, logits, density, epsilon = (doubles(part) for part in seen)
    own = np.arange(12), rows.treatment.numpy()
    y, v = doubles(rows.outcome), doubles(rows.weight)
    g = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if outcome == "binary":
        p = 1 / (1 + np.exp(-mu[own]))
        factual = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    else:
        p = mu[own]
        factual = (y - p) ** 2
    nuisance = -np.log(density[own] + 1e-6) - np.log(g[own])
    targeted = (y - p - epsilon[own] / np.maximum(density[own] * g[own], 0.2)) ** 2
    expected = (v * (factual + 0.3 * nuisance + 0.7 * targeted)).sum() / v.sum()
    assert VCNetObjective(model, settings).whole(rows).item() == pytest.approx(expected, rel=1e-5)
    plain = VCNetSettings(density_weight=0.0, targeted=False)
    assert VCNetObjective(model, plain).whole(rows).item() == pytest.approx((v * factual).sum() / v.sum(), rel=1e-5)


def test_at_the_best_epsilon_the_estimating_equation_holds() -> None:
    model: VCNet = build(VCNet, replace(SMALL_VCNET, targeting_knots=(0.5,))).eval()
    rows = random_rows(90)
    objective = VCNetObjective(model, VCNetSettings(density_floor=1e-3))
    best = torch.optim.LBFGS(model.targeting.parameters(), max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12)

    def closure() -> Tensor:
        best.zero_grad()
        loss = objective.targeting(rows)
        loss.backward()
        return loss

    before = float(closure().detach())
    best.step(closure)  # type: ignore[no-untyped-call]
    seen = model.training_outputs(rows.inputs, rows.dose.unsqueeze(1).expand(-1, 3))
    joint = seen.density * torch.softmax(seen.propensity_logits, -1)
    own = np.arange(90), rows.treatment.numpy()
    residual = doubles(rows.outcome) - doubles(seen.outcome)[own] - (doubles(seen.targeting) / doubles(joint))[own]
    score = doubles(model.targeting.basis(rows.dose)) * (residual / doubles(joint)[own])[:, None]
    assert before - float(objective.targeting(rows).detach()) > 1e-3
    for arm in range(3):
        assert np.abs(score[rows.treatment.numpy() == arm].mean(0)).max() < 2e-3


def test_the_turns_of_vcnet_move_what_is_theirs() -> None:
    model: VCNet = build(VCNet, SMALL_VCNET)
    plan = vcnet.plan(model, VCNetSettings(epochs=1), random_rows(6))
    network, curve = plan.stages[0].phases
    assert plan.stages[0].by == "step"
    assert {id(p) for p in curve.parameters} == {id(p) for p in model.targeting.parameters()}
    assert {id(p) for p in (*network.parameters, *curve.parameters)} == {id(p) for p in model.parameters()}
    assert len(network.parameters) + len(curve.parameters) == len(list(model.parameters()))
    without = vcnet.plan(model, VCNetSettings(epochs=1, targeted=False), random_rows(6))
    assert [phase.name for phase in without.stages[0].phases] == ["network"]


@pytest.mark.parametrize("name", ["dcn_pd", "drnet", "vcnet"])
def test_an_empty_arm_gives_no_gradient_and_no_nan(name: str) -> None:
    kind, config, plan = {
        "dcn_pd": (DCNPD, SMALL_DCN, lambda n, r: dcn_pd.plan(n, DCNPDSettings(), r)),
        "drnet": (DRNet, SMALL_DRNET, lambda n, r: drnet.plan(n, DRNetSettings(), r)),
        "vcnet": (VCNet, SMALL_VCNET, lambda n, r: vcnet.plan(n, VCNetSettings(), r)),
    }[name]
    model = build(kind, config)
    rows = random_rows(40, arms=2)
    made: Plan = plan(model, rows)
    stage = made.stages[-1]
    for phase in stage.phases:
        model.zero_grad()
        phase.loss(rows if phase.arm is None else rows.arm(phase.arm)).backward()
        for key, parameter in model.named_parameters():
            if parameter.grad is not None:
                assert torch.isfinite(parameter.grad).all(), key
        if name == "dcn_pd":
            assert all(p.grad is None or not p.grad.any() for p in model.stacks[2].parameters())
        elif name == "drnet":
            assert not model.heads[0].kernel.grad[2].any()
            assert model.heads[0].kernel.grad[1].any()
        elif phase.name == "network":
            assert not model.head.layers[0].kernel.grad[2].any()
            assert model.head.layers[0].kernel.grad[1].any()
    if name == "dcn_pd":
        assert [phase.arm for phase in stage.phases] == [0, 1]
    empty = rows.take(torch.zeros(0, dtype=torch.int64))
    assert all(float(phase.loss(empty).detach()) == pytest.approx(0.0, abs=0.1) for phase in stage.phases)


def test_the_stacks_at_rest_keep_their_bytes_whatever_the_decay() -> None:
    model: DCNPD = build(DCNPD, SMALL_DCN)
    rows = random_rows(60)
    settings = DCNPDSettings(weight_decay=0.1, epochs=6, batch_size=16, propensity=BRIEF, patience=0)
    made = dcn_pd.plan(model, settings, rows)
    seen: list[tuple[int, list[bytes], bytes]] = []

    def spied(phase: Any) -> Any:
        def loss(batch: UpliftRows) -> Tensor:
            stacks = [bytes_of(nn.ModuleList(model.arm_modules(arm)[2:])) for arm in range(3)]
            seen.append((phase.arm, stacks, bytes_of(model.propensity)))
            return phase.loss(batch)

        return replace(phase, loss=loss)

    outcomes = made.stages[1]
    for phase in outcomes.phases:
        own = nn.ModuleList(model.arm_modules(phase.arm or 0))
        assert [id(p) for p in phase.parameters] == [id(p) for p in own.parameters()]
    watched = replace(outcomes, phases=tuple(spied(phase) for phase in outcomes.phases), validation=None)
    fit_plan(model, Plan((made.stages[0], watched)), rows, rows, seed=0)
    assert [arm for arm, _, _ in seen] == [0, 0, 1, 1, 2, 2] * 2
    for (arm, before, guess), (_, after, later) in itertools.pairwise(seen):
        assert guess == later
        for other in range(3):
            assert (before[other] == after[other]) == (other != arm)


def test_validation_of_dcn_pd_is_the_sum_of_the_arms_losses() -> None:
    model: DCNPD = build(DCNPD, SMALL_DCN).eval()
    rows = random_rows(13)
    made = dcn_pd.plan(model, DCNPDSettings(), rows)
    validation = made.stages[1].validation
    assert validation is not None
    mu, treatment = doubles(model(*rows.inputs)[0]), rows.treatment.numpy()
    errors = (doubles(rows.outcome) - mu[np.arange(13), treatment]) ** 2
    expected = sum(errors[treatment == arm].mean() for arm in range(3))
    assert validation(rows).item() == pytest.approx(expected, rel=1e-5)


def test_the_oracle_needs_a_simulation() -> None:
    model: DCNPD = build(DCNPD, SMALL_DCN).eval()
    rows = random_rows(9)
    settings = DCNPDSettings(objective="oracle_ite")
    with pytest.raises(ValueError, match="needs data that says semi_synthetic = true"):
        dcn_pd.plan(model, settings, rows)
    with pytest.raises(ValueError, match="semi_synthetic = true"):
        OracleRows.of(rows, torch.zeros(9, 3), semi_synthetic=False)
    with pytest.raises(ValueError, match=r"outcomes must be \(9, K\)"):
        OracleRows.of(rows, torch.zeros(8, 3), semi_synthetic=True)
    with pytest.raises(ValueError, match="every treatment's outcome"):
        oracle_loss(model, rows, 0)
    outcomes = torch.randn(9, 3)
    known = OracleRows.of(rows, outcomes, semi_synthetic=True)
    assert dcn_pd.plan(model, settings, known).stages[1].phases[1].arm == 1
    batch = known.arm(1)
    assert isinstance(batch, OracleRows)
    mu, y = doubles(model(*batch.inputs)[0]), doubles(batch.outcomes)
    expected = (((mu[:, 1:2] - mu) - (y[:, 1:2] - y)) ** 2).sum(1).mean() / 2
    assert oracle_loss(model, batch, 1).item() == pytest.approx(expected, rel=1e-5)


def test_learned_noise_is_for_continuous_outcomes() -> None:
    model = build(DCNPD, replace(SMALL_DCN, outcome="binary"))
    with pytest.raises(ValueError, match="noise must be fixed for a binary outcome"):
        dcn_pd.plan(model, DCNPDSettings(noise="learned"), random_rows(9, binary=True))


def test_an_empty_stratum_gets_no_gradient_and_is_answered_by_its_neighbour() -> None:
    model: DRNet = build(DRNet, SMALL_DRNET)
    rows = random_rows(300)
    inside = (rows.dose < 0.6) | (rows.dose >= 0.8)
    rows = rows.take(inside | (rows.treatment != 1))
    made = drnet.plan(model, DRNetSettings(propensity=BRIEF), rows)
    counts = stratum_counts(model, rows)
    assert counts[0].tolist() == [int((rows.treatment == 0).sum()), 0, 0, 0, 0]
    assert counts[1, 3] == 0
    assert (counts[1] > 0).sum() == 4
    assert model.answering.tolist() == [[0, 0, 0, 0, 0], [0, 1, 2, 2, 4], [0, 1, 2, 3, 4]]
    made.stages[-1].phases[0].loss(rows).backward()
    for head in model.heads:
        assert head.kernel.grad is not None  # type: ignore[union-attr]
        assert not head.kernel.grad[1, 3].any()  # type: ignore[union-attr, index]
        assert head.kernel.grad[1, 2].any()  # type: ignore[union-attr, index]
        assert head.kernel.grad[2, 3].any()  # type: ignore[union-attr, index]


def test_matching_takes_the_nearest_in_propensity_of_every_other_arm() -> None:
    model: DRNet = build(DRNet, SMALL_DRNET).eval()
    train, batch = random_rows(60), random_rows(10, seed=1)
    matches = NearestInPropensity(model, train)(batch)
    chances = torch.softmax(model.propensity_logits(batch.inputs), -1).detach().numpy()
    known = torch.softmax(model.propensity_logits(train.inputs), -1).detach().numpy()
    assert len(matches) == 3
    for arm, (match, weight) in enumerate(matches):
        candidates = np.flatnonzero(train.treatment.numpy() == arm)
        nearest = candidates[np.abs(chances[:, arm, None] - known[None, candidates, arm]).argmin(1)]
        assert torch.equal(match.outcome, train.outcome[torch.from_numpy(nearest)])
        assert weight.tolist() == (batch.treatment != arm).float().tolist()


def test_matching_without_a_propensity_is_refused() -> None:
    config = replace(SMALL_DRNET, treatments=("control", "dose"), dosed=("dose",), reference_dose=0.0)
    with pytest.raises(ValueError, match="balance 'matching' needs a propensity"):
        drnet.plan(build(DRNet, config), DRNetSettings(balance="matching"), random_rows(6, arms=2))


@pytest.mark.parametrize("balance", ["none", "matching", "wasserstein", "mmd"])
@pytest.mark.parametrize("dropout", [False, True])
def test_variants_of_drnet_learn_and_leave_the_propensity_alone(balance: Any, dropout: bool) -> None:
    model: DRNet = build(DRNet, replace(SMALL_DRNET, propensity_dropout=dropout))
    rows = random_rows(60)
    made = drnet.plan(model, DRNetSettings(balance=balance, epochs=12, learning_rate=1e-2, propensity=BRIEF), rows)
    assert [stage.name for stage in made.stages] == ["propensity", "outcomes"]
    held = {id(p) for p in (*model.propensity.parameters(), *model.propensity_encoder.parameters())}
    assert {id(p) for p in made.stages[1].phases[0].parameters} == {id(p) for p in model.parameters()} - held
    validation = made.stages[1].validation
    assert validation is not None
    before = float(validation(rows).detach())
    report = fit_plan(model, made, rows, rows, seed=0)
    assert report.stages[1].best is not None
    assert report.stages[1].best < 0.9 * before


def simulated_doses(
    count: int, seed: int, curve: Callable[[Tensor], Tensor]
) -> tuple[UpliftRows, Callable[..., Tensor]]:
    """y = f(s) + x1 + noise with a dose that rises with x1: the mean outcome by dose is far from f."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=draw)
    dose = torch.sigmoid(x[:, 0] + torch.randn(count, generator=draw))
    outcome = curve(dose) + x[:, 0] + 0.2 * torch.randn(count, generator=draw)
    return rows_of(x, torch.ones(count, dtype=torch.int64), dose, outcome), curve


@pytest.mark.parametrize("shape", ["sine", "quadratic"])
@pytest.mark.parametrize("name", ["vcnet", "drnet"])
def test_the_curve_of_a_confounded_dose_is_found(name: str, shape: str) -> None:
    def sine(s: Tensor) -> Tensor:
        return torch.sin(2 * torch.pi * s)

    def quadratic(s: Tensor) -> Tensor:
        return 4 * (s - 0.4) ** 2

    rows, curve = simulated_doses(800, 0, sine if shape == "sine" else quadratic)
    valid, _ = simulated_doses(200, 1, curve)
    shared = {"layout": LAYOUT, "treatments": ("control", "dose"), "reference_dose": 0.0}
    grid = torch.linspace(0.1, 0.9, 33)
    if name == "vcnet":
        model = build(VCNet, VCNetConfig(**shared))  # type: ignore[arg-type]
        made = vcnet.plan(model, VCNetSettings(epochs=60), rows)
    else:
        model = build(DRNet, DRNetConfig(**shared))  # type: ignore[arg-type]
        made = drnet.plan(model, DRNetSettings(epochs=60, learning_rate=3e-3), rows)
    fit_plan(model, made, rows, valid, seed=0)
    with torch.no_grad():
        mean = model(*valid.inputs, torch.zeros(200, 2), grid)[2][:, 1].mean(0)
    truth = curve(grid) + valid.inputs[1][:, 0].mean()
    nearby = torch.stack([rows.outcome[(rows.dose - s).abs() < 0.05].mean() for s in grid])
    naive = (nearby - nearby.mean() - (curve(grid) - curve(grid).mean())).square().mean()
    assert naive > 0.2
    assert (mean - truth).square().mean() < 0.02


def test_dcn_pd_finds_a_confounded_effect() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1200, 3, generator=draw)
    treatment = (torch.rand(1200, generator=draw) < torch.sigmoid(x[:, 0])).long()
    outcome = 2 * x[:, 0] + treatment * (1 + x[:, 1]) + 0.2 * torch.randn(1200, generator=draw)
    rows = rows_of(x, treatment, torch.zeros(1200), outcome)
    naive = float(outcome[treatment == 1].mean() - outcome[treatment == 0].mean())
    assert naive > 2.0
    config = replace(UPLIFT_CATALOG["dcn_pd"].tiny(), layout=LAYOUT, treatments=("control", "mail"))
    model = build(DCNPD, replace(config, shared_layers=(64,), head_layers=(32,), activation="elu"))
    settings = DCNPDSettings(epochs=160, learning_rate=3e-3, propensity=PropensitySchedule(epochs=20))
    fit_plan(
        model,
        dcn_pd.plan(model, settings, rows),
        rows.take(torch.arange(1000)),
        rows.take(torch.arange(1000, 1200)),
        seed=0,
    )
    with torch.no_grad():
        mu = model(*rows.inputs)[0]
    effect = mu[:, 1] - mu[:, 0]
    assert float(effect.mean()) == pytest.approx(1 + float(x[:, 1].mean()), abs=0.1)
    assert (effect - 1 - x[:, 1]).square().mean() < 0.1

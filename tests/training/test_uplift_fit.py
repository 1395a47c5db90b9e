"""Carrying out plans: turns, freezing, patience, the weights that are kept, and the same weights from the same seed."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.errors import Diverged
from training.uplift.fit import fit_plan
from training.uplift.plan import Phase, Plan, Stage
from training.uplift.rows import UpliftRows
from training.uplift.standing import FitReport, State


class TwoHeads(nn.Module):
    """A shared layer with dropout and one head an arm, over the users' numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 4)
        self.dropout = nn.Dropout(0.2)
        self.heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])

    def forward(self, numbers: Tensor) -> Tensor:
        hidden = self.dropout(torch.relu(self.trunk(numbers)))
        return torch.cat([head(hidden) for head in self.heads], dim=1)


def rows(count: int, seed: int = 0) -> UpliftRows:
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.randn(count, 3, generator=draw)
    treatment = torch.randint(0, 2, (count,), generator=draw)
    noise = 0.1 * torch.randn(count, generator=draw)
    return UpliftRows(
        inputs=(numbers,),
        treatment=treatment,
        dose=torch.zeros(count),
        outcome=numbers[:, 0] + treatment + noise,
        weight=torch.ones(count),
        environment=torch.zeros(count, dtype=torch.int64),
    )


def network(seed: int = 0) -> TwoHeads:
    torch.manual_seed(seed)
    return TwoHeads()


def factual(model: nn.Module) -> Callable[[UpliftRows], Tensor]:
    def loss(batch: UpliftRows) -> Tensor:
        mu: Tensor = model(*batch.inputs)
        return ((mu.gather(1, batch.treatment[:, None])[:, 0] - batch.outcome) ** 2).mean()

    return loss


def everything(model: nn.Module, **changes: Any) -> Phase:
    return replace(Phase(name="all", parameters=tuple(model.parameters()), loss=factual(model)), **changes)


def one_stage(model: nn.Module, *phases: Phase, **changes: Any) -> Plan:
    stage = Stage(
        name="only", phases=phases or (everything(model),), validation=factual(model), epochs=3, batch_size=16
    )
    return Plan((replace(stage, **changes),))


def arms_in_turn(model: TwoHeads, weight_decay: float = 0.0) -> tuple[Phase, ...]:
    return tuple(
        Phase(
            name=f"arm {arm}",
            parameters=(*model.trunk.parameters(), *model.heads[arm].parameters()),
            loss=factual(model),
            arm=arm,
            weight_decay=weight_decay,
        )
        for arm in (0, 1)
    )


def weights(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


class Kept:
    """A checkpoint in memory that ends the fit after so many saves."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.saves = after, 0
        self.held: State | None = None

    def restore(self) -> State | None:
        return self.held

    def save(self, step: int, state: Callable[[], State]) -> None:
        self.saves += 1
        self.held = copy.deepcopy(state())
        if self.saves == self.after:
            raise InterruptedError


def test_learns_the_arms_from_factual_rows_alone() -> None:
    model = network()
    report = fit_plan(model, one_stage(model, epochs=200, patience=0), rows(400), rows(100, 1), seed=0)
    with torch.no_grad():
        mu = model(*rows(1000, 2).inputs)
    assert abs(float((mu[:, 1] - mu[:, 0]).mean()) - 1.0) < 0.1
    assert report.stages[0].epochs == 200
    assert report.steps == 200 * 25


def test_same_seed_same_weights_whatever_torch_drew_before() -> None:
    first, second, other = network(), network(), network()
    fit_plan(first, one_stage(first), rows(50), rows(20, 1), seed=3)
    torch.rand(17)
    before = torch.get_rng_state()
    fit_plan(second, one_stage(second), rows(50), rows(20, 1), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    fit_plan(other, one_stage(other), rows(50), rows(20, 1), seed=4)
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("by", ["epoch", "step"])
def test_a_phase_moves_its_own_parameters_only(weight_decay: float, by: Any) -> None:
    model = network()
    seen: list[tuple[str, dict[str, bytes]]] = []

    def noting(phase: Phase) -> Phase:
        def loss(batch: UpliftRows) -> Tensor:
            seen.append((phase.name, weights(model)))
            assert set(batch.treatment.tolist()) == {phase.arm}
            return phase.loss(batch)

        return replace(phase, loss=loss)

    phases = tuple(noting(phase) for phase in arms_in_turn(model, weight_decay))
    fit_plan(model, one_stage(model, *phases, epochs=6, by=by, validation=None), rows(60), rows(20, 1), seed=0)
    moved = {"arm 0": set[str](), "arm 1": set[str]()}
    for (name, before), (_, after) in itertools.pairwise(seen):
        moved[name] |= {key for key in before if before[key] != after[key]}
    trunk = {"trunk.weight", "trunk.bias"}
    assert moved["arm 0"] == trunk | {"heads.0.weight", "heads.0.bias"}
    assert moved["arm 1"] == trunk | {"heads.1.weight", "heads.1.bias"}


def test_turns_by_epoch_and_by_step() -> None:
    model = network()
    order: list[str] = []

    def noting(phase: Phase) -> Phase:
        def loss(batch: UpliftRows) -> Tensor:
            order.append(phase.name)
            return phase.loss(batch)

        return replace(phase, loss=loss)

    phases = tuple(noting(phase) for phase in arms_in_turn(model))
    data = rows(40)
    counts = data.counts(2).tolist()
    fit_plan(model, one_stage(model, *phases, epochs=4, validation=None), data, rows(9, 1), seed=0)
    steps = [-(-count // 16) for count in counts]
    assert order == (["arm 0"] * steps[0] + ["arm 1"] * steps[1]) * 2
    order.clear()
    fit_plan(model, one_stage(model, *phases, epochs=2, by="step", validation=None), data, rows(9, 1), seed=0)
    assert order == ["arm 0", "arm 1"] * 3 * 2


def test_validation_waits_for_the_end_of_a_cycle_and_no_cycle_is_left_half_done() -> None:
    model = network()
    lines: list[Mapping[str, Any]] = []
    plan = one_stage(model, *arms_in_turn(model), epochs=5)
    report = fit_plan(model, plan, rows(40), rows(20, 1), seed=0, log=lines.append)
    assert [line["epoch"] for line in lines if line["kind"] == "validation"] == [2, 4]
    assert report.stages[0].epochs == 4


class Scripted:
    """A validation loss that says what it was told to, whatever the weights are."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __call__(self, batch: UpliftRows) -> Tensor:
        return torch.tensor(self.values.pop(0))


def test_patience_ends_the_stage_and_the_best_weights_come_back() -> None:
    model = network()
    history: list[dict[str, bytes]] = []
    script = Scripted(5.0, 3.0, 4.0, 3.0, 9.0, 9.0)

    def validation(batch: UpliftRows) -> Tensor:
        history.append(weights(model))
        return script(batch)

    report = fit_plan(
        model, one_stage(model, epochs=50, patience=3, validation=validation), rows(40), rows(9, 1), seed=0
    )
    assert (report.stages[0].epochs, report.stages[0].best_epoch, report.stages[0].best) == (5, 2, 3.0)
    assert report.stages[0].stopped_early
    assert weights(model) == history[1]


def test_the_last_weights_stay_where_nothing_is_validated() -> None:
    model, validated = network(), network()
    report = fit_plan(model, one_stage(model, validation=None), rows(40), rows(9, 1), seed=0)
    plan = one_stage(validated, validation=Scripted(3.0, 2.0, 1.0))
    fit_plan(validated, plan, rows(40), rows(9, 1), seed=0)
    assert weights(model) == weights(validated)
    assert (report.stages[0].best, report.stages[0].best_epoch) == (None, 3)


def test_plateau_halves_the_learning_rate() -> None:
    model = network()
    lines: list[Mapping[str, Any]] = []
    script = Scripted(1.0, 2.0, 2.0, 0.5, 2.0, 2.0, 2.0, 2.0)
    plan = one_stage(model, epochs=8, patience=0, schedule="plateau", plateau=2, validation=script)
    fit_plan(model, plan, rows(40), rows(9, 1), seed=0, log=lines.append)
    rates = [line["learning_rate"] / 1e-3 for line in lines if line["kind"] == "epoch"]
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_parameters_outside_the_network_are_trained_and_restored() -> None:
    model, shift = network(), nn.Parameter(torch.zeros(1))
    history: list[float] = []
    script = Scripted(2.0, 1.0, 3.0)

    def loss(batch: UpliftRows) -> Tensor:
        return factual(model)(batch) + (shift - 1.0).square().sum()

    def validation(batch: UpliftRows) -> Tensor:
        history.append(float(shift.detach()))
        return script(batch)

    phases = (
        Phase(name="all", parameters=tuple(model.parameters()), loss=loss),
        Phase(name="shift", parameters=(shift,), loss=loss, optimizer="sgd", momentum=0.9, learning_rate=0.01),
    )
    fit_plan(model, one_stage(model, *phases, by="step", validation=validation), rows(40), rows(9, 1), seed=0)
    assert history[0] < history[1] < history[2] < 1.0
    assert float(shift.detach()) == history[1]


def two_stages(model: TwoHeads) -> Plan:
    first = Stage(
        name="arms", phases=arms_in_turn(model), validation=factual(model), epochs=4, batch_size=16, patience=2
    )
    second = Stage(
        name="finish",
        phases=(everything(model, optimizer="sgd", momentum=0.9),),
        validation=factual(model),
        epochs=4,
        batch_size=0,
        schedule="plateau",
        plateau=1,
    )
    return Plan((first, second))


@pytest.mark.parametrize("after", range(1, 8))
def test_going_on_after_any_epoch_ends_with_the_same_weights(after: int) -> None:
    whole, cut = network(), network()
    lines: list[Mapping[str, Any]] = []
    fit_plan(whole, two_stages(whole), rows(50), rows(20, 1), seed=5)
    kept = Kept(after)
    with pytest.raises(InterruptedError):
        fit_plan(cut, two_stages(cut), rows(50), rows(20, 1), seed=5, log=lines.append, checkpoint=kept)
    fresh = network(99)
    report = fit_plan(fresh, two_stages(fresh), rows(50), rows(20, 1), seed=5, log=lines.append, checkpoint=kept)
    assert weights(fresh) == weights(whole)
    assert [stage.name for stage in report.stages] == ["arms", "finish"]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)


class Rising:
    """A loss that counts its calls for more every time."""

    def __init__(self, loss: Callable[[UpliftRows], Tensor]) -> None:
        self.loss, self.calls = loss, 0

    def __call__(self, batch: UpliftRows) -> Tensor:
        self.calls += 1
        return self.loss(batch) * (1 + self.calls)

    def state_dict(self) -> State:
        return {"calls": self.calls}

    def load_state_dict(self, state: State) -> None:
        self.calls = state["calls"]


def test_going_on_finds_the_state_of_a_loss_again() -> None:
    def plan(model: TwoHeads) -> Plan:
        return one_stage(model, everything(model, loss=Rising(factual(model)), optimizer="sgd"), epochs=4)

    whole, cut, fresh = network(), network(), network(99)
    fit_plan(whole, plan(whole), rows(50), rows(20, 1), seed=5)
    kept = Kept(2)
    with pytest.raises(InterruptedError):
        fit_plan(cut, plan(cut), rows(50), rows(20, 1), seed=5, checkpoint=kept)
    fit_plan(fresh, plan(fresh), rows(50), rows(20, 1), seed=5, checkpoint=kept)
    assert weights(fresh) == weights(whole)


def test_every_batch_holds_rows_of_every_environment() -> None:
    model = network()
    data = rows(60)
    data = replace(data, environment=(torch.arange(60) < 6).to(torch.int64))
    seen: list[set[int]] = []

    def loss(batch: UpliftRows) -> Tensor:
        seen.append(set(batch.environment.tolist()))
        return factual(model)(batch)

    fit_plan(model, one_stage(model, everything(model, loss=loss), epochs=3), data, rows(9, 1), seed=0)
    assert seen == [{0, 1}] * len(seen)
    assert len(seen) == 3 * 4


def test_the_network_is_left_ready_and_its_flags_as_they_were() -> None:
    model = network()
    model.heads[0].bias.requires_grad_(False)
    fit_plan(model, one_stage(model, *arms_in_turn(model)), rows(40), rows(9, 1), seed=0)
    assert not model.training
    assert not model.heads[0].bias.requires_grad
    assert model.heads[1].bias.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("by", ["epoch", "step"])
def test_an_arm_without_rows_is_passed_over(by: Any) -> None:
    model = network()
    data = rows(40)
    controls = data.arm(0)
    before = weights(model)
    fit_plan(model, one_stage(model, *arms_in_turn(model), by=by, validation=None), controls, rows(9, 1), seed=0)
    after = weights(model)
    assert before["heads.1.weight"] == after["heads.1.weight"]
    assert before["heads.0.weight"] != after["heads.0.weight"]


def test_a_loss_without_a_gradient_changes_nothing() -> None:
    model = network()
    before = weights(model)
    constant = everything(model, loss=lambda batch: torch.zeros(()), weight_decay=0.1)
    fit_plan(model, one_stage(model, constant, validation=None), rows(40), rows(9, 1), seed=0)
    assert weights(model) == before


@pytest.mark.parametrize("count", [1, 2, 17])
def test_few_rows(count: int) -> None:
    model = network()
    assert fit_plan(model, one_stage(model), rows(count), rows(1, 1), seed=0).stages[0].epochs == 3


def test_divergence_is_said_with_its_place() -> None:
    model = network()
    nan = everything(model, loss=lambda batch: factual(model)(batch) * torch.nan)
    with pytest.raises(Diverged, match="stage only, phase all is nan in epoch 1"):
        fit_plan(model, one_stage(model, nan), rows(40), rows(9, 1), seed=0)
    plan = one_stage(model, validation=Scripted(1.0, torch.inf))
    with pytest.raises(Diverged, match="validation loss of stage only is inf after epoch 2"):
        fit_plan(model, plan, rows(40), rows(9, 1), seed=0)


def test_plans_that_cannot_be_carried_out() -> None:
    model = network()
    for changes, message in (
        ({"phases": ()}, "must have phases"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"batch_size": -1}, "batch_size >= 0"),
        ({"plateau": 0}, "plateau >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_plan(model, one_stage(model, **changes), rows(40), rows(9, 1), seed=0)
    with pytest.raises(ValueError, match="needs training rows"):
        fit_plan(model, one_stage(model), rows(0), rows(9, 1), seed=0)
    with pytest.raises(ValueError, match="needs validation rows"):
        fit_plan(model, one_stage(model), rows(9), rows(0, 1), seed=0)


def test_the_gradient_is_clipped() -> None:
    model, clipped = network(), network()
    loud = everything(model, loss=lambda batch: 1e4 * factual(model)(batch), optimizer="sgd", learning_rate=1.0)
    with pytest.raises(Diverged):
        fit_plan(model, one_stage(model, loud, epochs=30), rows(40), rows(9, 1), seed=0)
    tamed = replace(loud, parameters=tuple(clipped.parameters()), loss=lambda b: 1e4 * factual(clipped)(b))
    report: FitReport = fit_plan(
        clipped, one_stage(clipped, tamed, epochs=30, gradient_clip=0.01), rows(40), rows(9, 1), seed=0
    )
    assert report.stages[0].epochs > 0

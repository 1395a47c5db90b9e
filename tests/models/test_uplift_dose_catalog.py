"""Every network with doses against every promise."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.catalog import UPLIFT_CATALOG
from models.uplift.inputs import output_names
from tests.models.uplift_dose_examples import CASES, dose_inputs, network, onnx_runner
from training.graph.torchscript import export_torchscript, load_torchscript

NETWORKS = sorted(CASES)
LIMIT = 1e-5


def factual(model: nn.Module, inputs: tuple[Tensor, ...], treatment: Tensor, dose: Tensor) -> Tensor:
    """The outcome that training looks at."""
    if hasattr(model, "received_outcome"):
        outcome: Tensor = model.received_outcome(inputs[:5], treatment, dose)[0]
        return outcome
    outputs = model.training_outputs(inputs[:5], dose.unsqueeze(1).expand(-1, model.treatments))
    return outputs.outcome.gather(1, treatment.unsqueeze(1)).squeeze(1)


@pytest.mark.parametrize("name", NETWORKS)
def test_configs_round_trip(name: str) -> None:
    config = CASES[name][1]
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vcnet", {"dosed": ("control",)}, "dosed must name treatments among"),
        ("vcnet", {"dosed": ("tea",)}, "got 'tea'"),
        ("drnet", {"reference_dose": 0.0}, "reference_dose must come with the control and one treatment"),
        ("vcnet-referenced", {"reference_dose": 1.5}, "reference_dose must be scaled to"),
        ("vcnet", {"basis": "fourier"}, "basis must be one of b_spline, truncated_power"),
        ("vcnet", {"trunk_layers": ()}, "trunk_layers must not be empty"),
        ("vcnet", {"trunk_layers": (4, 0)}, "widths be positive"),
        ("drnet", {"gamma": 0.0}, "gamma must be in"),
        ("drnet", {"entropy_base": 1.0}, "entropy_base must be above 1"),
        ("drnet-referenced", {"propensity_dropout": True}, "propensity_dropout must be off with a reference_dose"),
    ],
)
def test_an_unfit_option_is_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CASES[name][1], **change)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vcnet", {"degree": 0}, "degree must be at least 1"),
        ("vcnet", {"knots": (0.5, 0.5)}, "knots must rise inside"),
        ("vcnet", {"knots": (0.5, 1.0), "basis": "truncated_power"}, "knots must rise inside"),
        ("vcnet", {"density_bins": 0}, "bins must be at least 1"),
        ("drnet", {"strata": 0}, "strata must be at least 1"),
    ],
)
def test_an_unfit_part_is_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UPLIFT_CATALOG[name].model(replace(CASES[name][1], **change))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("users", "grid", "steps"), [(1, 2, 1), (7, 21, 3), (0, 3, 2), (3, 5, 0)])
def test_outputs_have_the_shapes_of_their_names(name: str, users: int, grid: int, steps: int) -> None:
    config, model = network(name)
    outputs = model(*dose_inputs(config, users, grid, steps))
    names = output_names(config.outcome, doses=True, density=config.density)
    arms = len(config.treatments)
    assert len(outputs) == len(names)
    for output, its in zip(outputs, names, strict=True):
        along = its.startswith(("curve", "dose"))
        assert output.shape == ((users, arms, grid) if along else (users, arms))
        assert output.dtype == torch.float32
        assert torch.isfinite(output).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_curve_at_a_dose_is_the_outcome_at_it(name: str) -> None:
    config, model = network(name)
    inputs = dose_inputs(config, 5, 11)
    for point, dose in enumerate(inputs[6]):
        outcome, _, curve, *_ = model(*inputs[:5], torch.full((5, len(config.treatments)), float(dose)), inputs[6])
        torch.testing.assert_close(curve[:, :, point], outcome, rtol=0, atol=3e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_treatment_without_a_dose_does_not_look_at_one(name: str) -> None:
    config, model = network(name)
    inputs = dose_inputs(config, 4, 9)
    other = (*inputs[:5], torch.rand_like(inputs[5]), inputs[6])
    for arm, treatment in enumerate(config.treatments):
        spread = model(*inputs)[2][:, arm].std(-1).max()
        moved = (model(*inputs)[0][:, arm] - model(*other)[0][:, arm]).abs().max()
        if treatment in config.dosed:
            assert min(spread, moved) > 1e-3
        else:
            assert max(spread, moved) == 0


@pytest.mark.parametrize("name", ["drnet-referenced", "vcnet-referenced"])
def test_the_control_is_the_curve_at_the_reference_dose(name: str) -> None:
    config, model = network(name)
    inputs = dose_inputs(config, 6, 5)  # the grid's second point is the reference dose, 0.25
    outcome, logits, curve, *_ = model(*inputs)
    torch.testing.assert_close(outcome[:, 0], curve[:, 1, 1], rtol=0, atol=1e-6)
    torch.testing.assert_close(curve[:, 0], outcome[:, :1].expand(-1, 5), rtol=0, atol=0)
    assert config.propensity == "none"
    assert logits.abs().max() == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_training_sees_what_the_graph_answers(name: str) -> None:
    config, model = network(name)
    inputs = dose_inputs(config, 12, 3)
    treatment = torch.arange(12) % len(config.treatments)
    expected = model(*inputs)[0].gather(1, treatment.unsqueeze(1)).squeeze(1)
    actual = factual(model, inputs, treatment, inputs[5].gather(1, treatment.unsqueeze(1)).squeeze(1))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    config, model = network(name)
    inputs = dose_inputs(config, 40, 9)
    outputs = list(model.train()(*inputs))
    if hasattr(model, "training_outputs"):
        outputs.extend(model.training_outputs(inputs[:5], inputs[5]))
    draw = torch.Generator().manual_seed(0)
    parts = [(part * torch.randn(part.shape, generator=draw)).sum() for part in outputs if part.requires_grad]
    torch.stack(parts).sum().backward()
    for key, parameter in model.named_parameters():
        if config.propensity == "none" and key.startswith("propensity_encoder"):
            continue
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", [name for name in NETWORKS if "dropout" not in name])
def test_network_overfits_eight_rows(name: str) -> None:
    build, config = CASES[name]
    torch.manual_seed(0)
    model = build(config).train()
    inputs = dose_inputs(config, 8, 2, steps=6, seed=2)
    outcome = torch.tensor([0.0, 1, 1, 0, 1, 0, 0, 1])
    treatment = torch.arange(8) % len(config.treatments)
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(250):
        mu = factual(model, inputs, treatment, inputs[5][:, 1])
        if config.outcome == "binary":
            loss = nn.functional.binary_cross_entropy_with_logits(mu, outcome)
        else:
            loss = (mu - outcome).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.05


@pytest.mark.parametrize("name", NETWORKS)
def test_same_seed_same_weights_and_state_survives(name: str) -> None:
    build, config = CASES[name]
    models = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        models.append(build(config).eval())
    first, second, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    models[2].load_state_dict(first)
    inputs = dose_inputs(config, 4, 5)
    assert all(torch.equal(mine, its) for mine, its in zip(models[2](*inputs), models[0](*inputs), strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_user_alone_equals_that_user_in_a_batch(name: str) -> None:
    config, model = network(name)
    inputs = dose_inputs(config, 5, 6)
    with torch.no_grad():
        whole = model(*inputs)
        assert whole[0].std(0).min() > 0.01
        for user in range(5):
            alone = model(*[tensor[user : user + 1] for tensor in inputs[:6]], inputs[6])
            for one, many in zip(alone, whole, strict=True):
                torch.testing.assert_close(one, many[user : user + 1], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("engine", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_give_the_outputs_of_the_network(name: str, engine: str, tmp_path: Path) -> None:
    config, model = network(name)
    if engine == "onnx":
        run: Callable[..., Any] = onnx_runner(model, config, tmp_path / "model.onnx")
    else:
        export_torchscript(model, tmp_path / "model.ts")
        run = load_torchscript(tmp_path / "model.ts")
    for users in (1, 7, 1024):
        for grid in (2, 21, 201):
            inputs = dose_inputs(config, users, grid, seed=users)
            with torch.no_grad():
                for actual, expected in zip(run(*inputs), model(*inputs), strict=True):
                    torch.testing.assert_close(actual, expected, rtol=0, atol=LIMIT)

"""Every uplift network without doses against every promise."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models.catalog import CATALOG, UPLIFT_CATALOG
from models.uplift.inputs import INPUT_NAMES, output_names
from tests.models.uplift_examples import CASES, lively_uplift, random_users
from training.graph.torchscript import export_torchscript, load_torchscript
from training.graph.upstream_noise import silenced

NETWORKS = sorted(CASES)
LIMIT = 1e-5


def network(name: str) -> tuple[Any, nn.Module]:
    build, config = CASES[name]
    return config, lively_uplift(build, config)


def outcomes_in_training(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """What the factual loss sees: of a DR-learner every fold's outcomes, one below the other."""
    if not hasattr(model, "training_outputs"):
        return model(*inputs)[0]
    return model.training_outputs(*inputs).outcome


@pytest.mark.parametrize("name", sorted(UPLIFT_CATALOG))
def test_tiny_configs_round_trip_and_name_the_bad_key(name: str) -> None:
    entry = UPLIFT_CATALOG[name]
    config = entry.tiny()
    values = json.loads(json.dumps(config.to_dict()))
    assert entry.config.from_dict(values) == config
    for change, key in (
        ({"no_such": 1}, "no_such"),
        ({"treatments": ["control"]}, "treatments"),
        ({"treatments": ["control", "control"]}, "treatments"),
        ({"outcome": "ordinal"}, "outcome"),
        ({"layout": {}}, "layout"),
        ({"layout": CATALOG["din"].tiny().layout.to_dict()}, "candidate"),
    ):
        with pytest.raises(ValueError, match=key):
            entry.config.from_dict({**values, **change})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tarnet", {"heads": "both"}, "heads must be one of separate, offset"),
        ("tarnet", {"propensity": "known"}, "propensity must be estimated or none"),
        ("t_learner", {"propensity": "known"}, "propensity must be estimated or none"),
        ("dragonnet", {"effects": "both"}, "effects must be plug_in or targeted"),
        ("dragonnet", {"kernel_std": -1.0}, "kernel_std must not be negative"),
        ("dr_learner", {"folds": 0}, "folds must be at least 1"),
    ],
)
def test_an_unfit_option_is_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(UPLIFT_CATALOG[name].tiny(), **change)


def test_an_s_learner_without_hidden_layers_is_refused() -> None:
    entry = UPLIFT_CATALOG["s_learner"]
    with pytest.raises(ValueError, match="hidden_layers of an S-learner must name at least one layer"):
        entry.model(replace(entry.tiny(), hidden_layers=()))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("users", "steps"), [(1, 1), (1, 3), (7, 5), (0, 3), (2, 0)])
def test_outputs_have_one_column_a_treatment(name: str, users: int, steps: int) -> None:
    config, model = network(name)
    inputs = random_users(config.layout, users, steps)
    for training in (False, True):
        outputs = model.train(training)(*inputs)
        assert isinstance(outputs, tuple)
        assert len(outputs) == len(output_names(config.outcome, doses=config.doses, density=config.density))
        for output in outputs:
            assert output.shape == (users, len(config.treatments))
            assert output.dtype == torch.float32
            assert torch.isfinite(output).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    config, model = network(name)
    inputs = random_users(config.layout, 12, 6, seed=4)
    found = model.train().training_outputs(*inputs) if hasattr(model, "training_outputs") else model(*inputs)
    generator = torch.Generator().manual_seed(0)
    parts = [(part * torch.randn(part.shape, generator=generator)).sum() for part in found if part.requires_grad]
    torch.stack(parts).sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", [name for name in NETWORKS if "linear" not in name])
def test_network_overfits_eight_rows(name: str) -> None:
    build, config = CASES[name]
    torch.manual_seed(0)
    model = build(replace(config, dropout=0.0) if hasattr(config, "dropout") else config).train()
    inputs = random_users(config.layout, 8, 6, seed=2, lengths=[6, 5, 4, 3, 2, 1, 6, 0])
    outcome = torch.tensor([0.0, 1, 1, 0, 1, 0, 0, 1])
    treatment = (torch.arange(8) % len(config.treatments)).unsqueeze(1)
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(150):
        mu = outcomes_in_training(model, inputs).reshape(-1, 8, len(config.treatments))
        factual = mu.gather(2, treatment.expand(len(mu), -1, -1))[..., 0]
        if config.outcome == "binary":
            loss = nn.functional.binary_cross_entropy_with_logits(factual, outcome.expand_as(factual))
        else:
            loss = (factual - outcome).square().mean()
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
    inputs = random_users(config.layout, 4, 4)
    assert all(torch.equal(mine, its) for mine, its in zip(models[2](*inputs), models[0](*inputs), strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_user_alone_equals_that_user_in_a_batch(name: str) -> None:
    config, model = network(name)
    inputs = random_users(config.layout, 5, 6)
    with torch.no_grad():
        whole = model(*inputs)
        assert whole[0].std(0).min() > 0.01
        for user in range(5):
            alone = model(*[tensor[user : user + 1] for tensor in inputs])
            for one, many in zip(alone, whole, strict=True):
                torch.testing.assert_close(one, many[user : user + 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_padding_columns_change_nothing(name: str) -> None:
    config, model = network(name)
    inputs = random_users(config.layout, 6, 5)
    ids, numbers, mask = inputs[2:]
    more = (ids.shape[0], 20)
    padded = (
        *inputs[:2],
        torch.cat([ids, torch.ones(*more, ids.shape[2], dtype=ids.dtype)], 1),
        torch.cat([numbers, torch.full((*more, numbers.shape[2]), 1e3)], 1),
        torch.cat([mask, torch.zeros(*more, mask.shape[2], dtype=torch.bool)], 1),
    )
    with torch.no_grad():
        for with_padding, plain in zip(model(*padded), model(*inputs), strict=True):
            torch.testing.assert_close(with_padding, plain, rtol=0, atol=1e-6)


def onnx_runner(model: nn.Module, config: Any, path: Path) -> Callable[..., list[Tensor]]:
    users, steps = torch.export.Dim("U"), torch.export.Dim("T")
    outputs = list(output_names(config.outcome, doses=False))
    with silenced(), torch.no_grad():
        program = torch.onnx.export(
            model,
            random_users(config.layout, 2, 7),
            dynamo=True,
            input_names=list(INPUT_NAMES),
            output_names=outputs,
            dynamic_shapes=({0: users}, {0: users}, *[{0: users, 1: steps}] * 3),
            opset_version=18,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path))
    assert [entry.name for entry in session.get_outputs()] == outputs

    def run(*inputs: Tensor) -> list[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(INPUT_NAMES, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, feed)]

    return run


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
        inputs = random_users(config.layout, users, 4, seed=users)
        with torch.no_grad():
            for actual, expected in zip(run(*inputs), model(*inputs), strict=True):
                torch.testing.assert_close(actual, expected, rtol=0, atol=LIMIT)

"""DCN-PD: the drop probability, the masks, what sampling repeats, how wide it spreads, and the exported graphs."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models.catalog import UPLIFT_CATALOG
from models.inputs import InputLayout, NumberField
from models.uplift.dcn_pd import DCNPD, DCNPDConfig
from models.uplift.inputs import INPUT_NAMES, output_names
from models.uplift.propensity_dropout import LARGEST_DROP, drop_probability
from tests.models.uplift_examples import lively_uplift, random_users
from training.graph.torchscript import export_torchscript, load_torchscript
from training.graph.upstream_noise import silenced

TINY: Final[DCNPDConfig] = UPLIFT_CATALOG["dcn_pd"].tiny()
NUMBERS: Final = InputLayout(user_numbers=(NumberField(name="x", column=0), NumberField(name="z", column=1)))


def lively(config: DCNPDConfig = TINY) -> DCNPD:
    model = lively_uplift(DCNPD, config)
    assert isinstance(model, DCNPD)
    return model


def two_arms(p: float) -> Tensor:
    return torch.tensor([1.0 - p, p])


def number_users(x: Tensor) -> tuple[Tensor, ...]:
    count = len(x)
    return (
        torch.zeros(count, 0, dtype=torch.int64),
        torch.stack([x, torch.ones_like(x)], 1),
        torch.zeros(count, 0, 0, dtype=torch.int64),
        torch.zeros(count, 0, 0),
        torch.zeros(count, 0, 1, dtype=torch.bool),
    )


@pytest.mark.parametrize(
    ("p", "gamma", "base", "expected"),
    [
        (0.5, 1.0, 2.0, 0.0),
        (0.0, 1.0, 2.0, 0.5),
        (1.0, 1.0, 2.0, 0.5),
        (0.25, 1.0, 2.0, 0.5 - 0.5 * (0.25 * 2 + 0.75 * math.log2(4 / 3))),
        (0.5, 0.8, 2.0, 0.1),
        (1.0, 0.8, 2.0, 0.6),
        (0.5, 1.0, math.e, 0.5 - 0.5 * math.log(2)),
        (1.0, 0.01, 2.0, LARGEST_DROP),
    ],
)
def test_drop_probability_by_hand(p: float, gamma: float, base: float, expected: float) -> None:
    assert float(drop_probability(two_arms(p), gamma, base)) == pytest.approx(expected, abs=1e-6)


def test_even_chances_of_four_arms_drop_nothing_and_certainty_a_half() -> None:
    assert float(drop_probability(torch.full((4,), 0.25), 1.0)) == pytest.approx(0.0, abs=1e-6)
    certain = torch.tensor([0.0, 0.0, 1.0, 0.0], requires_grad=True)
    drop = drop_probability(certain, 1.0)
    assert drop.item() == 0.5
    drop.backward()
    assert certain.grad is not None
    assert torch.isfinite(certain.grad).all()


@pytest.mark.parametrize(
    ("change", "message"), [({"gamma": 0.0}, "gamma must be in"), ({"entropy_base": 1}, "above 1")]
)
def test_an_unfit_option_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_configs_round_trip() -> None:
    assert DCNPDConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY


def masked(x: np.ndarray, layers: nn.Module, drop: np.ndarray, noise: np.ndarray) -> np.ndarray:
    start = 0
    for layer in layers.layers.dense:  # type: ignore[union-attr]
        x = np.maximum(x @ layer.kernel.detach().double().numpy() + layer.bias.detach().double().numpy(), 0)
        kept = noise[:, start : start + x.shape[1]] >= drop[:, None]
        x = np.where(kept, x / (1 - drop[:, None]), 0)
        start += x.shape[1]
    return x


def test_a_pass_equals_a_loop_in_numpy() -> None:
    model = lively()
    inputs = random_users(TINY.layout, 9, 4)
    noise = torch.rand(3, 9, model.noise_width, generator=torch.Generator().manual_seed(1))
    actual = model.sample(*inputs, noise)
    drop = drop_probability(torch.softmax(model(*inputs)[1], -1), 1.0).detach().double().numpy()
    assert drop.max() > 0.1
    users = model.encoder(*inputs).detach().double().numpy()
    for number in range(3):
        own = noise[number].double().numpy()
        shared = masked(users, model.shared, drop, own[:, :14])
        for arm in range(3):
            hidden = masked(shared, model.stacks[arm], drop, own[:, 14 + 5 * arm : 19 + 5 * arm])
            output = model.outputs[arm]
            expected = hidden @ output.kernel.detach().double().numpy() + output.bias.detach().double().numpy()
            np.testing.assert_allclose(actual[number, :, arm].detach().numpy(), expected[:, 0], atol=1e-5)


def test_the_same_noise_gives_the_same_pass_and_the_arms_share_the_first_mask() -> None:
    model = lively()
    with torch.no_grad():
        for arm in (1, 2):
            for mine, its in ((model.stacks[arm], model.stacks[0]), (model.outputs[arm], model.outputs[0])):
                mine.load_state_dict(its.state_dict())
    inputs = random_users(TINY.layout, 6, 4)
    noise = torch.rand(4, 6, model.noise_width)
    noise[..., 14:] = 0.999  # nothing is dropped in the arms' own layers
    sampled = model.sample(*inputs, noise)
    assert torch.equal(sampled, model.sample(*inputs, noise))
    assert sampled.std(0).max() > 1e-3
    assert (sampled - sampled[..., :1]).abs().max() < 1e-6


def linear_network(propensity_bias: float) -> DCNPD:
    """One number in, identity activations, nothing learned but random: dropout keeps the mean."""
    config = DCNPDConfig(layout=NUMBERS, shared_layers=(16, 16), head_layers=(16,), activation="linear")
    torch.manual_seed(3)
    model = DCNPD(config).eval()
    with torch.no_grad():
        model.propensity.output.kernel.zero_()  # type: ignore[union-attr, operator]
        model.propensity.output.bias.copy_(torch.tensor([0.0, propensity_bias]))  # type: ignore[union-attr, operator]
    return model


def test_the_mean_of_a_linear_network_is_the_deterministic_answer() -> None:
    model = linear_network(propensity_bias=-2.0)
    inputs = number_users(torch.linspace(-2.0, 2.0, 8))
    passes = 4000
    noise = torch.rand(passes, 8, model.noise_width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sampled = model.sample(*inputs, noise).double()
        exact = model(*inputs)[0].double()
    error = sampled.std(0) / passes**0.5
    assert error.min() > 0
    assert ((sampled.mean(0) - exact).abs() <= 3 * error).double().mean() >= 15 / 16


def test_the_spread_of_the_effect_grows_as_the_treatment_becomes_certain() -> None:
    inputs = number_users(torch.linspace(-2.0, 2.0, 8))
    widths = []
    for p in (0.5, 0.3, 0.1, 0.01):
        model = linear_network(math.log(p / (1 - p)))
        noise = torch.rand(500, 8, model.noise_width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            mu = model.sample(*inputs, noise)
        low, high = torch.quantile(mu[..., 1] - mu[..., 0], torch.tensor([0.025, 0.975]), dim=0)
        widths.append(float((high - low).mean()))
    assert widths[0] < 1e-5
    assert widths == sorted(widths)
    assert widths[1] > 0.01


def test_constant_propensity_drops_the_same_share_for_everybody() -> None:
    model = linear_network(propensity_bias=math.log(0.2 / 0.8))
    inputs = number_users(torch.linspace(-2.0, 2.0, 5))
    drop = drop_probability(torch.softmax(model.propensity_logits(inputs), -1), 1.0)
    entropy = -0.2 * math.log2(0.2) - 0.8 * math.log2(0.8)
    torch.testing.assert_close(drop, torch.full((5,), 0.5 - entropy / 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("users", "steps"), [(1, 1), (7, 3), (0, 2), (3, 0)])
def test_shapes(users: int, steps: int) -> None:
    model = lively()
    inputs = random_users(TINY.layout, users, steps)
    for training in (True, False):
        outcome, logits = model.train(training)(*inputs)
        assert outcome.shape == logits.shape == (users, 3)
        assert model.arm_outcome(inputs, 2).shape == (users,)
    assert model.sample(*inputs, torch.rand(5, users, model.noise_width)).shape == (5, users, 3)


def test_training_outcomes_are_dropped_and_evaluated_ones_are_not() -> None:
    model = lively()
    inputs = random_users(TINY.layout, 20, 4)
    torch.testing.assert_close(model.arm_outcome(inputs, 1), model(*inputs)[0][:, 1], rtol=0, atol=1e-6)
    model.train()
    torch.manual_seed(0)
    first = model.arm_outcome(inputs, 1)
    assert (first - model.arm_outcome(inputs, 1)).abs().max() > 1e-3
    first.sum().backward()
    assert all(parameter.grad is None for parameter in model.propensity.parameters())
    assert all(parameter.grad is None for parameter in model.stacks[0].parameters())
    assert all(parameter.grad is not None for parameter in model.stacks[1].parameters())


class Sampler(nn.Module):
    """The samples graph: noise is the sixth input."""

    def __init__(self, network: DCNPD) -> None:
        super().__init__()
        self.network = network

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, noise: Tensor) -> Tensor:
        return self.network.sample(a, b, c, d, e, noise)


def onnx_session(module: nn.Module, example: tuple[Tensor, ...], outputs: list[str], path: Path) -> Any:
    users, steps, passes = torch.export.Dim("U"), torch.export.Dim("T"), torch.export.Dim("M")
    axes: list[dict[int, Any]] = [{0: users}, {0: users}, *[{0: users, 1: steps}] * 3, {0: passes, 1: users}]
    with silenced(), torch.no_grad():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            input_names=[*INPUT_NAMES, "noise"][: len(example)],
            output_names=outputs,
            dynamic_shapes=tuple(axes[: len(example)]),
            opset_version=18,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    return onnxruntime.InferenceSession(str(path))


@pytest.mark.parametrize("engine", ["onnx", "torchscript"])
def test_graphs_give_the_outcomes_and_the_samples_of_the_network(engine: str, tmp_path: Path) -> None:
    model = lively()
    example = random_users(TINY.layout, 2, 7)
    noisy = (*example, torch.rand(5, 2, model.noise_width))
    whole: Callable[..., Any]
    drawn: Callable[..., Any]
    if engine == "onnx":
        outcomes = onnx_session(model, example, list(output_names("continuous", doses=False)), tmp_path / "a.onnx")
        samples = onnx_session(Sampler(model).eval(), noisy, ["samples"], tmp_path / "b.onnx")

        def run(session: Any, given: tuple[Tensor, ...]) -> list[Tensor]:
            feed = {name: t.numpy() for name, t in zip([*INPUT_NAMES, "noise"], given, strict=False)}
            return [torch.from_numpy(output) for output in session.run(None, feed)]

        whole, drawn = lambda *given: run(outcomes, given), lambda *given: run(samples, given)[0]
    else:
        export_torchscript(model, tmp_path / "a.ts")
        export_torchscript(Sampler(model).eval(), tmp_path / "b.ts")
        whole, drawn = load_torchscript(tmp_path / "a.ts"), load_torchscript(tmp_path / "b.ts")
    for users in (1, 7, 1024):
        inputs = random_users(TINY.layout, users, 4, seed=users)
        noise = torch.rand(3, users, model.noise_width, generator=torch.Generator().manual_seed(users))
        with torch.no_grad():
            for actual, expected in zip(whole(*inputs), model(*inputs), strict=True):
                torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
            torch.testing.assert_close(drawn(*inputs, noise), model.sample(*inputs, noise), rtol=0, atol=1e-5)

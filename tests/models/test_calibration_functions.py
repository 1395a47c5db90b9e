"""Corrections on tensors: the numbers of the service's own, and gradients for fitting."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bundle import correct
from models import layers

LOGITS = np.array([-800.0, -40.0, -3.0, -0.2, 0.0, 0.7, 12.0, 800.0])
P = np.array([0.0, 1e-12, 0.1, 0.3, 0.3, 0.8, 1.0])
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "undo_negative_downsampling": [(P, 0.2), (P, 1.0), (P, np.linspace(0.1, 3.0, len(P)))],
    "undo_negative_downsampling_logit": [(LOGITS, 0.01), (LOGITS, np.linspace(0.1, 3.0, len(LOGITS)))],
    "undo_fake_negative_logit": [(LOGITS,)],
    "prior_shift_logit": [(LOGITS, 0.3, 0.02)],
    "platt_scale": [(LOGITS, 0.8, -0.3)],
    "temperature_scale": [(LOGITS, 2.5)],
    "isotonic_fit": [(P, np.array([0.0, 1, 0, 1, 0, 0, 1])), (P[:1], P[:1])],
    "isotonic_apply": [(P, np.array([0.1, 0.4, 0.9]), np.array([0.0, 0.5, 0.6])), (P, P[:1], P[2:3])],
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_tensors_give_the_numbers_of_the_service(name: str) -> None:
    on_tensors: Callable[..., torch.Tensor] = getattr(layers, name)
    for arguments in CALLS[name]:
        given = [torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in arguments]
        found = on_tensors(*given)
        assert found.dtype == torch.float64
        np.testing.assert_allclose(found.numpy(), getattr(correct, name)(*arguments), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_fit_of_random_labels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.integers(0, 9, 60) / 10, rng.integers(0, 2, 60).astype(float)
    found = layers.isotonic_fit(torch.from_numpy(p), torch.from_numpy(y))
    np.testing.assert_allclose(found.numpy(), correct.isotonic_fit(p, y), rtol=1e-12)


def test_a_temperature_is_found_by_gradient() -> None:
    torch.manual_seed(0)
    logit = 2.0 * torch.randn(4000, dtype=torch.float64)
    label = torch.bernoulli(torch.sigmoid(logit / 2.0))
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature])

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        p = layers.temperature_scale(logit, log_temperature.exp())
        value = torch.nn.functional.binary_cross_entropy(p, label)
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    assert float(log_temperature.detach().exp()) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: layers.undo_negative_downsampling(torch.tensor(1.5), 0.5), r"p must lie in \[0, 1\], got 1.5"),
        (
            lambda: layers.undo_negative_downsampling(torch.tensor(0.5), 0.0),
            "rate must be positive .* of 0",
        ),
        (lambda: layers.undo_negative_downsampling_logit(torch.tensor(0.5), -1.0), "rate must be positive .* -1"),
        (lambda: layers.prior_shift_logit(torch.tensor(0.0), 0.0, 0.5), r"train_prior must lie inside \(0, 1\), got 0"),
        (lambda: layers.prior_shift_logit(torch.tensor(0.0), 0.5, 1.0), r"serve_prior must lie inside \(0, 1\), got 1"),
        (lambda: layers.platt_scale(torch.tensor(0.0), 0.0, 1.0), "a must be positive and finite, got a minimum of 0"),
        (lambda: layers.temperature_scale(torch.tensor(0.0), 0.0), "temperature must be positive and finite, got"),
        (lambda: layers.isotonic_fit(torch.zeros(0), torch.zeros(0)), r"equally long columns, got \[0\]"),
        (lambda: layers.isotonic_fit(torch.tensor([float("nan")]), torch.zeros(1)), "finite, got NaN"),
        (lambda: layers.isotonic_apply(torch.zeros(1), torch.tensor([0.2, 0.1]), torch.zeros(2)), "must increase"),
    ],
)
def test_mistakes(mistake: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mistake()

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.isotonic import IsotonicRegression

from bundle import correct
from bundle.correct import Correction, Identity, Isotonic, Platt, TaskCorrection, Temperature
from bundle.errors import NonFiniteLogits

VECTORS = Path(
    os.environ.get("CTRLIFT_TEST_VECTORS", Path(__file__).parents[2] / ".." / "shared" / "spec" / "vectors.json")
)
FUNCTIONS = (
    "undo_negative_downsampling",
    "undo_negative_downsampling_logit",
    "undo_fake_negative_logit",
    "prior_shift_logit",
    "platt_scale",
    "temperature_scale",
    "isotonic_fit",
    "isotonic_apply",
)
LOGITS = st.floats(-800, 800)


@pytest.mark.skipif(not VECTORS.exists(), reason=f"no vector file at {VECTORS}")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_vectors(name: str) -> None:
    document = json.loads(VECTORS.read_text())
    cases = [case for case in document["cases"] if case["kind"] == "function" and case["layer"] == name]
    assert cases
    tolerance = document["default_tolerance"]
    for case in cases:
        inputs = {key: np.array(tensor["data"]) for key, tensor in case["inputs"].items()}
        (expected,) = (np.array(tensor["data"]) for tensor in case["expected"].values())
        result = getattr(correct, name)(**inputs, **case["call"])
        np.testing.assert_allclose(
            result,
            expected,
            rtol=case.get("rtol", tolerance.get("rtol", 1e-9)),
            atol=case.get("atol", 1e-300),
            err_msg=case["id"],
        )


def test_sigmoid_is_exact_in_both_tails() -> None:
    # math.exp in the exact direction is the reference: no rounding of 1 + tiny is involved.
    assert correct.sigmoid(-700.0) == pytest.approx(math.exp(-700), rel=1e-14)
    assert correct.sigmoid(-40.0) == pytest.approx(math.exp(-40), rel=1e-14)
    assert 1 - correct.sigmoid(30.0) == pytest.approx(math.exp(-30), rel=1e-2)
    assert correct.sigmoid([-np.inf, 0, np.inf]).tolist() == [0.0, 0.5, 1.0]


@given(st.floats(-700, 30))
def test_logit_inverts_sigmoid(z: float) -> None:
    assert correct.logit(correct.sigmoid(z)) == pytest.approx(z, rel=1e-9, abs=1e-2 if z > 20 else 1e-7)


@given(LOGITS)
def test_sigmoid_is_symmetric(z: float) -> None:
    assert correct.sigmoid(z) + correct.sigmoid(-z) == pytest.approx(1.0, abs=1e-15)


@given(st.floats(0, 1), st.floats(1e-6, 5))
def test_undoing_in_logits_equals_undoing_in_probabilities(p: float, rate: float) -> None:
    direct = correct.undo_negative_downsampling(p, rate)
    by_logit = correct.sigmoid(correct.undo_negative_downsampling_logit(correct.logit(p), rate))
    np.testing.assert_allclose(direct, by_logit, rtol=1e-9, atol=1e-300)


@given(st.floats(0, 1))
def test_rate_one_is_the_identity(p: float) -> None:
    assert correct.undo_negative_downsampling(p, 1.0) == p


def test_undoing_recovers_the_base_rate_of_simulated_sampling() -> None:
    # 10 % positives, one negative in five kept: the sampled share is .1 / (.1 + .9 / 5).
    sampled = 0.1 / (0.1 + 0.9 * 0.2)
    assert correct.undo_negative_downsampling(sampled, 0.2) == pytest.approx(0.1)


def test_fake_negatives_are_held_below_one_half() -> None:
    p = 0.3
    biased = p / (1 + p)
    assert correct.sigmoid(correct.undo_fake_negative_logit(correct.logit(biased))) == pytest.approx(p)
    assert np.isfinite(correct.undo_fake_negative_logit([-1e-9, 0.0, 5.0, 800.0])).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correct.undo_negative_downsampling(0.5, 0), "rate"),
        (lambda: correct.undo_negative_downsampling(1.5, 0.5), "p must"),
        (lambda: correct.undo_negative_downsampling_logit(0.5, -1), "rate"),
        (lambda: correct.prior_shift_logit(0.0, 0.0, 0.5), "train_prior"),
        (lambda: correct.prior_shift_logit(0.0, 0.5, 1.0), "serve_prior"),
        (lambda: correct.platt_scale(0.0, 0, 1), "a must"),
        (lambda: correct.platt_scale(0.0, float("nan"), 1), "a must"),
        (lambda: correct.temperature_scale(0.0, 0), "temperature"),
        (lambda: correct.isotonic_fit([], []), "columns"),
        (lambda: correct.isotonic_fit([0.1, np.nan], [0, 1]), "finite"),
        (lambda: correct.isotonic_apply([0.1], [0.2, 0.1], [0, 1]), "increase"),
        (lambda: correct.logit(-0.1), "p must"),
    ],
)
def test_illegal_arguments(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), min_size=1, max_size=40))
def test_isotonic_equals_scikit_learn(points: list[tuple[int, int]]) -> None:
    p, y = np.array(points, dtype=float).T / [[10.0], [1.0]]
    np.testing.assert_allclose(correct.isotonic_fit(p, y), IsotonicRegression().fit_transform(p, y), atol=1e-12)


def test_isotonic_pools_ties_first_and_keeps_the_order_of_the_points() -> None:
    assert correct.isotonic_fit([0.5, 0.1, 0.5], [1, 0, 0]).tolist() == [0.5, 0.0, 0.5]
    assert correct.isotonic_fit([0.3], [0.7]).tolist() == [0.7]


@pytest.mark.parametrize(
    "calibrator",
    [
        Identity(),
        Platt(a=3.0, b=-1.0),
        Temperature(temperature=0.1),
        Isotonic(x_knots=(0.2, 0.5), y_knots=(0.0, 1.0)),
    ],
)
@pytest.mark.parametrize("mode", ["none", "training", "serving"])
def test_probabilities_are_finite_and_strictly_inside(calibrator: Any, mode: Any) -> None:
    rate = 1.0 if mode == "none" else 1e-6
    correction = Correction(mode=mode, tasks={"ctr": TaskCorrection(rate=rate, calibrator=calibrator)})
    logits = np.array([[-np.inf], [-1e308], [-800], [-40], [0], [40], [800], [1e308], [np.inf]])
    p = correction.probabilities(logits, ["ctr"])["ctr"]
    assert p.dtype == np.float64
    assert np.all((p > 0) & (p < 1))
    assert np.all(np.diff(p) >= 0)


def test_order_is_sampling_then_prior_then_calibrator() -> None:
    task = TaskCorrection(rate=0.1, train_prior=0.3, serve_prior=0.1, calibrator=Platt(a=0.5, b=0.2))
    z = np.array([[0.7, 0.7]])
    out = Correction(mode="serving", tasks={"ctr": task}).probabilities(z, ["ctr", "cvr"])
    expected_logit = 0.7 + math.log(0.1) + math.log(0.1 / 0.9) - math.log(0.3 / 0.7)
    assert out["ctr"][0] == pytest.approx(1 / (1 + math.exp(-(0.5 * expected_logit + 0.2))))
    assert out["cvr"][0] == pytest.approx(1 / (1 + math.exp(-0.7)))


def test_sampling_is_undone_at_serving_only_in_serving_mode() -> None:
    task = TaskCorrection(rate=0.1)
    z = np.array([[0.0]])
    p = {m: Correction(mode=m, tasks={"ctr": task}).probabilities(z, ["ctr"])["ctr"] for m in ("training", "serving")}
    assert p["training"][0] == 0.5
    assert p["serving"][0] == pytest.approx(0.1 / 1.1)


def test_a_lost_history_has_its_own_calibrator() -> None:
    task = TaskCorrection(calibrator=Platt(a=1, b=1), calibrator_without_history=Platt(a=1, b=-1))
    correction = Correction(tasks={"ctr": task, "cvr": TaskCorrection(calibrator=Platt(a=1, b=1))})
    z = np.zeros((2, 3, 2))
    lost = correction.probabilities(z, ["ctr", "cvr"], without_history=True)
    assert lost["ctr"].shape == (2, 3)
    assert lost["ctr"][0, 0] == pytest.approx(correct.sigmoid(-1.0))
    assert lost["cvr"][0, 0] == pytest.approx(correct.sigmoid(1.0))


def test_nan_is_refused_and_shapes_are_checked() -> None:
    with pytest.raises(NonFiniteLogits, match="ctr"):
        Correction().probabilities(np.array([[0.0], [np.nan]]), ["ctr"])
    with pytest.raises(ValueError, match="tasks"):
        Correction().probabilities(np.zeros((2, 2)), ["ctr"])


@pytest.mark.parametrize(
    "data",
    [
        {"mode": "both"},
        {"mode": "none", "tasks": {"ctr": {"rate": 0.5}}},
        {"mode": "serving", "tasks": {"ctr": {"rate": 0}}},
        {"tasks": {"ctr": {"train_prior": 0.5}}},
        {"tasks": {"ctr": {"calibrator": {"kind": "platt", "a": -1, "b": 0}}}},
        {"tasks": {"ctr": {"calibrator": {"kind": "spline"}}}},
        {"tasks": {"ctr": {"calibrator": {"kind": "isotonic", "x_knots": [0, 1], "y_knots": [1, 0]}}}},
        {"tasks": {"ctr": {"calibrator": {"kind": "isotonic", "x_knots": [0, 1], "y_knots": [0, 2]}}}},
        {"tasks": {"ctr": {"calibrator": {"kind": "temperature", "temperature": math.inf}}}},
    ],
)
def test_unknown_or_harmful_settings_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Correction.model_validate(data)


def test_settings_survive_json() -> None:
    knots = Isotonic(x_knots=(0.1, 0.2), y_knots=(0.0, 0.3))
    correction = Correction(mode="serving", tasks={"ctr": TaskCorrection(rate=0.1, calibrator=knots)})
    assert Correction.model_validate_json(correction.model_dump_json()) == correction

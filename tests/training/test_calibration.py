import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bundle.correct import Identity, Isotonic, Platt, Temperature, sigmoid
from training.calibration import fit_calibrator
from training.metrics import auc, ece, logloss, pcoc


def skewed(rows: int = 4000, slope: float = 0.6, shift: float = -1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too confident and too high: the truth is sigmoid(slope z + shift)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0.5, 2.0, rows)
    return logits, (random.random(rows) < sigmoid(slope * logits + shift)).astype(float)


def test_platt_recovers_slope_and_shift() -> None:
    found = fit_calibrator("platt", *skewed(40_000))
    assert isinstance(found, Platt)
    assert found.a == pytest.approx(0.6, abs=0.03)
    assert found.b == pytest.approx(-1.0, abs=0.05)


def test_platt_equals_an_unregularised_logistic_regression() -> None:
    logits, labels = skewed()
    found = fit_calibrator("platt", logits, labels)
    other = LogisticRegression(C=1e6, tol=1e-10).fit(logits[:, None], labels)
    assert isinstance(found, Platt)
    assert (found.a, found.b) == pytest.approx((other.coef_[0, 0], other.intercept_[0]), abs=2e-3)


def test_temperature_recovers_its_slope() -> None:
    found = fit_calibrator("temperature", *skewed(40_000, slope=0.5, shift=0.0))
    assert isinstance(found, Temperature)
    assert found.temperature == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_calibration_corrects_the_mean_and_the_curve(method: str) -> None:
    logits, labels = skewed()
    other_logits, other_labels = skewed(seed=1)
    calibrated = fit_calibrator(method, logits, labels).apply(other_logits)  # type: ignore[arg-type]
    raw = sigmoid(other_logits)
    assert pcoc(other_labels, calibrated) == pytest.approx(1.0, abs=0.05)
    assert ece(other_labels, calibrated) < 0.3 * ece(other_labels, raw)
    assert logloss(other_labels, calibrated) < logloss(other_labels, raw)


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_the_order_of_scores_is_kept(method: str) -> None:
    logits, labels = skewed()
    calibrated = fit_calibrator(method, logits, labels).apply(logits)  # type: ignore[arg-type]
    assert auc(labels, calibrated) == auc(labels, logits)


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_reversed_scores_never_get_a_negative_slope(method: str) -> None:
    logits, labels = skewed(slope=-0.6, shift=0.5)
    found = fit_calibrator(method, logits, labels)  # type: ignore[arg-type]
    calibrated = found.apply(logits)
    assert (np.diff(calibrated[np.argsort(logits)]) >= 0).all()
    if method == "platt":
        assert pcoc(labels, calibrated) == pytest.approx(1.0, abs=0.02)


def test_separable_scores_stay_finite() -> None:
    logits = np.array([-2.0, -1.0, 1.0, 2.0])
    found = fit_calibrator("platt", logits, np.array([0.0, 0.0, 1.0, 1.0]))
    assert isinstance(found, Platt)
    assert np.isfinite([found.a, found.b]).all()
    assert found.a < 20


def test_isotonic_is_monotone_and_never_certain() -> None:
    logits, labels = skewed(500)
    labels[np.argsort(logits)[:50]] = 0.0
    found = fit_calibrator("isotonic", logits, labels)
    assert isinstance(found, Isotonic)
    assert (np.diff(found.y_knots) >= 0).all()
    assert found.y_knots[0] > 0
    assert found.y_knots[-1] < 1
    assert np.isfinite(logloss([1.0], found.apply(np.array([-50.0]))))


def test_weights_act_as_repeated_rows() -> None:
    logits, labels = skewed(300)
    weights = np.random.default_rng(0).integers(1, 4, 300)
    for method in ("platt", "temperature", "isotonic"):
        weighted = fit_calibrator(method, logits, labels, weights)  # type: ignore[arg-type]
        repeated = fit_calibrator(method, np.repeat(logits, weights), np.repeat(labels, weights))  # type: ignore[arg-type]
        assert weighted.apply(logits) == pytest.approx(repeated.apply(logits), abs=1e-6), method


def test_auto_leaves_calibrated_scores_alone_and_bends_skewed_ones() -> None:
    users = np.arange(4000) % 200
    fine = fit_calibrator("auto", *skewed(slope=1.0, shift=0.0), users=users)
    assert isinstance(fine, (Identity, Temperature))
    assert isinstance(fit_calibrator("auto", *skewed(), users=users), Platt)


def test_auto_finds_a_curve_that_no_line_fits() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, 8000)
    labels = (random.random(8000) < np.where(logits > 0, 0.8, 0.2)).astype(float)
    assert isinstance(fit_calibrator("auto", logits, labels), Isotonic)


def test_rows_without_a_label_are_left_out() -> None:
    logits, labels = skewed(400)
    more = fit_calibrator("platt", np.append(logits, 9.0), np.append(labels, np.nan))
    assert more == fit_calibrator("platt", logits, labels)


def test_one_class_cannot_be_calibrated() -> None:
    assert fit_calibrator("platt", [0.1, 0.2], [1.0, 1.0]) == Identity()
    assert fit_calibrator("auto", [0.1, 0.2], [np.nan, np.nan]) == Identity()


def test_infinite_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        fit_calibrator("platt", [np.inf, 0.0], [1.0, 0.0])

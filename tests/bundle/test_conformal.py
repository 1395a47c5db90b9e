"""Conformal intervals against their definition, slowly, and against the coverage they promise."""

from pathlib import Path

import numpy as np
import pytest

from bundle.arrays import write_npz
from bundle.conformal import Conformal, fit_conformal


def slow_width(residuals: np.ndarray, weights: np.ndarray, level: float, own: float) -> float:
    """The smallest residual below which the weighted share reaches the level, one candidate after the other."""
    total = weights.sum() + own
    for candidate in np.sort(residuals):
        if weights[residuals <= candidate].sum() / total >= level - 1e-12:
            return float(candidate)
    return float("nan")


def test_width_is_the_weighted_quantile_with_the_users_own_weight_at_infinity() -> None:
    rng = np.random.default_rng(3)
    count, arms, users = 60, 3, 9
    residuals, treatment = rng.exponential(size=count), rng.integers(0, arms, size=count)
    propensity = rng.dirichlet(np.ones(arms) * 3, size=count).clip(0.01, 0.99)
    asked = rng.dirichlet(np.ones(arms) * 3, size=users).clip(0.01, 0.99)
    fitted = fit_conformal(residuals, treatment, propensity)
    for level in (0.5, 0.8, 0.9, 0.95):
        got = fitted.width(level, asked)
        for user in range(users):
            for arm in range(arms):
                rows = treatment == arm
                expected = slow_width(residuals[rows], 1 / propensity[rows, arm], level, 1 / asked[user, arm])
                np.testing.assert_equal(got[user, arm], expected)


def test_equal_weights_are_the_usual_order_statistic() -> None:
    # 9 rows at level .9: the ceil(.9 * 10) = 9th; at .91 there would have to be a tenth.
    fitted = fit_conformal(np.arange(1.0, 10.0), np.zeros(9, dtype=np.int64), np.full((9, 2), 0.5))
    asked = np.full((1, 2), 0.5)
    assert fitted.width(0.9, asked)[0, 0] == 9.0
    assert fitted.width(0.5, asked)[0, 0] == 5.0
    assert np.isnan(fitted.width(0.91, asked)[0, 0])
    assert np.isnan(fitted.width(0.5, asked)[0, 1])  # nobody was in that arm


def test_effect_intervals_give_each_outcome_half_of_the_error() -> None:
    rng = np.random.default_rng(1)
    fitted = fit_conformal(rng.exponential(size=400), rng.integers(0, 2, size=400), np.full((400, 2), 0.5))
    outcomes, propensity = rng.normal(size=(5, 2)), np.full((5, 2), 0.5)
    lower, upper = fitted.interval(0.95, outcomes, propensity)
    effect_lower, effect_upper = fitted.effect_interval(0.9, outcomes, propensity)
    np.testing.assert_array_equal(effect_lower[:, 0], lower[:, 1] - upper[:, 0])
    np.testing.assert_array_equal(effect_upper[:, 0], upper[:, 1] - lower[:, 0])
    assert effect_lower.shape == (5, 1)


def test_coverage_under_confounding() -> None:
    """Arms that see other users than everybody: without the weights the noisy half would be missed.

    Users with x = 1 have five times the noise and are seldom treated. Repeated splits, since coverage holds on
    average over the calibration rows.
    """
    rng = np.random.default_rng(11)
    level, hits, plain = 0.9, [], []
    for _ in range(60):
        x = rng.integers(0, 2, size=600)
        treated_share = np.where(x == 1, 0.1, 0.7)
        treatment = (rng.random(600) < treated_share).astype(np.int64)
        propensity = np.stack([1 - treated_share, treated_share], axis=1)
        residuals = np.abs(rng.normal(size=600)) * (1 + 4 * x)
        new = rng.integers(0, 2, size=400)
        new_share = np.where(new == 1, 0.1, 0.7)
        noise = np.abs(rng.normal(size=400)) * (1 + 4 * new)
        asked = np.stack([1 - new_share, new_share], axis=1)
        half = fit_conformal(residuals, treatment, propensity).width(level, asked)[:, 1]
        hits.append((noise <= np.where(np.isnan(half), np.inf, half)).mean())
        flat = fit_conformal(residuals, treatment, np.full((600, 2), 0.5)).width(level, np.full((400, 2), 0.5))[:, 1]
        plain.append((noise <= flat).mean())
    assert np.mean(hits) >= level - 0.01
    assert np.mean(plain) < level - 0.05


def test_round_trip(tmp_path: Path) -> None:
    fitted = fit_conformal([0.5, 0.1, 0.3], [1, 1, 0], np.full((3, 3), 1 / 3))
    fitted.save(tmp_path / "conformal.npz")
    read = Conformal.load(tmp_path / "conformal.npz", arms=3)
    asked = np.full((4, 3), 1 / 3)
    np.testing.assert_array_equal(read.width(0.4, asked), fitted.width(0.4, asked))
    with pytest.raises(ValueError, match="2 arms"):
        Conformal.load(tmp_path / "conformal.npz", arms=2)


@pytest.mark.parametrize(
    ("residuals", "weights", "words"),
    [
        ([2.0, 1.0], [1.0, 1.0], "ascend"),
        ([1.0, np.nan], [1.0, 1.0], "finite"),
        ([-1.0, 1.0], [1.0, 1.0], "not negative"),
        ([1.0, 2.0], [1.0, 0.0], "positive"),
        ([1.0, 2.0], [1.0], "equally long"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, residuals: list[float], weights: list[float], words: str) -> None:
    write_npz(tmp_path / "c.npz", {"residuals_0": np.array(residuals), "weights_0": np.array(weights)})
    with pytest.raises(ValueError, match=words):
        Conformal.load(tmp_path / "c.npz", arms=1)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="positive"):
        fit_conformal([1.0], [0], np.zeros((1, 2)))
    with pytest.raises(ValueError, match="from 0 to 1"):
        fit_conformal([1.0], [2], np.full((1, 2), 0.5))
    with pytest.raises(ValueError, match="do not fit"):
        fit_conformal([1.0, 2.0], [0], np.full((1, 2), 0.5))
    with pytest.raises(ValueError, match="negative"):
        fit_conformal([-1.0], [0], np.full((1, 2), 0.5))
    fitted = fit_conformal([1.0], [0], np.full((1, 2), 0.5))
    with pytest.raises(ValueError, match="inside"):
        fitted.width(1.0, np.full((1, 2), 0.5))
    with pytest.raises(ValueError, match="2 arms"):
        fitted.width(0.5, np.full((1, 3), 0.5))

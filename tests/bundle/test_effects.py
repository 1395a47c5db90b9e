"""Effects against their definitions: exact differences, tails of the sigmoid, overlap limits, supports, best doses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import effects
from bundle.treatment import DoseScale, OutcomeScale

BINARY = OutcomeScale(name="visit", kind="binary")
SPEND = OutcomeScale(name="spend", kind="continuous", mean=20.0, sd=4.0)
DOLLARS = DoseScale(low=1.0, high=3.0, supported=((1.0, 2.0), (2.5, 3.0)), edges=(2.0, 2.5), smooth=False)


def test_outcomes_are_probabilities_or_unscaled_values() -> None:
    got = effects.outcomes(np.array([[-700.0, 0.0, 2.0]], dtype=np.float32), BINARY)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [[math.exp(-700), 0.5, 1 / (1 + math.exp(-2))]], rtol=1e-15)
    np.testing.assert_array_equal(effects.outcomes([[-1.0, 0.5]], SPEND), [[16.0, 22.0]])


@pytest.mark.parametrize("scale", [BINARY, SPEND])
def test_what_is_no_number_stays_none(scale: OutcomeScale) -> None:
    # An infinite logit would be a probability of exactly 1: the network broke, and 1 would be made up.
    got = effects.outcomes([np.nan, np.inf, -np.inf, 0.0], scale)
    assert np.isnan(got).tolist() == [True, True, True, False]


def test_effects_are_the_difference_itself() -> None:
    rng = np.random.default_rng(0)
    potential = rng.normal(size=(50, 4))
    got = effects.effects(potential)
    for user in range(50):
        for k in range(1, 4):
            assert got[user, k - 1] == potential[user, k] - potential[user, 0]  # bit by bit, not approximately
    assert effects.effects(np.zeros((0, 3))).shape == (0, 2)


@given(st.lists(st.floats(-80, 80), min_size=2, max_size=6))
def test_propensities_are_a_softmax(logits: list[float]) -> None:
    expected = [math.exp(z - max(logits)) for z in logits]
    np.testing.assert_allclose(effects.propensities(logits), np.array(expected) / math.fsum(expected), rtol=1e-13)


def test_propensities_of_extreme_logits() -> None:
    got = effects.propensities([[0.0, 5000.0], [np.nan, 0.0], [np.inf, 0.0], [-np.inf, 0.0]])
    np.testing.assert_array_equal(got, [[0, 1], [np.nan, np.nan], [np.nan, np.nan], [0, 1]])


def test_overlap_limits() -> None:
    shares = np.array([0.05, np.nextafter(0.05, 0), 0.01, np.nextafter(0.01, 0), 0.0, 1.0, np.nan])
    names = [effects.OVERLAP[flag] for flag in effects.overlap(shares)]
    assert names == ["ok", "weak", "weak", "violated", "violated", "ok", "unknown"]


def test_doses_go_to_the_unit_interval_and_back() -> None:
    doses = np.array([1.0, 1.5, 3.0])
    np.testing.assert_array_equal(effects.scaled_doses(doses, DOLLARS), [0.0, 0.25, 1.0])
    np.testing.assert_array_equal(effects.unscaled_doses([0.0, 0.25, 1.0], DOLLARS), doses)
    odd = DoseScale(low=0.1, high=0.7)
    assert effects.unscaled_doses([0.0, 1.0], odd).tolist() == [0.1, 0.7]
    assert effects.in_range([0.1, 0.7, 0.0999, 0.71, np.nan], odd).tolist() == [True, True, False, False, False]


def test_a_dose_on_an_edge_belongs_to_the_stratum_above() -> None:
    doses = np.array([0.9, 1.0, 1.99, 2.0, 2.2, 2.5, 3.0])
    # [2.0, 2.5) has no rows: 2.0 lies in it although the interval below ends there.
    assert effects.supported(doses, DOLLARS).tolist() == [False, True, True, False, False, True, True]
    assert not effects.supported(doses, DoseScale(low=1.0, high=3.0)).any()


def test_a_rare_dose_is_not_supported() -> None:
    density = np.array([[0.05, 0.049, 2.0], [np.nan, 1.0, 0.0]])
    got = effects.supported(np.array([1.0, 1.5, 3.0]), DOLLARS, density)
    assert got.tolist() == [[True, False, True], [False, True, False]]


def test_the_best_index_is_the_first_of_the_best_allowed_ones() -> None:
    gain = np.array([[1.0, 3.0, 3.0, 9.0], [np.nan, -2.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    allowed = np.array([[True, True, True, False], [True, True, False, False], [False, False, False, False]])
    assert effects.first_best(gain, allowed).tolist() == [1, 1, -1]


@given(st.floats(0.05, 0.95), st.floats(0.1, 10))
def test_golden_section_finds_the_peak_of_each_user(peak: float, height: float) -> None:
    peaks = np.array([peak, 1 - peak, 0.5])
    dose, gain = effects.golden_section(lambda s: -height * (s - peaks) ** 2, np.zeros(3), np.ones(3), steps=30)
    # Brackets shrink to 0.618^31; near a flat top float64 cannot tell neighbours closer than about 1e-8 apart.
    np.testing.assert_allclose(dose, peaks, atol=1e-6)
    np.testing.assert_array_equal(gain, -height * (dose - peaks) ** 2)


def test_golden_section_on_a_slope_a_plateau_and_a_hole() -> None:
    dose, _ = effects.golden_section(lambda s: np.array([1.0, -1.0, 0.0]) * s, np.zeros(3), np.ones(3), steps=25)
    np.testing.assert_allclose(dose, [1.0, 0.0, 0.0], atol=1e-4)  # a plateau ends at the smaller dose
    holed, gain = effects.golden_section(lambda s: np.where(s > 0.3, np.nan, s), np.zeros(1), np.ones(1), steps=40)
    assert np.isfinite(gain).all()
    assert 0.29 < holed[0] <= 0.3

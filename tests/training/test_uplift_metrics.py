import itertools
import math

import numpy as np
import pytest

from training.metrics import auc, ece, logloss
from training.metrics.uplift_calibration import uplift_calibration, uplift_calibration_of_scores
from training.metrics.uplift_columns import Measured
from training.metrics.uplift_dose import amse, dose_policy_error, mise, policy_error
from training.metrics.uplift_effect import ate_error, att_error, sqrt_pehe
from training.metrics.uplift_intervals import interval_quality
from training.metrics.uplift_policy import policy_risk, randomised_policy_value
from training.metrics.uplift_propensity import factual_ece, propensity_quality


def test_effect_errors_by_hand() -> None:
    cate, truth = [1.0, 2.0, 4.0], [1.0, 0.0, 3.0]
    assert sqrt_pehe(cate, truth) == pytest.approx(math.sqrt((0 + 4 + 1) / 3))
    assert ate_error(cate, truth) == pytest.approx(7 / 3 - 4 / 3)
    assert att_error(cate, truth, [0, 1, 1]).value == pytest.approx((2 + 4) / 2 - (0 + 3) / 2)
    assert sqrt_pehe([2.5], [1.0]) == 1.5
    assert ate_error(truth, truth) == sqrt_pehe(truth, truth) == 0


def test_nobody_treated_has_no_error_on_the_treated_and_says_so() -> None:
    found = att_error([1.0], [3.0], [False])
    assert found.value == 0.0
    assert "no row is treated" in found.warnings[0]


@pytest.mark.parametrize("metric", [sqrt_pehe, ate_error])
def test_errors_of_effects_refuse_gaps_and_other_lengths(metric: object) -> None:
    with pytest.raises(ValueError, match="true_cate must be finite, got 1 NaN or infinite values of 2"):
        metric([1.0, 2.0], [1.0, math.nan])
    with pytest.raises(ValueError, match="true_cate must have 2 rows"):
        metric([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="cate must be a column"):
        metric([[1.0, 2.0]], [[1.0, 2.0]])


# Policy risk. Rule: treat rows 0, 1, 2 (cate > 0); row 3 has no effect and is not treated.
CATE = [0.2, 0.1, 0.4, 0.0, -0.3]


def test_policy_risk_by_hand() -> None:
    outcome, treated = [1, 0, 0, 1, 0], [1, 1, 0, 0, 0]
    # Treated by the rule and treated: rows 0, 1. Left by the rule and not treated: rows 3, 4.
    expected = 1 - ((1 + 0) / 2 * 3 / 5 + (1 + 0) / 2 * 2 / 5)
    assert policy_risk(outcome, treated, CATE) == Measured(pytest.approx(expected))


def test_policy_risk_counts_randomised_rows_only() -> None:
    outcome, treated = [1, 0, 0, 1, 0], [1, 1, 0, 0, 0]
    rows = [0, 2, 3]
    found = policy_risk(outcome, treated, CATE, randomised=[1, 0, 1, 1, 0])
    assert found == policy_risk(*(np.array(part)[rows] for part in (outcome, treated, CATE)))
    with pytest.raises(ValueError, match="no row is randomised"):
        policy_risk(outcome, treated, CATE, randomised=[0] * 5)


def test_an_empty_cell_of_the_policy_risk_adds_0_and_says_so() -> None:
    found = policy_risk([1, 1, 1, 1, 0], [0, 0, 0, 0, 0], CATE)
    assert found.value == pytest.approx(1 - (0 + (1 + 0) / 2 * 2 / 5))
    assert found.warnings == ("of the 3 rows that the policy gives arm 1 none received it, so it adds 0",)
    one = policy_risk([1], [1], [0.5])
    assert one.value == 0.0
    assert len(one.warnings) == 1


def test_policy_risk_refuses_amounts_and_gaps() -> None:
    with pytest.raises(ValueError, match="outcome must lie in"):
        policy_risk([2.0], [1], [0.1])
    with pytest.raises(ValueError, match="cate must be finite"):
        policy_risk([1.0], [1], [math.nan])


def test_randomised_policy_value_of_three_arms_by_hand() -> None:
    outcome, treatment, policy = [3.0, 5.0, 7.0, 11.0, 13.0], [0, 1, 1, 2, 0], [0, 1, 1, 2, 2]
    expected = 1 / 5 * 3 + 2 / 5 * (5 + 7) / 2 + 2 / 5 * 11
    assert randomised_policy_value(outcome, treatment, policy, arms=3) == Measured(pytest.approx(expected))
    with pytest.raises(ValueError, match="policy must hold arm numbers 0 to 2, got 3"):
        randomised_policy_value(outcome, treatment, [0, 1, 1, 2, 3], arms=3)


def test_the_sign_of_the_effect_beats_treating_everybody() -> None:
    generator = np.random.default_rng(0)
    effect = generator.choice([-0.3, 0.3], 20_000)
    treated = generator.random(20_000) < 0.5
    outcome = (generator.random(20_000) < 0.5 + effect * treated).astype(float)
    # Half the rows gain .3 when treated: .5 + .3 / 2.
    assert policy_risk(outcome, treated, effect).value == pytest.approx(1 - 0.65, abs=0.015)
    assert policy_risk(outcome, treated, np.ones(20_000)).value == pytest.approx(1 - 0.5, abs=0.015)


# Dose curves (B, K, G).
GRID = np.linspace(0, 1, 65)


def test_mise_is_the_integral_of_the_squared_error() -> None:
    truth = np.zeros((2, 2, 65))
    curves = np.stack([np.stack([GRID, np.full(65, 2.0)]), np.zeros((2, 65))])
    # Trapezoids on h = 1 / 64 overstate the integral of s^2 by h^2 / 6.
    expected = ((1 / 3 + 1 / 64**2 / 6) + 4 + 0 + 0) / 4
    assert mise(curves, truth, GRID) == pytest.approx(expected, rel=1e-12)


def test_mise_takes_the_width_of_every_step() -> None:
    error = np.ones((1, 1, 80))
    doses = np.sort(np.random.default_rng(0).random(80)) * 3
    assert mise(error, 0 * error, doses) == pytest.approx(doses[-1] - doses[0])
    slow = sum((doses[i + 1] - doses[i]) * (doses[i] ** 4 + doses[i + 1] ** 4) / 2 for i in range(79))
    assert mise(doses[None, None] ** 2, np.zeros((1, 1, 80)), doses) == pytest.approx(slow)


def test_mise_refuses_a_coarse_or_unordered_grid() -> None:
    curves = np.zeros((1, 1, 65))
    with pytest.raises(ValueError, match="at least 65 points, got 64"):
        mise(curves[..., 1:], curves[..., 1:], GRID[1:])
    with pytest.raises(ValueError, match="increase"):
        mise(curves, curves, GRID[::-1])
    with pytest.raises(ValueError, match="66 points like the doses, got 65"):
        mise(curves, curves, np.linspace(0, 1, 66))
    with pytest.raises(ValueError, match="true_curves must have shape"):
        mise(curves, curves[0], GRID)
    with pytest.raises(ValueError, match="curves must be finite"):
        mise(curves + math.nan, curves, GRID)


def test_amse_by_hand() -> None:
    assert amse([1.0, 2.0], [1.5, 0.0]) == pytest.approx((0.25 + 4) / 2)
    with pytest.raises(ValueError, match="adrf must be finite"):
        amse([math.nan], [1.0])


def test_policy_errors_by_hand() -> None:
    truth = np.array([[[0.0, 3.0, 1.0], [2.0, 5.0, 4.0]]])
    curves = np.array([[[0.0, 1.0, 9.0], [8.0, 2.0, 8.0]]])
    # Best doses predicted: the last of treatment 0 (true 1, best 3), the first of treatment 1 by tie (true 2, best 5).
    assert dose_policy_error(curves, truth) == pytest.approx(((3 - 1) ** 2 + (5 - 2) ** 2) / 2)
    # Best pair predicted: treatment 0, last dose; truly treatment 1, middle dose.
    assert policy_error(curves, truth) == pytest.approx((5 - 1) ** 2)
    # A flat prediction takes the first treatment and the smallest dose: true 0.
    assert policy_error(np.ones_like(truth), truth) == pytest.approx((5 - 0) ** 2)
    assert dose_policy_error(truth * 7 - 2, truth) == policy_error(truth * 7 - 2, truth) == 0


# Propensities.
def softmaxed(rows: int, arms: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(rows, arms)).round(1)
    g = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    treatment = (generator.random((rows, 1)) > g.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return treatment, g


def test_propensity_quality_of_two_arms_is_that_of_a_classifier() -> None:
    treatment, g = softmaxed(500, 2)
    found = propensity_quality(treatment, g)
    assert found.auc == (pytest.approx(auc(treatment == 0, g[:, 0])), pytest.approx(auc(treatment, g[:, 1])))
    assert found.logloss == pytest.approx(logloss(treatment, g[:, 1]))
    assert found.ece[1] == pytest.approx(ece(treatment, g[:, 1], bins=15))
    assert found.share_outside == np.mean((g[:, 1] < 0.05) | (g[:, 1] > 0.95))
    assert found.warnings == ()


def test_propensity_quality_of_three_arms() -> None:
    treatment, g = softmaxed(800, 3)
    found = propensity_quality(treatment, g)
    assert found.auc == tuple(pytest.approx(auc(treatment == arm, g[:, arm])) for arm in range(3))
    assert found.logloss == pytest.approx(-np.mean([math.log(g[i, arm]) for i, arm in enumerate(treatment)]))
    assert found.share_outside == np.mean([min(row) < 0.05 or max(row) > 0.95 for row in g])
    assert all(value < 0.06 for value in found.ece)


def test_a_randomised_trial_has_auc_one_half() -> None:
    found = propensity_quality([0, 1, 1], [[0.5, 0.5]] * 3)
    assert found.auc == (0.5, 0.5)
    assert found.ece == (pytest.approx(1 / 2 - 1 / 3),) * 2
    assert found.share_outside == 0


def test_an_absent_arm_has_auc_one_half_and_says_so() -> None:
    found = propensity_quality([1], [[0.02, 0.98]])
    assert found.auc == (0.5, 0.5)
    assert found.warnings == (
        "no row received arm 0, so its AUC counts 0.5",
        "every row received arm 1, so its AUC counts 0.5",
    )
    assert found.share_outside == 1.0
    assert math.isfinite(propensity_quality([0], [[0.0, 1.0]]).logloss)


def test_propensities_must_be_distributions() -> None:
    with pytest.raises(ValueError, match="softmax"):
        propensity_quality([0], [[-1.0, 2.0]])
    with pytest.raises(ValueError, match="sum to 1"):
        propensity_quality([0], [[0.5, 0.6]])
    with pytest.raises(ValueError, match="propensity must be finite"):
        propensity_quality([0], [[math.nan, 0.6]])
    with pytest.raises(ValueError, match=r"treatment must hold arm numbers 0 to 1, got 0\.5"):
        propensity_quality([0.5], [[0.4, 0.6]])


def test_factual_ece_reads_the_arm_that_was_received() -> None:
    mu = [[0.25, 0.9], [0.25, 0.9], [0.1, 0.5], [0.1, 0.5]]
    outcome, treatment = [1, 0, 1, 1], [0, 0, 1, 1]
    found = factual_ece(outcome, treatment, mu)
    assert found.by_arm == (pytest.approx(1 / 2 - 1 / 4), pytest.approx(1 - 1 / 2))
    assert found.ece == pytest.approx((2 * (1 / 2 - 1 / 4) + 2 * (1 - 1 / 2)) / 4)
    alone = factual_ece([1], [1], [[0.2, 0.7]])
    assert alone.by_arm == (None, pytest.approx(0.3))
    assert alone.warnings == ("no row received arm 0, so its calibration is unknown",)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        factual_ece([1], [1], [[0.2, 1.7]])


# Calibration of effects.
def test_calibration_by_difference_in_means_by_hand() -> None:
    cate = [0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 0.7, 0.7]
    treated = [1, 1, 0, 0, 1, 0, 1, 0]
    outcome = [1, 0, 0, 0, 1, 0, 1, 1]
    found = uplift_calibration(cate, outcome, treated, bins=2)
    low, high = found.bins
    assert (low.low, low.high, low.rows) == (0.1, 0.2, 4)
    assert (low.predicted, low.observed) == (pytest.approx(0.15), pytest.approx(1 / 2 - 0))
    assert low.standard_error == pytest.approx(math.sqrt(0.5 / 2 + 0))
    assert (high.predicted, high.observed) == (pytest.approx(0.6), pytest.approx(1 - 1 / 2))
    assert found.error == pytest.approx((4 * (0.5 - 0.15) + 4 * (0.6 - 0.5)) / 8)
    assert found.warnings == ()


def test_calibration_never_splits_ties() -> None:
    cate = np.repeat([0.1, 0.3, 0.9], [60, 30, 10])
    found = uplift_calibration_of_scores(cate, cate, bins=10)
    assert [part.rows for part in found.bins] == [60, 30, 10]
    assert found.error == pytest.approx(0)
    # The middle of the second run is the fifth of ten rows, so it belongs to the upper half.
    halves = uplift_calibration_of_scores(np.repeat([0.1, 0.3, 0.9], [3, 4, 3]), np.zeros(10), bins=2)
    assert [part.rows for part in halves.bins] == [3, 7]
    constant = uplift_calibration_of_scores(np.full(50, 0.2), np.arange(50.0), bins=10)
    assert [part.rows for part in constant.bins] == [50]


def test_bins_hold_a_tenth_each_without_ties() -> None:
    cate = np.random.default_rng(0).random(1000)
    found = uplift_calibration_of_scores(cate, cate + 0.5)
    assert [part.rows for part in found.bins] == [100] * 10
    assert all(first.high < second.low for first, second in itertools.pairwise(found.bins))
    assert found.error == pytest.approx(0.5)
    ranked = np.sort(cate)
    assert found.bins[3].predicted == pytest.approx(ranked[300:400].mean())
    assert found.bins[3].standard_error == pytest.approx(ranked[300:400].std(ddof=1) / 10)


def test_a_bin_without_an_arm_is_unknown_and_left_out() -> None:
    found = uplift_calibration([0.1, 0.1, 0.9, 0.9], [1, 0, 1, 1], [1, 0, 1, 1], bins=2)
    assert found.bins[1].observed is None
    assert found.error == pytest.approx(0.9)
    assert found.warnings == ("the bin of predicted effects 0.9 to 0.9 lacks an arm, so its effect is unknown",)
    alone = uplift_calibration([0.4], [1], [1])
    assert (alone.error, alone.bins[0].observed, len(alone.warnings)) == (0.0, None, 2)


def test_calibration_of_another_arm_leaves_the_rest_out() -> None:
    cate, outcome = np.random.default_rng(0).random((2, 90)).round(2)
    arm = np.arange(90) % 3
    kept = arm != 1
    expected = uplift_calibration(cate[kept], outcome[kept], arm[kept] == 2)
    assert uplift_calibration(cate, outcome, arm == 2, arm == 0) == expected
    with pytest.raises(ValueError, match="bins must be at least 1"):
        uplift_calibration(cate, outcome, arm == 2, bins=0)
    with pytest.raises(ValueError, match="cate must be finite"):
        uplift_calibration_of_scores([math.nan], [1.0])


# Intervals.
def test_coverage_and_width_by_hand() -> None:
    truth, low, high = [[1.0, 5.0], [2.0, 6.0]], [[1.0, 5.5], [0.0, 5.0]], [[1.5, 6.0], [1.0, 9.0]]
    found = interval_quality(truth, low, high)
    assert found.coverage_by_column == (1 / 2, 1 / 2)
    assert found.coverage == 2 / 4
    assert found.width_by_column == (pytest.approx((0.5 + 1) / 2), pytest.approx((0.5 + 4) / 2))
    assert found.mean_width == pytest.approx((0.5 + 1 + 0.5 + 4) / 4)


def test_normal_intervals_cover_what_they_promise() -> None:
    estimate = np.random.default_rng(0).normal(3.0, 1.0, 40_000)
    found = interval_quality(np.full(40_000, 3.0), estimate - 1.96, estimate + 1.96)
    assert found.coverage == pytest.approx(0.95, abs=0.005)
    assert found.coverage_by_column == (found.coverage,)


def test_intervals_of_one_row_and_malformed_ones() -> None:
    assert interval_quality([1.0], [1.0], [1.0]).coverage == 1.0
    with pytest.raises(ValueError, match="low must not lie above high, as in 1 of 1"):
        interval_quality([1.0], [2.0], [1.0])
    with pytest.raises(ValueError, match="high must be finite"):
        interval_quality([1.0], [0.0], [math.nan])
    with pytest.raises(ValueError, match="high must have shape"):
        interval_quality([1.0, 2.0], [0.0, 0.0], [3.0])

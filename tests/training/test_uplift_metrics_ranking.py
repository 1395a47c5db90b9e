import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.uplift_ranking_loops import campaign, slow_curves, slow_metrics
from training.metrics.uplift_bootstrap import qini_band, ranking_intervals
from training.metrics.uplift_columns import Measured, contrast
from training.metrics.uplift_ranking import (
    RankedContrast,
    auuc,
    auuc_above_random,
    perfect_areas,
    qini_coefficient,
    qini_curve,
    qini_norm_area,
    uplift_at,
    uplift_curve,
)

# Six rows from the best score to the worst; the prefix sums are written out in the tests below.
SCORE = [6, 5, 4, 3, 2, 1]
TREATED = [1, 0, 1, 0, 0, 1]
OUTCOME = [1, 0, 0, 1, 0, 1]

Metric = Callable[..., Measured]


def negative_allowed(*columns: object, **options: object) -> Measured:
    return qini_coefficient(*columns, negative_effects=True, **options)


def negative_excluded(*columns: object, **options: object) -> Measured:
    return qini_coefficient(*columns, negative_effects=False, **options)


METRICS: tuple[Metric, ...] = (
    qini_norm_area,
    negative_allowed,
    negative_excluded,
    auuc,
    auuc_above_random,
    uplift_at,
)

ROWS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n),
        st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.3, 1.0, 4.0]), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
    )
)


def test_qini_by_hand() -> None:
    # n:        1        2        3        4        5              6
    # n1, n0:   1, 0     1, 1     2, 1     2, 2     2, 3           3, 3
    # S1, S0:   1, 0     1, 0     1, 0     1, 1     1, 1           2, 1
    # Q:        0        1 - 0    1 - 0    1 - 1    1 - 2/3        2 - 1
    q = [0, 0, 1, 1, 0, 1 - 2 / 3, 1]
    curve = qini_curve(OUTCOME, SCORE, TREATED)
    assert curve.x == pytest.approx(np.arange(7) / 6)
    assert curve.y == pytest.approx(np.array(q) / 3)
    assert curve.random == pytest.approx(np.arange(7) / 6 / 3)
    area = (0 + 1 + 1 + 0 + 1 / 3 + 1 / 2) / 3 / 6 - 1 / 2 * 1 / 3
    found = qini_norm_area(OUTCOME, SCORE, TREATED)
    assert found == Measured(pytest.approx(area))


def test_coefficients_by_hand() -> None:
    area = (0 + 1 + 1 + 0 + 1 / 3 + 1 / 2) / 3 / 6 - 1 / 6
    # Two treated responders (Q 2), three who did not respond (Q 2), one control responder (Q 1); then over n1 = 3.
    allowed = (2 * 2 / 2 + 3 * 2 + (2 + 1) / 2) / 6 / 3 - 1 / 6
    # The gain is one response: up in one row, then flat for five.
    excluded = (1 / 2 + 5 * 1) / 6 / 3 - 1 / 6
    assert negative_allowed(OUTCOME, SCORE, TREATED).value == pytest.approx(area / allowed)
    assert negative_excluded(OUTCOME, SCORE, TREATED).value == pytest.approx(area / excluded)


def test_auuc_by_hand() -> None:
    # 0 until both arms have come; then (mean treated - mean control) n / N.
    u = [0, 0, (1 - 0) * 2 / 6, (1 / 2 - 0) * 3 / 6, 0, (1 / 2 - 1 / 3) * 5 / 6, 2 / 3 - 1 / 3]
    assert uplift_curve(OUTCOME, SCORE, TREATED).y == pytest.approx(u)
    area = (sum(u[1:6]) + u[6] / 2) / 6
    assert auuc(OUTCOME, SCORE, TREATED).value == pytest.approx(area)
    assert auuc_above_random(OUTCOME, SCORE, TREATED).value == pytest.approx(area - u[6] / 2)


def test_uplift_in_the_top_by_hand() -> None:
    assert uplift_at(OUTCOME, SCORE, TREATED, share=0.5).value == pytest.approx(1 / 2 - 0)
    assert uplift_at(OUTCOME, SCORE, TREATED, share=1.0).value == pytest.approx(2 / 3 - 1 / 3)
    # One seat after the best two for a tied run of two: each counts half.
    tied = uplift_at(OUTCOME, [6, 5, 3, 3, 2, 1], TREATED, share=0.5).value
    assert tied == pytest.approx((1 + 0) / 1.5 - (0 + 0.5) / 1.5)


def test_scikit_uplift_agrees() -> None:
    # scikit-uplift 0.5.1: qini_auc_score with negative_effect True, then False, and area of uplift_curve / N**2.
    generator = np.random.default_rng(0)
    score = generator.normal(size=13_441)
    treated = generator.random(13_441) < 0.5
    outcome = (generator.random(13_441) < 0.15 + 0.05 * treated * (score > 0)).astype(float)
    for digits, expected in (
        (15, (0.026233059398709405, 0.22001599750170026, 0.022389690484584494)),
        (1, (0.026101745218451836, 0.21891466883406843, 0.022369724864228474)),
        (0, (0.018694445493812408, 0.15678983570115557, 0.021271133143767905)),
    ):
        columns = (outcome, score.round(digits), treated)
        found = (negative_allowed(*columns), negative_excluded(*columns), auuc(*columns))
        assert [metric.value for metric in found] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_loops_agree(seed: int) -> None:
    outcome, effect, treated, noise = campaign(150, seed)
    score = (effect + 0.2 * noise).round(1)
    found = ranking_intervals(outcome, score, treated, shares=(0.25,), replicates=1).metrics
    expected = slow_metrics(outcome, score, treated)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value), name
    assert qini_curve(outcome, score, treated).y == pytest.approx(slow_curves(outcome, score, treated)[1])
    assert uplift_curve(outcome, score, treated).y == pytest.approx(slow_curves(outcome, score, treated)[2])


@pytest.mark.parametrize("metric", METRICS)
def test_a_strictly_increasing_transform_changes_nothing(metric: Metric) -> None:
    outcome, effect, treated, noise = campaign(400)
    score = (effect + noise).round(1)
    assert metric(outcome, np.exp(score / 2) - 7, treated) == metric(outcome, score, treated)


@pytest.mark.parametrize("metric", METRICS)
def test_duplicated_rows_change_nothing(metric: Metric) -> None:
    outcome, effect, treated, noise = campaign(301)
    columns = (outcome, (effect + noise).round(1), treated)
    doubled = metric(*(np.tile(part, 3) for part in columns))
    assert doubled.value == pytest.approx(metric(*columns).value)


@given(ROWS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=80)
def test_order_of_rows_does_not_matter(rows: tuple[list, list, list], random: "np.random.Generator") -> None:
    outcome, score, treated = (np.array(part) for part in rows)
    order = list(range(len(score)))
    random.shuffle(order)
    for metric in METRICS:
        shuffled = metric(outcome[order], score[order], treated[order])
        assert shuffled.value == pytest.approx(metric(outcome, score, treated).value, abs=1e-12)


@given(ROWS)
@settings(deadline=None, max_examples=80)
def test_values_are_always_numbers(rows: tuple[list, list, list]) -> None:
    outcome, score, treated = rows
    one_arm = all(treated) or not any(treated)
    for metric in METRICS:
        found = metric(outcome, score, treated)
        assert math.isfinite(found.value)
        assert found.warnings or not one_arm
    for interval in ranking_intervals(outcome, score, treated, replicates=5).metrics.values():
        assert all(map(math.isfinite, (interval.value, interval.low, interval.high, interval.standard_error)))


def test_a_constant_score_has_no_area_at_all() -> None:
    outcome, _, treated, _ = campaign(997)
    assert qini_norm_area(outcome, np.full(997, 0.3), treated).value == 0.0
    assert auuc_above_random(outcome, np.full(997, 0.3), treated).value == 0.0


def test_random_scores_have_no_area_beyond_noise() -> None:
    outcome, _, treated, _ = campaign(3000)
    generator = np.random.default_rng(5)
    areas = [qini_norm_area(outcome, generator.random(3000), treated).value for _ in range(200)]
    above = [auuc_above_random(outcome, generator.random(3000), treated).value for _ in range(200)]
    for values in (areas, above):
        assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(200)
        assert np.std(values) < 0.02


@pytest.mark.parametrize("metric", METRICS)
def test_the_true_effect_is_the_best_score(metric: Metric) -> None:
    outcome, effect, treated, noise = campaign(20_000)
    best = metric(outcome, effect, treated).value
    worse = [metric(outcome, effect + spread * noise, treated).value for spread in (0.1, 0.3, 1.0, 10.0)]
    assert best > worse[0] > worse[1] > worse[2] > worse[3] > metric(outcome, -effect, treated).value


def test_no_order_comes_above_the_perfect_curve_with_negative_effects() -> None:
    outcome, treated = np.array([1.0, 0, 1, 0, 1, 0, 0]), np.array([1, 1, 1, 0, 0, 0, 0], bool)
    rows = contrast(outcome, treated)
    sums = RankedContrast.of(rows, outcome).prefix(np.ones((1, 7)))
    areas = [qini_norm_area(outcome, order, treated).value for order in itertools.permutations(range(7))]
    assert 0 < max(areas) <= perfect_areas(sums, negative_effects=True)[0]


def test_any_arm_is_compared_with_any_other() -> None:
    outcome, effect, _, _ = campaign(600)
    arm = np.random.default_rng(1).integers(0, 3, 600)
    kept = arm != 1
    for metric in METRICS:
        expected = metric(outcome[kept], effect[kept], arm[kept] == 2)
        assert metric(outcome, effect, arm == 2, arm == 0) == expected
    found = ranking_intervals(outcome, effect, arm == 2, arm == 0, replicates=20)
    assert found == ranking_intervals(outcome[kept], effect[kept], arm[kept] == 2, replicates=20)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("treated", "missing"), [([1, 1, 1], "control"), ([0, 0, 0], "treated")])
def test_an_empty_arm_counts_0_and_says_so(metric: Metric, treated: list[int], missing: str) -> None:
    found = metric([1, 0, 1], [0.3, 0.2, 0.1], treated)
    assert found == Measured(0.0, (f"no row is {missing}, so the metric counts 0",))


def test_a_batch_of_one_is_measured_with_a_warning() -> None:
    for metric in METRICS:
        assert metric([1], [0.5], [True]).value == 0.0
        assert metric([1], [0.5], [True]).warnings
    assert ranking_intervals([1], [0.5], [True]).metrics["auuc"].replicates == 0
    assert qini_band([1], [0.5], [False]).warnings


def test_a_top_without_an_arm_counts_0_and_says_so() -> None:
    found = uplift_at([1, 0, 1, 0], [4, 3, 2, 1], [1, 1, 0, 0], share=0.5)
    assert found.value == 0.0
    assert "top 50%" in found.warnings[0]


def test_a_gain_of_nothing_has_no_perfect_curve_without_negative_effects() -> None:
    found = negative_excluded([0, 1, 0, 1], [4, 3, 2, 1], [1, 0, 1, 0])
    assert found.value == 0.0
    assert "perfect curve" in found.warnings[0]


@pytest.mark.parametrize(
    ("outcome", "score", "treated", "control", "what"),
    [
        ([1, math.nan], [1, 2], [0, 1], None, "outcome must be finite"),
        ([1, 0], [1, math.nan], [0, 1], None, "score must be finite"),
        ([1, 0], [1, math.inf], [0, 1], None, "score must be finite"),
        ([1, 0], [1, 2], [0, 2], None, "treated must hold booleans"),
        ([1, 0], [1], [0, 1], None, "score must have 2 rows"),
        ([1, 0], [1, 2], [0, 1], [0, 1], "both treated and control"),
        ([1, 0], [1, 2], [0, 0], [0, 0], "nothing to compare"),
        ([], [], [], None, "at least one row"),
    ],
)
def test_malformed_columns_are_refused(outcome: list, score: list, treated: list, control: object, what: str) -> None:
    for metric in (*METRICS, ranking_intervals, qini_band, qini_curve, uplift_curve):
        with pytest.raises(ValueError, match=what):
            metric(outcome, score, treated, control)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="share"):
        uplift_at(OUTCOME, SCORE, TREATED, share=0)
    with pytest.raises(ValueError, match="share"):
        ranking_intervals(OUTCOME, SCORE, TREATED, shares=(1.5,))
    with pytest.raises(ValueError, match="replicates"):
        ranking_intervals(OUTCOME, SCORE, TREATED, replicates=0)
    with pytest.raises(ValueError, match="level"):
        qini_band(OUTCOME, SCORE, TREATED, level=1)
    with pytest.raises(ValueError, match="points"):
        qini_band(OUTCOME, SCORE, TREATED, points=1)
    with pytest.raises(ValueError, match="units"):
        ranking_intervals(OUTCOME, SCORE, TREATED, units=[1])
    with pytest.raises(ValueError, match="qini_norm_area"):
        negative_allowed([0.5, 3], [1, 2], [0, 1])

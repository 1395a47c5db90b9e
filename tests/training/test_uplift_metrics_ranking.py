import itertools
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics.uplift_bootstrap import RankingIntervals, paired_ranking_intervals, qini_band, ranking_intervals
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


def campaign(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, true effect, treated, feature noise of a randomised campaign whose effect changes sign."""
    generator = np.random.default_rng(seed)
    effect = generator.uniform(-0.3, 0.5, rows)
    treated = generator.random(rows) < 0.5
    outcome = (generator.random(rows) < 0.4 + effect * treated).astype(float)
    return outcome, effect, treated, generator.normal(size=rows)


def slow_curves(
    outcome: np.ndarray, score: np.ndarray, treated: np.ndarray, *, perfect: bool = False
) -> tuple[list, list, list]:
    """Share, Q / n1(N) and uplift curve, one plain sum over the rows for each distinct score."""
    outcome, score, treated = np.asarray(outcome, float), np.asarray(score), np.asarray(treated, bool)
    points, q, u = [0.0], [0.0], [0.0]
    for threshold in sorted(set(score.tolist()), reverse=True):
        top = [i for i in range(len(score)) if score[i] >= threshold]
        n1, n0 = sum(treated[i] for i in top), sum(not treated[i] for i in top)
        s1, s0 = sum(outcome[i] for i in top if treated[i]), sum(outcome[i] for i in top if not treated[i])
        points.append(len(top) / len(score))
        q.append((s1 - s0 * n1 / n0 if n0 else s1 * perfect) / treated.sum())
        u.append((s1 / n1 - s0 / n0) * len(top) / len(score) if n0 and n1 else 0.0)
    return points, q, u


def slow_area(x: list, y: list) -> float:
    return math.fsum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))


def slow_metrics(outcome: np.ndarray, score: np.ndarray, treated: np.ndarray) -> dict[str, float]:
    x, q, u = slow_curves(outcome, score, treated)
    area = slow_area(x, q) - q[-1] / 2
    # The perfect order of Radcliffe with negative effects, and the curve that climbs to the gain and stays.
    key = np.where(treated, outcome, -np.asarray(outcome))
    n1 = treated.sum()
    px, pq, _ = slow_curves(outcome, key, treated, perfect=True)
    gain = q[-1] * n1
    qx, qq = [0.0, gain / len(outcome), 1.0], [0.0, gain / n1, gain / n1]
    top = slow_top(outcome, score, treated, 0.25)
    return {
        "qini_norm_area": area,
        "qini_negative_effects": area / (slow_area(px, pq) - q[-1] / 2),
        "qini_no_negative_effects": area / (slow_area(qx, qq) - q[-1] / 2),
        "auuc": slow_area(x, u),
        "auuc_above_random": slow_area(x, u) - u[-1] / 2,
        "uplift_at_25": top,
    }


def slow_top(outcome: np.ndarray, score: np.ndarray, treated: np.ndarray, share: float) -> float:
    """Each row of the tied run at the cut enters with the fraction that still fits."""
    seats = share * len(score)
    part = np.empty(len(score))
    for row, value in enumerate(score):
        above, tied = (score > value).sum(), (score == value).sum()
        part[row] = min(max((seats - above) / tied, 0.0), 1.0)
    means = [(part * outcome)[arm].sum() / part[arm].sum() for arm in (treated, ~treated)]
    return float(means[0] - means[1])


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


def drawn_rows(count: int, replicates: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, count, count) for _ in range(replicates)]


def test_bootstrap_equals_copying_the_drawn_rows() -> None:
    outcome, effect, treated, noise = campaign(120)
    score = (effect + noise).round(1)
    found = ranking_intervals(outcome, score, treated, shares=(0.25,), replicates=30, seed=3)
    slow = [slow_metrics(outcome[rows], score[rows], treated[rows]) for rows in drawn_rows(120, 30, 3)]
    assert found.warnings == ()
    for name, interval in found.metrics.items():
        values = [replicate[name] for replicate in slow]
        assert interval.low == pytest.approx(np.quantile(values, 0.025)), name
        assert interval.high == pytest.approx(np.quantile(values, 0.975)), name
        assert interval.standard_error == pytest.approx(np.std(values)), name
        assert interval.replicates == 30


def test_units_are_drawn_as_a_whole() -> None:
    outcome, effect, treated, _ = campaign(90)
    units = np.repeat(np.arange(30), 3)
    found = ranking_intervals(outcome, effect, treated, units=units.astype(str), replicates=25, seed=1)
    # Units are numbered in the sorted order of their names.
    names = np.sort(np.unique(units).astype(str))
    drawn = [np.concatenate([np.flatnonzero(units == int(names[u])) for u in d]) for d in drawn_rows(30, 25, 1)]
    values = [qini_norm_area(outcome[rows], effect[rows], treated[rows]).value for rows in drawn]
    assert found.metrics["qini_norm_area"].low == pytest.approx(np.quantile(values, 0.025))
    assert found.metrics["qini_norm_area"].standard_error == pytest.approx(np.std(values))


def test_amounts_have_every_metric_but_the_coefficients() -> None:
    outcome, effect, treated, _ = campaign(200)
    found = ranking_intervals(outcome * 12.5, effect, treated, replicates=20)
    counted = ranking_intervals(outcome, effect, treated, replicates=20)
    assert set(counted.metrics) - set(found.metrics) == {"qini_negative_effects", "qini_no_negative_effects"}
    for name, interval in found.metrics.items():
        assert interval.high == pytest.approx(12.5 * counted.metrics[name].high), name


def test_replicates_without_an_arm_are_left_out_and_counted() -> None:
    found = ranking_intervals([1, 0, 1, 0], [4, 3, 2, 1], [1, 0, 0, 0], replicates=100)
    interval = found.metrics["qini_norm_area"]
    assert 0 < interval.replicates < 100
    assert f"undefined in {100 - interval.replicates} of 100 replicates" in " ".join(found.warnings)


def paired(rows: int, seed: int = 0) -> tuple[RankingIntervals, RankingIntervals, float]:
    outcome, effect, treated, noise = campaign(rows, seed)
    worse = effect + 0.05 * noise
    both = paired_ranking_intervals(outcome, effect, worse, treated)
    alone = ranking_intervals(outcome, effect, treated)
    difference = qini_norm_area(outcome, effect, treated).value - qini_norm_area(outcome, worse, treated).value
    return both, alone, difference


def test_paired_bootstrap_is_the_difference_on_the_same_rows() -> None:
    outcome, effect, treated, noise = campaign(120)
    found = paired_ranking_intervals(outcome, effect, noise, treated, shares=(0.25,), replicates=25, seed=2)
    slow = []
    for rows in drawn_rows(120, 25, 2):
        one, other = (slow_metrics(outcome[rows], score[rows], treated[rows]) for score in (effect, noise))
        slow.append({name: one[name] - other[name] for name in one})
    for name, interval in found.metrics.items():
        assert interval.low == pytest.approx(np.quantile([part[name] for part in slow], 0.025)), name


def test_paired_bootstrap_of_a_score_with_itself_is_zero() -> None:
    outcome, effect, treated, _ = campaign(300)
    found = paired_ranking_intervals(outcome, effect, 3 * effect + 1, treated, replicates=50)
    assert all((part.value, part.low, part.high) == (0, 0, 0) for part in found.metrics.values())


def test_paired_bootstrap_is_narrower_than_one_interval() -> None:
    both, alone, difference = paired(4000)
    interval, single = both.metrics["qini_norm_area"], alone.metrics["qini_norm_area"]
    assert interval.value == pytest.approx(difference)
    assert interval.high - interval.low < 0.5 * (single.high - single.low)


def test_the_band_holds_the_curve_and_its_replicates() -> None:
    outcome, effect, treated, _ = campaign(150)
    band = qini_band(outcome, effect.round(1), treated, points=21, replicates=40, seed=4)
    curve = qini_curve(outcome, effect.round(1), treated)
    assert band.y == pytest.approx(np.interp(band.x, curve.x, curve.y))
    assert band.random == pytest.approx(band.x * curve.y[-1])
    slow = []
    for rows in drawn_rows(150, 40, 4):
        x, q, _ = slow_curves(outcome[rows], effect.round(1)[rows], treated[rows])
        slow.append(np.interp(band.x, x, q))
    assert band.low == pytest.approx(np.quantile(slow, 0.025, axis=0))
    assert band.high == pytest.approx(np.quantile(slow, 0.975, axis=0))
    assert band.replicates == 40


def test_two_hundred_replicates_of_a_test_set_take_a_second_or_two() -> None:
    outcome, effect, treated, noise = campaign(13_000)
    before = time.perf_counter()
    found = paired_ranking_intervals(outcome, effect, noise, treated)
    # 0.9 seconds alone on a core; the bound leaves room for a machine that others share.
    assert time.perf_counter() - before < 10
    assert found.metrics["qini_norm_area"].replicates == 200

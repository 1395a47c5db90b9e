"""Intervals of the ranking metrics over resampled rows and units."""

import time

import numpy as np
import pytest

from tests.training.uplift_ranking_loops import campaign, slow_curves, slow_metrics
from training.metrics.uplift_bootstrap import RankingIntervals, paired_ranking_intervals, qini_band, ranking_intervals
from training.metrics.uplift_ranking import qini_curve, qini_norm_area


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

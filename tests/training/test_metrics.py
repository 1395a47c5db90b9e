import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from training.metrics import (
    auc,
    bootstrap_intervals,
    calibration_curve,
    ece,
    gauc,
    logloss,
    ndcg_at_k,
    normalised_entropy,
    paired_bootstrap,
    pcoc,
    recall_at_k,
)

ROWS = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.05, 0.2, 0.2001, 0.5, 0.7, 0.95]), min_size=n, max_size=n),
        st.lists(st.integers(1, 4), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
    )
)


def sample(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    predictions = generator.random(rows).round(2)
    labels = (generator.random(rows) < predictions).astype(float)
    return labels, predictions, generator.integers(0, 30, rows)


def test_auc_counts_ties_half() -> None:
    # Pairs (positive, negative): (.8, .8) tie, (.8, .3) right, (.5, .8) wrong, (.5, .3) right.
    assert auc([1, 0, 1, 0], [0.8, 0.8, 0.5, 0.3]) == (0.5 + 1 + 0 + 1) / 4


def test_gauc_weighs_groups_by_impressions_and_reports_the_dropped() -> None:
    labels = [1, 0, 1, 0, 0, 1, 1]
    scores = [0.9, 0.1, 0.2, 0.9, 0.1, 0.5, 0.6]
    groups = ["a", "a", "b", "b", "b", "c", "c"]
    found = gauc(labels, scores, groups)
    assert found.value == pytest.approx((2 * 1.0 + 3 * 0.5) / 5)
    assert (found.groups, found.dropped) == (2, 1)
    assert found.impressions_kept == pytest.approx(5 / 7)


def test_logloss_and_normalised_entropy_by_hand() -> None:
    labels, predictions = [1, 0], [0.8, 0.4]
    expected = -(math.log(0.8) + math.log(0.6)) / 2
    assert logloss(labels, predictions) == pytest.approx(expected)
    assert normalised_entropy(labels, predictions) == pytest.approx(expected / math.log(2))


def test_logloss_is_clipped() -> None:
    assert logloss([1], [0.0]) == pytest.approx(-math.log(1e-7))


def test_pcoc_is_predicted_over_observed() -> None:
    assert pcoc([1, 0, 0, 1], [0.5, 0.25, 0.25, 0.5]) == pytest.approx(1.5 / 2)


def test_ece_by_hand() -> None:
    # Two bins of two rows: |.15 - .5| and |.8 - .5|.
    assert ece([0, 1, 1, 0], [0.1, 0.2, 0.7, 0.9], bins=2) == pytest.approx((abs(0.15 - 0.5) + abs(0.8 - 0.5)) / 2)


def test_ece_never_splits_ties() -> None:
    # One run of ties is one bin, however many bins are asked for.
    assert ece([1, 1, 0, 0], [0.4] * 4, bins=4) == pytest.approx(0.1)


def test_calibration_curve_agrees_with_ece() -> None:
    labels, predictions, _ = sample(500)
    curve = calibration_curve(labels, predictions, bins=20)
    total = sum(point.weight for point in curve)
    from_curve = sum(point.weight * abs(point.predicted - point.observed) for point in curve) / total
    assert total == 500
    assert ece(labels, predictions) == pytest.approx(from_curve)
    assert all(point.low <= point.predicted <= point.high for point in curve)


def test_ndcg_by_hand() -> None:
    # Ranks: .9 (0), .5 (1), .1 (1): DCG@2 = 1 / log2(3), ideal = 1 + 1 / log2(3).
    second = 1 / math.log2(3)
    assert ndcg_at_k([0, 1, 1], [0.9, 0.5, 0.1], [7, 7, 7], k=2) == pytest.approx(second / (1 + second))


def test_recall_shares_the_last_seat_among_ties() -> None:
    # One seat after the best; two rows tie for it, one of them positive.
    assert recall_at_k([1, 1, 0], [0.9, 0.5, 0.5], [1, 1, 1], k=2) == pytest.approx((1 + 0.5) / 2)


def test_requests_without_a_positive_are_left_out() -> None:
    assert recall_at_k([1, 0, 0, 0], [0.9, 0.5, 0.5, 0.1], [1, 1, 2, 2], k=1) == 1.0
    assert math.isnan(ndcg_at_k([0, 0], [0.9, 0.5], [1, 1], k=1))


@pytest.mark.parametrize("seed", range(3))
def test_scikit_learn_agrees(seed: int) -> None:
    labels, predictions, requests = sample(400, seed)
    weights = np.random.default_rng(seed).random(400) + 0.1
    assert auc(labels, predictions, weights) == pytest.approx(roc_auc_score(labels, predictions, sample_weight=weights))
    clipped = np.clip(predictions, 1e-7, 1 - 1e-7)
    assert logloss(labels, predictions, weights) == pytest.approx(log_loss(labels, clipped, sample_weight=weights))
    mine = ndcg_at_k(labels, predictions, requests, k=5)
    each = [requests == request for request in np.unique(requests)]
    theirs = [ndcg_score([labels[rows]], [predictions[rows]], k=5) for rows in each if labels[rows].any()]
    assert mine == pytest.approx(np.mean(theirs))


@given(ROWS)
@settings(deadline=None, max_examples=60)
def test_weight_two_is_a_duplicated_row(rows: tuple[list[float], list[float], list[int], list[int]]) -> None:
    labels, predictions, weights, groups = (np.array(column) for column in rows)
    repeated = [np.repeat(column, weights) for column in (labels, predictions, groups)]
    for metric in (auc, logloss, pcoc, ece, normalised_entropy):
        weighted, copied = metric(labels, predictions, weights), metric(repeated[0], repeated[1])
        assert weighted == pytest.approx(copied, nan_ok=True), metric.__name__
    weighted_gauc = gauc(labels, predictions, groups, weights).value
    assert weighted_gauc == pytest.approx(gauc(repeated[0], repeated[1], repeated[2]).value, nan_ok=True)


@given(ROWS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_order_of_rows_does_not_matter(rows: tuple[list[float], ...], random: "np.random.Generator") -> None:
    labels, predictions, weights, groups = (np.array(column) for column in rows)
    order = list(range(len(labels)))
    random.shuffle(order)
    for metric in (auc, logloss, pcoc, ece):
        before = metric(labels, predictions, weights)
        assert metric(labels[order], predictions[order], weights[order]) == pytest.approx(before, nan_ok=True)
    for metric in (ndcg_at_k, recall_at_k):
        before = metric(labels, predictions, groups, 2)
        assert metric(labels[order], predictions[order], groups[order], 2) == pytest.approx(before, nan_ok=True)


def test_ranking_ignores_a_monotone_map() -> None:
    labels, predictions, groups = sample(300)
    mapped = np.exp(3 * predictions) - 7
    assert auc(labels, mapped) == auc(labels, predictions)
    assert gauc(labels, mapped, groups) == gauc(labels, predictions, groups)


def test_rows_without_a_label_or_weight_do_not_count() -> None:
    labels, predictions, users = sample(200)
    missing = np.append(labels, [np.nan, 1.0])
    more = np.append(predictions, [0.99, 0.99])
    weights = np.append(np.ones(200), [1.0, 0.0])
    for metric in (auc, logloss, pcoc, ece):
        assert metric(missing, more, weights) == metric(labels, predictions)
    assert gauc(missing, more, np.append(users, [0, 0]), weights) == gauc(labels, predictions, users)


def test_one_class_has_no_auc() -> None:
    assert math.isnan(auc([1, 1], [0.2, 0.3]))
    assert math.isnan(gauc([1, 1], [0.2, 0.3], [0, 1]).value)
    assert math.isnan(normalised_entropy([1, 1], [0.2, 0.3]))
    assert math.isnan(auc([], []))


@pytest.mark.parametrize(
    ("labels", "predictions", "weights", "what"),
    [
        ([0, 1], [0.5], None, "one length"),
        ([0, 2], [0.5, 0.5], None, r"\[0, 1\]"),
        ([0, 1], [0.5, math.nan], None, "NaN"),
        ([0, 1], [0.5, 1.5], None, "probabilities"),
        ([0, 1], [0.5, 0.5], [1, -1], "negative"),
    ],
)
def test_malformed_columns_are_refused(labels: list, predictions: list, weights: list | None, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        logloss(labels, predictions, weights)


def slow_replicate(labels: np.ndarray, predictions: np.ndarray, users: np.ndarray, times: np.ndarray) -> dict:
    rows = np.repeat(np.arange(len(labels)), times[users])
    drawn = (labels[rows], predictions[rows])
    return {
        "auc": auc(*drawn),
        "gauc": gauc(*drawn, users[rows]).value,
        "logloss": logloss(*drawn),
        "pcoc": pcoc(*drawn),
        "ece": ece(*drawn),
    }


def test_bootstrap_equals_copying_the_drawn_rows() -> None:
    labels, predictions, users = sample(300)
    found = bootstrap_intervals(labels, predictions, users, groups=users, replicates=40, seed=3)
    count = users.max() + 1
    draws = np.random.default_rng(3).multinomial(count, np.full(count, 1 / count), size=40)
    slow = [slow_replicate(labels, predictions, users, times) for times in draws]
    whole = slow_replicate(labels, predictions, users, np.ones(count, dtype=int))
    for name, interval in found.items():
        values = [replicate[name] for replicate in slow]
        assert interval.value == pytest.approx(whole[name]), name
        assert interval.low == pytest.approx(np.quantile(values, 0.025)), name
        assert interval.high == pytest.approx(np.quantile(values, 0.975)), name
        assert interval.standard_error == pytest.approx(np.std(values)), name


def test_paired_bootstrap_of_a_model_with_itself_is_zero() -> None:
    labels, predictions, users = sample(300)
    found = paired_bootstrap(labels, predictions, predictions, users, groups=users, replicates=50)
    assert all((interval.value, interval.low, interval.high) == (0, 0, 0) for interval in found.values())


def test_paired_bootstrap_is_narrower_than_two_separate_intervals() -> None:
    labels, predictions, users = sample(2000)
    noisy = np.clip(predictions + np.random.default_rng(1).normal(0, 0.05, 2000), 0, 1)
    paired = paired_bootstrap(labels, predictions, noisy, users, replicates=200)["auc"]
    separate = bootstrap_intervals(labels, predictions, users, replicates=200)["auc"]
    assert paired.value == pytest.approx(auc(labels, predictions) - auc(labels, noisy))
    assert paired.low > 0
    assert paired.high - paired.low < separate.high - separate.low


def test_a_thousand_replicates_take_seconds() -> None:
    labels, predictions, _ = sample(10_000)
    users = np.random.default_rng(2).integers(0, 166, 10_000)
    before = time.perf_counter()
    found = bootstrap_intervals(labels, predictions, users, groups=users, replicates=1000)
    # About one second alone on a core; the bound leaves room for a machine that seven people share.
    assert time.perf_counter() - before < 15
    assert found["auc"].low < found["auc"].value < found["auc"].high

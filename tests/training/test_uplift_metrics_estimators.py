"""Doubly robust averages, policy values from propensities, and losses that choose between models."""

import math

import numpy as np
import pytest

from training.metrics.uplift_columns import Measured
from training.metrics.uplift_doubly_robust import aipw, effect_scores, tmle
from training.metrics.uplift_policy import known_policy_value, policy_value_doubly_robust, policy_value_ipw
from training.metrics.uplift_selection import doubly_robust_loss, nearest_neighbour_pehe, r_loss

# Two rows of each arm: propensity of arm 1 is 0.5, 0.2, 0.8, 0.5.
OUTCOME = [3.0, 1.0, 4.0, 1.0]
TREATMENT = [1, 1, 0, 0]
MU = [[1.0, 2.0], [1.0, 2.0], [2.0, 2.0], [0.0, 1.0]]
PROPENSITY = [[0.5, 0.5], [0.8, 0.2], [0.2, 0.8], [0.5, 0.5]]
# mu1 - mu0 + t (y - mu1) / g1 - (1 - t) (y - mu0) / g0
SCORES = [1 + (3 - 2) / 0.5, 1 + (1 - 2) / 0.2, 0 - (4 - 2) / 0.2, 1 - (1 - 0) / 0.5]


class World:
    """Confounded rows: who has a high x is treated more often and has a higher outcome anyway; the effect is 1."""

    def __init__(self, rows: int, seed: int = 0, *, binary: bool = False) -> None:
        generator = np.random.default_rng(seed)
        self.x = generator.normal(size=rows)
        g1 = 1 / (1 + np.exp(-self.x))
        self.treatment = (generator.random(rows) < g1).astype(int)
        self.propensity = np.stack([1 - g1, g1], axis=1)
        if binary:
            base = 0.2 + 0.4 / (1 + np.exp(-self.x))
            self.mu = np.stack([base, base + 0.2], axis=1)
            self.outcome = (generator.random(rows) < self.mu[np.arange(rows), self.treatment]).astype(float)
        else:
            self.mu = np.stack([2 * self.x, 2 * self.x + 1], axis=1)
            self.outcome = self.mu[np.arange(rows), self.treatment] + generator.normal(size=rows)
        self.flat = np.full((rows, 2), 0.5)


def test_scores_and_their_mean_by_hand() -> None:
    assert effect_scores(OUTCOME, TREATMENT, MU, PROPENSITY) == pytest.approx(SCORES)
    found = aipw(OUTCOME, TREATMENT, MU, PROPENSITY)
    error = np.std(SCORES, ddof=1) / 2
    assert found.value == pytest.approx(sum(SCORES) / 4)
    assert found.standard_error == pytest.approx(error)
    assert found.low == pytest.approx(found.value - 1.959963984540054 * error)
    assert (found.truncated, found.warnings) == (0.0, ())


def test_truncation_is_explicit_and_counted() -> None:
    found = effect_scores(OUTCOME, TREATMENT, MU, PROPENSITY, truncation=(0.4, 0.6))
    assert found == pytest.approx([1 + 1 / 0.5, 1 - 1 / 0.4, 0 - 2 / 0.4, 1 - 1 / 0.5])
    assert aipw(OUTCOME, TREATMENT, MU, PROPENSITY, truncation=(0.4, 0.6)).truncated == 2 / 4
    extreme = aipw([1.0, 0.0], [1, 0], [[0.0, 0.0]] * 2, [[1.0, 0.0], [1.0, 0.0]])
    assert extreme.value == pytest.approx((1 / 0.01 - 0) / 2)
    assert extreme.truncated == 1.0
    for wrong in ((0.0, 0.99), (0.6, 0.4), (0.1, 1.5)):
        with pytest.raises(ValueError, match="truncation must satisfy"):
            aipw(OUTCOME, TREATMENT, MU, PROPENSITY, truncation=wrong)


@pytest.mark.parametrize("estimate", [aipw, lambda *rows: tmle(*rows, binary=False)])
def test_one_right_model_is_enough(estimate: object) -> None:
    world = World(20_000)
    treated = world.treatment == 1
    naive = world.outcome[treated].mean() - world.outcome[~treated].mean()
    assert naive > 2.5
    no_model = np.zeros_like(world.mu)
    for mu, g in ((world.mu, world.propensity), (no_model, world.propensity), (world.mu, world.flat)):
        found = estimate(world.outcome, world.treatment, mu, g)
        assert abs(found.value - 1) < 4 * found.standard_error
        assert found.standard_error < 0.06
    wrong = estimate(world.outcome, world.treatment, no_model, world.flat)
    assert abs(wrong.value - 1) > 4 * wrong.standard_error


@pytest.mark.parametrize("binary", [False, True])
def test_standard_errors_are_the_spread_over_samples(binary: bool) -> None:
    found = [
        [
            estimate(w.outcome, w.treatment, w.mu, w.propensity)
            for estimate in (aipw, lambda *r: tmle(*r, binary=binary))
        ]
        for w in (World(400, seed, binary=binary) for seed in range(200))
    ]
    for each in zip(*found, strict=True):
        values = [estimate.value for estimate in each]
        assert np.mean([estimate.standard_error for estimate in each]) == pytest.approx(np.std(values), rel=0.2)
        truth = 0.2 if binary else 1.0
        covered = np.mean([estimate.low <= truth <= estimate.high for estimate in each])
        assert 0.90 <= covered <= 0.985


def test_tmle_of_amounts_by_hand() -> None:
    # One epsilon an arm: sum h (y - mu) / sum h^2 over its rows; arm 1 has h = 2, 5 and residuals 1, -1.
    one = (2 * 1 - 5 * 1) / (2**2 + 5**2)
    zero = (5 * 2 + 2 * 1) / (5**2 + 2**2)
    h1, h0 = np.array([2, 5, 1.25, 2]), np.array([2, 1.25, 5, 2])
    expected = np.mean((np.array([2, 2, 2, 1]) + one * h1) - (np.array([1, 1, 2, 0]) + zero * h0))
    assert tmle(OUTCOME, TREATMENT, MU, PROPENSITY, binary=False).value == pytest.approx(expected)


def test_binary_tmle_solves_its_equation_and_stays_a_probability() -> None:
    world = World(600, binary=True)
    shifted = np.clip(world.mu + 0.2, 0.01, 0.99)
    found = tmle(world.outcome, world.treatment, shifted, world.propensity, binary=True)
    # By an independent search for the epsilon of each arm on a fine grid.
    means = []
    for arm in (1, 0):
        rows, h = world.treatment == arm, 1 / np.clip(world.propensity[:, arm], 0.01, 0.99)
        offset = np.log(shifted[:, arm] / (1 - shifted[:, arm]))
        moved = [1 / (1 + np.exp(-(offset + eps * h))) for eps in np.linspace(-1, 0.5, 3001)]
        gaps = [abs(np.sum(h[rows] * (world.outcome[rows] - p[rows]))) for p in moved]
        means.append(moved[int(np.argmin(gaps))].mean())
    assert found.value == pytest.approx(means[0] - means[1], abs=1e-3)
    harsh = tmle([1, 1, 0, 0], [1, 1, 0, 0], [[0.9, 0.1]] * 4, [[0.99, 0.01], [0.01, 0.99]] * 2, binary=True)
    assert -1 <= harsh.value <= 1
    assert harsh.value == pytest.approx(1.0, abs=1e-6)
    assert [warning[:27] for warning in harsh.warnings] == [
        "every outcome of arm 1 is 1",
        "every outcome of arm 0 is 0",
    ]


def test_any_two_of_three_arms() -> None:
    generator = np.random.default_rng(0)
    treatment = generator.integers(0, 3, 3000)
    outcome = np.array([1.0, 3.0, 0.0])[treatment] + generator.normal(size=3000)
    mu, g = np.zeros((3000, 3)), np.full((3000, 3), 1 / 3)
    for arm, control, truth in ((1, 0, 2.0), (2, 0, -1.0), (1, 2, 3.0)):
        for found in (
            aipw(outcome, treatment, mu, g, arm=arm, control=control),
            tmle(outcome, treatment, mu, g, binary=False, arm=arm, control=control),
        ):
            assert abs(found.value - truth) < 4 * found.standard_error
            assert found.standard_error < 0.15
    for arm, control in ((0, 0), (3, 0), (1, -1)):
        with pytest.raises(ValueError, match="two different numbers from 0 to 2"):
            aipw(outcome, treatment, mu, g, arm=arm, control=control)


@pytest.mark.parametrize("binary", [False, True])
def test_an_arm_without_rows_keeps_its_prediction_and_says_so(binary: bool) -> None:
    for found in (
        aipw([1.0, 0.0], [0, 0], [[0.5, 0.7]] * 2, [[0.5, 0.5]] * 2),
        tmle([1.0, 0.0], [0, 0], [[0.5, 0.7]] * 2, [[0.5, 0.5]] * 2, binary=binary),
    ):
        assert found.value == pytest.approx(0.7 - 0.5)
        assert "no row received arm 1" in found.warnings[0]


def test_a_batch_of_one_has_a_value_and_no_spread() -> None:
    for found in (
        aipw([1.0], [1], [[0.0, 0.5]], [[0.5, 0.5]]),
        policy_value_ipw([2.0], [1], [1], [[0.5, 0.5]]),
    ):
        assert (found.standard_error, found.low, found.high) == (0.0, found.value, found.value)
        assert "one row has no spread" in found.warnings[-1]
    assert aipw([1.0], [1], [[0.0, 0.5]], [[0.5, 0.5]]).value == pytest.approx(0.5 + 0.5 / 0.5)
    assert policy_value_ipw([2.0], [1], [1], [[0.5, 0.5]]).value == 2.0


@pytest.mark.parametrize(
    ("position", "value", "what"),
    [
        (0, [math.nan, 0, 0, 0], "outcome must be finite"),
        (2, [[math.nan, 0]] * 4, "mu must be finite"),
        (3, [[math.nan, 0.5]] * 4, "propensity must be finite"),
        (1, [0, 1, 2, 0], "treatment must hold arm numbers 0 to 1, got 2"),
        (2, [[1.0, 2.0, 3.0]] * 4, r"mu must have shape \(4, 2\)"),
    ],
)
def test_malformed_arrays_are_refused(position: int, value: list, what: str) -> None:
    columns = [OUTCOME, TREATMENT, MU, PROPENSITY]
    columns[position] = value
    for estimate in (effect_scores, aipw, lambda *rows: tmle(*rows, binary=False)):
        with pytest.raises(ValueError, match=what):
            estimate(*columns)


def test_binary_tmle_refuses_logits() -> None:
    with pytest.raises(ValueError, match="give probabilities, not logits"):
        tmle([1, 0, 1, 0], TREATMENT, MU, PROPENSITY, binary=True)
    with pytest.raises(ValueError, match="level"):
        aipw(OUTCOME, TREATMENT, MU, PROPENSITY, level=0)


# Policy values.
def test_policy_values_by_hand() -> None:
    policy = [1, 0, 0, 1]
    # Rows 0 and 2 followed, with propensities 0.5 and 0.2.
    found = policy_value_ipw(OUTCOME, TREATMENT, policy, PROPENSITY)
    value = (2 * 3 + 5 * 4) / (2 + 5)
    assert found.value == pytest.approx(value)
    spread = np.std([2 * (3 - value), 0, 5 * (4 - value), 0], ddof=1) / (7 / 4) / 2
    assert found.standard_error == pytest.approx(spread)
    robust = policy_value_doubly_robust(OUTCOME, TREATMENT, policy, MU, PROPENSITY)
    scores = [2 + (3 - 2) / 0.5, 1, 2 + (4 - 2) / 0.2, 1]
    assert robust.value == pytest.approx(sum(scores) / 4)
    assert robust.standard_error == pytest.approx(np.std(scores, ddof=1) / 2)
    assert known_policy_value(MU, policy) == pytest.approx((2 + 1 + 2 + 1) / 4)


def test_policy_values_meet_the_truth_on_confounded_rows() -> None:
    world = World(20_000, seed=3)
    policy = (world.x > 0.5).astype(int)
    truth = known_policy_value(world.mu, policy)
    assert truth == pytest.approx(np.mean(2 * world.x + policy))
    for found in (
        policy_value_ipw(world.outcome, world.treatment, policy, world.propensity),
        policy_value_doubly_robust(world.outcome, world.treatment, policy, world.mu, world.flat),
    ):
        assert abs(found.value - truth) < 4 * found.standard_error
        assert found.standard_error < 0.05
    shifted = policy_value_ipw(world.outcome + 10, world.treatment, policy, world.propensity)
    plain = policy_value_ipw(world.outcome, world.treatment, policy, world.propensity)
    assert shifted.value == pytest.approx(plain.value + 10)
    assert shifted.standard_error == pytest.approx(plain.standard_error)


def test_a_policy_that_nobody_followed_counts_0_and_says_so() -> None:
    found = policy_value_ipw([1.0, 2.0], [0, 0], [1, 1], [[0.5, 0.5]] * 2)
    assert found.value == found.high == 0.0
    assert "no row received" in found.warnings[0]
    robust = policy_value_doubly_robust([1.0, 2.0], [0, 0], [1, 1], [[0.0, 4.0]] * 2, [[0.5, 0.5]] * 2)
    assert robust.value == 4.0
    assert "no row received arm 1" in robust.warnings[0]
    with pytest.raises(ValueError, match="policy must hold arm numbers"):
        policy_value_ipw([1.0, 2.0], [0, 0], [1, 2], [[0.5, 0.5]] * 2)


# Selection.
def test_r_loss_by_hand_and_with_shifted_effects() -> None:
    cate, m = np.array([1.0, 0.0, 2.0, -1.0]), np.array([2.0, 1.0, 2.0, 0.0])
    effects = np.stack([np.zeros(4), cate], axis=1)
    # ((y - m) - (t - g1) cate)^2
    expected = ((1 - 0.5 * 1) ** 2 + 0 + (2 + 0.8 * 2) ** 2 + (1 + 0.5 * -1) ** 2) / 4
    assert r_loss(OUTCOME, TREATMENT, effects, m, PROPENSITY) == pytest.approx(expected)
    assert r_loss(OUTCOME, TREATMENT, effects + 7, m, PROPENSITY) == pytest.approx(expected)
    with pytest.raises(ValueError, match="effects must be finite"):
        r_loss(OUTCOME, TREATMENT, effects * math.nan, m, PROPENSITY)
    with pytest.raises(ValueError, match="mean_outcome must have 4 rows"):
        r_loss(OUTCOME, TREATMENT, effects, m[:3], PROPENSITY)


def test_doubly_robust_loss_by_hand() -> None:
    assert doubly_robust_loss([1.0, 3.0], [0.0, 1.0]) == (1 + 4) / 2
    assert doubly_robust_loss([1.0], [1.0]) == 0.0
    with pytest.raises(ValueError, match="cate must be finite"):
        doubly_robust_loss([1.0], [math.nan])


def test_nearest_neighbours_by_hand() -> None:
    features = [[0.0, 1.0], [1.0, 1.0], [4.0, 1.0], [9.0, 1.0]]
    outcome, treated = [5.0, 1.0, 2.0, 7.0], [1, 0, 0, 1]
    # Row 0 meets row 1, row 1 meets row 0, row 2 meets row 0 (distance 4 against 5), row 3 meets row 2.
    effects = [5 - 1, 5 - 1, 5 - 2, 7 - 2]
    assert nearest_neighbour_pehe(features, outcome, effects, treated).value == 0.0
    found = nearest_neighbour_pehe(features, outcome, [4.0, 4.0, 3.0, 1.0], treated).value
    assert found == pytest.approx(math.sqrt(4**2 / 4))


def test_neighbours_at_one_distance_give_their_mean_and_duplicates_change_nothing() -> None:
    generator = np.random.default_rng(0)
    features = generator.integers(0, 3, (60, 4)).astype(float)
    outcome, cate, treated = generator.normal(size=60), generator.normal(size=60), generator.random(60) < 0.4
    scaled = features / features.std(axis=0)
    effects = []
    for row in range(60):
        distance = [((scaled[row] - scaled[other]) ** 2).sum() for other in range(60)]
        others = [other for other in range(60) if treated[other] != treated[row]]
        near = min(distance[other] for other in others)
        met = np.mean([outcome[other] for other in others if distance[other] < near + 1e-9])
        effects.append((outcome[row] - met) * (1 if treated[row] else -1))
    expected = math.sqrt(np.mean((np.array(effects) - cate) ** 2))
    found = nearest_neighbour_pehe(features, outcome, cate, treated).value
    assert found == pytest.approx(expected)
    tripled = nearest_neighbour_pehe(
        np.tile(features, (3, 1)), np.tile(outcome, 3), np.tile(cate, 3), np.tile(treated, 3)
    )
    assert tripled.value == pytest.approx(found)


def test_neighbours_without_an_arm_are_infinitely_far_and_say_so() -> None:
    for treated, arm in (([1], "control"), ([0], "treated")):
        found = nearest_neighbour_pehe([[1.0]], [2.0], [0.1], treated)
        assert found == Measured(math.inf, (f"no row is {arm}, so no row has a neighbour in the other arm",))
    with pytest.raises(ValueError, match="features must be finite"):
        nearest_neighbour_pehe([[math.nan]], [2.0], [0.1], [1])


def test_every_selection_loss_prefers_the_true_effect() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3000, 2))
    g1 = 1 / (1 + np.exp(-x[:, 0]))
    treatment = (generator.random(3000) < g1).astype(int)
    effect = 1 + x[:, 1]
    mu = np.stack([x[:, 0], x[:, 0] + effect], axis=1)
    outcome = mu[np.arange(3000), treatment] + 0.5 * generator.normal(size=3000)
    g = np.stack([1 - g1, g1], axis=1)
    mean_outcome = (g * mu).sum(axis=1)
    scores = effect_scores(outcome, treatment, mu, g)
    candidates = [effect, np.ones(3000), effect + 0.5, -effect]
    losses = np.array(
        [
            [
                r_loss(outcome, treatment, np.stack([np.zeros(3000), cate], axis=1), mean_outcome, g),
                doubly_robust_loss(scores, cate),
                nearest_neighbour_pehe(x, outcome, cate, treatment).value,
            ]
            for cate in candidates
        ]
    )
    assert (losses.argmin(axis=0) == 0).all()
    assert (losses.argmax(axis=0) == 3).all()

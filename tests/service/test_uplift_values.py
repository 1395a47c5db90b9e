"""What /uplift computes, against the tiny network worked out by hand and against slow forms of every step."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle import effects
from bundle.correct import sigmoid
from bundle.population import Person, UpliftQuery
from service.core import question
from service.core.intervals import student_quantile
from service.core.question import Asked, Budget, Cost, Interval, Question
from service.core.recommending import CONTROL
from service.core.treated import Treated, Users
from service.core.treating import treat
from service.core.uplift_version import UpliftVersion, load_uplift
from tests.service import tiny_uplift
from tests.service.tiny_uplift import CITIES, Kind

AGES = (22.0, 31.5, 40.0, 47.0, 58.0)
PEOPLE = [Person(str(n), {"age": age, "city": CITIES[n % 3]}) for n, age in enumerate(AGES)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("values")


def loaded(store: Path, kind: Kind) -> UpliftVersion:
    path = store / kind.name / "1.0.0"
    return load_uplift(path if path.exists() else tiny_uplift.publish(store, kind))


def asked(version: UpliftVersion, people: list[Person] | None = None, **more: object) -> Treated:
    fitting: Asked = question.check(Question(**more), version.part)  # type: ignore[arg-type]
    return treat(version, Users(UpliftQuery(PEOPLE if people is None else people, 0.0)), fitting)


def logits(dollars: float | None = None) -> NDArray[np.float64]:
    return np.array([tiny_uplift.expected_logits(age, CITIES[n % 3], dollars) for n, age in enumerate(AGES)])


def test_outcomes_effects_and_propensities(store: Path) -> None:
    found = asked(loaded(store, Kind(name="plain")))
    np.testing.assert_allclose(found.outcomes, sigmoid(logits()), atol=1e-6)
    np.testing.assert_array_equal(found.effects, found.outcomes[:, 1:] - found.outcomes[:, :1])
    z = np.array([tiny_uplift.scaled_age(age) for age in AGES])
    raw = np.exp(np.stack([0 * z, -z, 1 - 2 * z], axis=1))
    assert found.propensity is not None
    np.testing.assert_allclose(found.propensity, raw / raw.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_continuous_outcome_is_unscaled_and_effects_are_not_shifted(store: Path) -> None:
    found = asked(loaded(store, Kind(name="spend", outcome="continuous")))
    np.testing.assert_allclose(found.outcomes, 10 + 2 * logits(), atol=1e-5)
    np.testing.assert_allclose(found.effects, 2 * (logits()[:, 1:] - logits()[:, :1]), atol=1e-5)


def test_doses_are_in_their_own_unit_and_the_default_is_the_bundles(store: Path) -> None:
    version = loaded(store, Kind(name="dosed", doses=True))
    np.testing.assert_allclose(asked(version).outcomes, sigmoid(logits(2.0)), atol=1e-6)
    np.testing.assert_allclose(asked(version, doses={"coupon": 4.5}).outcomes, sigmoid(logits(4.5)), atol=1e-6)
    curve = asked(version, dose_grid=9).curves[0]
    np.testing.assert_array_equal(curve.doses, np.linspace(1, 5, 9))
    for place, dollars in enumerate(curve.doses):
        np.testing.assert_allclose(curve.outcomes[:, place], sigmoid(logits(dollars))[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    "kind",
    [
        Kind(name="plain"),
        Kind(name="dosed", doses=True),
        Kind(name="noisy", samples="mc_dropout"),
        Kind(name="several", samples="ensemble", doses=True),
        Kind(name="residual", conformal=True),
    ],
    ids=lambda kind: kind.name,
)
def test_a_block_of_users_is_as_good_as_one_by_one(store: Path, kind: Kind) -> None:
    version = loaded(store, kind)
    together = asked(version, interval=Interval(0.8), dose_grid=5 if kind.doses else None)
    assert together.intervals is not None
    assert np.isnan(together.intervals[0]).all() == (kind.samples is None and not kind.conformal)
    for place, person in enumerate(PEOPLE):
        alone = asked(version, [person], interval=Interval(0.8), dose_grid=5 if kind.doses else None)
        assert alone.intervals is not None
        for one, all_of_them in (
            (alone.outcomes, together.outcomes),
            (alone.effects, together.effects),
            (alone.propensity, together.propensity),
            (alone.intervals[0], together.intervals[0]),
            (alone.intervals[1], together.intervals[1]),
            (alone.recommended.gain[:, None], together.recommended.gain[:, None]),
        ):
            assert one is not None
            assert all_of_them is not None
            np.testing.assert_allclose(one[0], all_of_them[place], atol=1e-6, rtol=0)
        assert alone.recommended.arm[0] == together.recommended.arm[place]


# --- intervals -------------------------------------------------------------------------------------------------------


def test_dropout_intervals_are_quantiles_of_the_effect_inside_each_sample(store: Path) -> None:
    found = asked(loaded(store, Kind(name="noisy", samples="mc_dropout")), interval=Interval(0.9))
    noise = np.random.default_rng(7).random((50, 1, 2), dtype=np.float32)[:, 0] - 0.5
    outcome = sigmoid(
        logits()[None] + (noise @ np.array([[1.0, 1.0, 1.0], [0.0, 0.5, 0.0]]))[:, None, :].astype(np.float64)
    )
    drawn = outcome[..., 1:] - outcome[..., :1]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    assert found.intervals is not None
    np.testing.assert_allclose(found.intervals[0], np.minimum(low, found.effects), atol=1e-6)
    np.testing.assert_allclose(found.intervals[1], np.maximum(high, found.effects), atol=1e-6)


def test_replies_repeat(store: Path) -> None:
    version = loaded(store, Kind(name="noisy", samples="mc_dropout"))
    first, second = (asked(version, interval=Interval(0.9)).intervals for _ in range(2))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, second)


def test_ensemble_intervals_are_students(store: Path) -> None:
    found = asked(loaded(store, Kind(name="members", samples="ensemble")), interval=Interval(0.9, "ensemble"))
    members = sigmoid(logits()[None] + np.array([-0.1, 0, 0.1])[:, None, None] * np.array([0.0, 1.0, 2.0]))
    drawn = members[..., 1:] - members[..., :1]
    half = 2.919986 * drawn.std(axis=0, ddof=1) * np.sqrt(4 / 3)  # Student's t, 2 degrees of freedom, .95
    assert found.intervals is not None
    np.testing.assert_allclose(found.intervals[0], drawn.mean(axis=0) - half, atol=1e-5)
    np.testing.assert_allclose(found.intervals[1], drawn.mean(axis=0) + half, atol=1e-5)


@pytest.mark.parametrize(
    ("freedom", "p", "expected"),
    [(1, 0.975, 12.7062), (2, 0.975, 4.30265), (4, 0.975, 2.77645), (4, 0.95, 2.13185), (9, 0.995, 3.24984)],
)
def test_student_quantiles(freedom: int, p: float, expected: float) -> None:
    assert student_quantile(p, freedom) == pytest.approx(expected, rel=5e-4)  # from a printed table


def test_conformal_intervals_give_each_arm_half_of_the_error(store: Path) -> None:
    found = asked(loaded(store, Kind(name="residual", conformal=True)), interval=Interval(0.8))
    assert found.propensity is not None
    assert found.intervals is not None
    # Residuals .001 to .1 of weight 10 each: the first whose share of 1000 + 1/p reaches .9, in both arms.
    shares = found.propensity.clip(0.01, 0.99)
    width = np.ceil(0.9 * (1000 + 1 / shares) / 10 - 1e-9) / 1000
    width[width > 0.1] = np.nan
    half = width[:, 1:] + width[:, :1]
    assert not np.isnan(half).all()
    np.testing.assert_allclose(found.intervals[0], found.effects - half, atol=1e-9)
    np.testing.assert_allclose(found.intervals[1], found.effects + half, atol=1e-9)


def test_the_best_method_is_taken_where_none_is_named(store: Path) -> None:
    version = loaded(store, Kind(name="both", samples="mc_dropout", conformal=True))
    free, named = (asked(version, interval=Interval(0.8, method)) for method in (None, "conformal"))
    drawn = asked(version, interval=Interval(0.8, "mc_dropout"))
    assert free.intervals is not None
    assert drawn.intervals is not None
    np.testing.assert_array_equal(free.intervals, named.intervals)
    assert (free.intervals[0] != drawn.intervals[0]).all()


def test_arms_with_few_rows_fall_back_to_the_ensemble(store: Path) -> None:
    version = loaded(store, Kind(name="few", samples="ensemble", conformal=True, rows={"letter": 20}))
    found = asked(version, interval=Interval(0.8, "conformal"))
    ensemble = asked(loaded(store, Kind(name="members", samples="ensemble")), interval=Interval(0.8))
    conformal = asked(loaded(store, Kind(name="residual", conformal=True)), interval=Interval(0.8))
    assert found.intervals is not None
    assert ensemble.intervals is not None
    assert conformal.intervals is not None
    np.testing.assert_array_equal(found.intervals[0][:, 0], conformal.intervals[0][:, 0])
    np.testing.assert_array_equal(found.intervals[0][:, 1], ensemble.intervals[0][:, 1])


# --- doses and budgets -----------------------------------------------------------------------------------------------


def test_the_best_dose_is_refined_where_the_curve_is_smooth(store: Path) -> None:
    # sigmoid(c + 2 d - 2.5 d^2) peaks at d = .4, which is 2.6 dollars; the grid of 21 has .4 itself, that of 4 not.
    version = loaded(store, Kind(name="dosed", doses=True))
    for grid in (None, 4, 21):
        found = asked(version, treatments=("coupon",), dose_grid=grid)
        np.testing.assert_allclose(found.recommended.dose, 2.6, atol=0.02)
        best = sigmoid(logits(2.6))
        np.testing.assert_allclose(found.recommended.gain, best[:, 1] - best[:, 0], atol=1e-6)
    stepped = loaded(store, Kind(name="stepped", doses=True, smooth=False, edges=(2.0,)))
    coarse = asked(stepped, treatments=("coupon",), dose_grid=4).recommended.dose
    np.testing.assert_allclose(coarse, 1 + 4 / 3)  # the better of two grid points, and nothing in between


def test_costs_move_the_best_dose(store: Path) -> None:
    version = loaded(store, Kind(name="dosed", doses=True))
    budget = Budget(1e9, {"coupon": Cost(0.2, 0.3), "letter": Cost(1e6)}, value_per_outcome=10.0)
    found = asked(version, budget=budget).recommended
    fine = np.linspace(1, 5, 4001)
    control = sigmoid(logits())[:, :1]
    for user in range(len(PEOPLE)):
        base = tiny_uplift.expected_logits(AGES[user], CITIES[user % 3], 1.0)[1]
        d = (fine - 1) / 4
        net = 10 * (sigmoid(base + 2 * d - 2.5 * d * d) - control[user]) - 0.2 - 0.3 * fine
        assert found.gain[user] == pytest.approx(max(float(net.max()), 0.0), abs=1e-4)
        if net.max() > 0:
            assert found.dose[user] == pytest.approx(fine[net.argmax()], abs=0.05)


def test_unsupported_doses_are_not_recommended(store: Path) -> None:
    version = loaded(store, Kind(name="gap", doses=True, supported=((1.0, 2.0), (4.0, 5.0))))
    found = asked(version, treatments=("coupon",))
    np.testing.assert_allclose(found.recommended.dose, 2.0, atol=1e-9)  # the supported end next to the peak


def test_the_control_wins_where_nothing_helps(store: Path) -> None:
    version = loaded(store, Kind(name="plain"))
    found = asked(version, budget=Budget(100.0, {}, value_per_outcome=-1.0))  # visits are unwanted
    wanted = np.where((found.effects > 0).all(axis=1), CONTROL, found.recommended.arm)
    np.testing.assert_array_equal(found.recommended.arm, wanted)
    assert (found.recommended.gain >= 0).all()


def test_the_allocation_is_the_best_of_all(store: Path) -> None:
    version = loaded(store, Kind(name="plain"))
    found = asked(version, budget=Budget(2.0, {"coupon": Cost(1.0), "letter": Cost(0.5)}, 10.0))
    gains = 10 * found.effects - np.array([1.0, 0.5])
    best = 0.0
    for code in range(3 ** len(PEOPLE)):
        arms = [code // 3**user % 3 for user in range(len(PEOPLE))]
        if sum((0.0, 1.0, 0.5)[arm] for arm in arms) <= 2.0:
            best = max(best, sum(0.0 if arm == 0 else float(gains[user, arm - 1]) for user, arm in enumerate(arms)))
    assert found.recommended.budget is not None
    assert found.recommended.budget.gain == pytest.approx(best, abs=1e-12)


def test_nobody_is_treated_on_a_guess(store: Path) -> None:
    version = loaded(store, Kind(name="plain"))
    lost = np.array([True, False, False, False, True])
    fitting = question.check(Question(), version.part)
    found = treat(version, Users(UpliftQuery(PEOPLE, 0.0), None, lost), fitting)
    np.testing.assert_array_equal(found.recommended.arm == -1, lost)
    np.testing.assert_array_equal(found.notes["features_unknown"], lost)
    assert effects.OVERLAP[int(found.overlap[0, 0])] == "ok"

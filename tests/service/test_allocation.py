"""The knapsack against brute force and against what every budget must keep to."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core import allocation
from service.core.allocation import Options, allocate, unlimited


def options(gain: np.ndarray, cost: np.ndarray) -> Options:
    """Gains and costs (U, O) of the options beside the control, which comes first."""
    zero = np.zeros((len(gain), 1))
    return Options(
        np.hstack([zero, gain]), np.hstack([zero, cost]), np.ones((len(gain), gain.shape[1] + 1), dtype=np.bool_)
    )


def ids(count: int) -> list[str]:
    return [f"u{user:03}" for user in range(count)]


def brute_force(asked: Options, total: float) -> float:
    users, choices = asked.gain.shape
    best = 0.0
    for combination in itertools.product(range(choices), repeat=users):
        if sum(asked.cost[user, option] for user, option in enumerate(combination)) <= total:
            best = max(best, sum(asked.gain[user, option] for user, option in enumerate(combination)))
    return best


def lp_bound(asked: Options, total: float) -> float:
    """The Lagrangian dual on a fine grid of prices: an upper bound from the textbook's other side."""
    ratios = [gain / cost for gain, cost in zip(asked.gain.ravel(), asked.cost.ravel(), strict=True) if cost > 0]
    pairs = itertools.permutations(range(asked.gain.shape[1]), 2)
    for a, b in pairs:
        width = asked.cost[:, a] - asked.cost[:, b]
        ratios += list(((asked.gain[:, a] - asked.gain[:, b]) / np.where(width > 0, width, np.inf)).ravel())
    prices = [0.0, *(ratio for ratio in ratios if ratio > 0)]
    return min(float((asked.gain - price * asked.cost).max(axis=1).sum()) + price * total for price in prices)


@st.composite
def instances(draw: st.DrawFn, users: int = 6, choices: int = 2) -> tuple[Options, float]:
    count = draw(st.integers(1, users))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    whole = draw(st.booleans())  # whole numbers make ties
    gain = rng.integers(-3, 9, (count, choices)) if whole else rng.normal(1, 2, (count, choices))
    cost = rng.integers(0, 6, (count, choices)) if whole else rng.exponential(2, (count, choices))
    return options(gain.astype(float), cost.astype(float)), draw(st.floats(0, 20))


@settings(max_examples=150, deadline=None)
@given(instances())
def test_small_requests_are_solved_exactly(case: tuple[Options, float]) -> None:
    asked, total = case
    found = allocate(asked, ids(len(asked.gain)), total)
    assert found.gain == pytest.approx(brute_force(asked, total), abs=1e-9)
    assert found.spent <= total


@settings(max_examples=150, deadline=None)
@given(instances())
def test_the_greedy_solution_is_within_one_step_of_the_bound(case: tuple[Options, float]) -> None:
    asked, total = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "EXACT_COMBINATIONS", 0)
        found = allocate(asked, ids(len(asked.gain)), total)
    best, bound = brute_force(asked, total), lp_bound(asked, total)
    assert found.spent <= total
    assert found.gain <= best + 1e-9 <= bound + 2e-9
    largest_step = float(np.clip(asked.gain, 0, None).max())
    assert best - found.gain <= bound - found.gain + 1e-9 <= largest_step + 2e-9


@pytest.mark.parametrize("exact", [0, allocation.EXACT_COMBINATIONS])
@settings(max_examples=60, deadline=None)
@given(case=instances(users=8, choices=3))
def test_more_money_never_gives_less(exact: int, case: tuple[Options, float]) -> None:
    asked, _ = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "EXACT_COMBINATIONS", exact)
        gains = [allocate(asked, ids(len(asked.gain)), total).gain for total in np.linspace(0, 30, 61)]
    assert all(more >= less - 1e-9 for less, more in itertools.pairwise(gains))


@settings(max_examples=80, deadline=None)
@given(case=instances(users=8, choices=3), seed=st.integers(0, 99), exact=st.booleans())
def test_the_order_of_users_does_not_matter(case: tuple[Options, float], seed: int, exact: bool) -> None:
    asked, total = case
    names = ids(len(asked.gain))
    shuffled = np.random.default_rng(seed).permutation(len(names))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "EXACT_COMBINATIONS", 20_000 if exact else 0)
        first = allocate(asked, names, total)
        moved = Options(asked.gain[shuffled], asked.cost[shuffled], asked.allowed[shuffled])
        second = allocate(moved, [names[user] for user in shuffled], total)
    np.testing.assert_array_equal(second.choice, first.choice[shuffled])
    assert (second.spent, second.gain, second.shadow_price) == (first.spent, first.gain, first.shadow_price)


def test_a_worked_example() -> None:
    # Steps by slope: a 0->(1, 5) at 5; b 0->(2, 8) at 4; a (1, 5)->(4, 11) at 2; c 0->(3, 3) at 1.
    asked = options(np.array([[5.0, 11.0], [8.0, -1.0], [3.0, 3.0]]), np.array([[1.0, 4.0], [2.0, 1.0], [3.0, 9.0]]))
    found = allocate(asked, ["a", "b", "c"], 4.0)
    assert (found.choice.tolist(), found.spent, found.gain, found.shadow_price) == ([1, 1, 0], 3.0, 13.0, 2.0)
    assert allocate(asked, ["a", "b", "c"], 6.0).choice.tolist() == [2, 1, 0]
    rich = allocate(asked, ["a", "b", "c"], 9.0)
    assert (rich.choice.tolist(), rich.spent, rich.gain, rich.shadow_price) == ([2, 1, 1], 9.0, 22.0, 0.0)


def test_equal_offers_go_to_the_smaller_ids() -> None:
    asked = options(np.ones((30, 1)), np.ones((30, 1)))
    names = [f"{user:02}" for user in reversed(range(30))]
    found = allocate(asked, names, 10.0)
    assert sorted(np.array(names)[found.choice == 1]) == [f"{user:02}" for user in range(10)]
    assert (found.spent, found.gain, found.shadow_price) == (10.0, 10.0, 1.0)


def test_no_money_free_offers_and_offers_that_are_not_allowed() -> None:
    asked = options(np.array([[2.0, 3.0], [1.0, -4.0]]), np.array([[0.0, 1.0], [2.0, 0.0]]))
    assert allocate(asked, ["a", "b"], 0.0).choice.tolist() == [1, 0]
    free = Options(asked.gain, np.zeros_like(asked.cost), asked.allowed)
    assert allocate(free, ["a", "b"], 1.0).choice.tolist() == unlimited(free).tolist() == [2, 1]
    closed = Options(asked.gain, asked.cost, np.array([[True, False, False], [True, True, True]]))
    assert allocate(closed, ["a", "b"], 9.0).choice.tolist() == [0, 1]
    broken = Options(np.array([[0.0, np.nan]]), np.array([[0.0, 1.0]]), np.ones((1, 2), dtype=np.bool_))
    assert allocate(broken, ["a"], 9.0).choice.tolist() == [0]


def test_without_a_budget_ties_go_to_the_option_named_first() -> None:
    asked = options(np.array([[3.0, 3.0, 2.0], [-1.0, 0.0, np.nan]]), np.array([[1.0, 2.0, 0.0]] * 2))
    assert unlimited(asked).tolist() == [1, 0]


def test_running_sums_that_round_down_do_not_overspend() -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        cost = rng.integers(1, 50, (40, 1)) / 10
        asked = options(cost * rng.uniform(1, 2, (40, 1)), cost)
        total = float(rng.integers(1, 400)) / 10
        found = allocate(asked, ids(40), total)
        assert math.fsum(asked.cost[np.arange(40), found.choice].tolist()) <= total


def test_a_thousand_users_with_dose_grids_take_milliseconds() -> None:
    rng = np.random.default_rng(0)
    doses = np.linspace(0, 1, 21)
    height, bend = rng.exponential(size=(1000, 4, 1)), rng.uniform(0.3, 3, (1000, 4, 1))
    gain = (height * doses**bend).reshape(1000, -1)
    cost = np.broadcast_to(0.1 + doses, (1000, 4, 21)).reshape(1000, -1)
    asked = options(gain, cost)
    started = time.process_time()
    found = allocate(asked, ids(1000), 300.0)
    seconds = time.process_time() - started
    assert found.spent <= 300.0
    dual = (asked.gain - found.shadow_price * asked.cost).max(axis=1).sum() + found.shadow_price * 300.0
    assert dual - found.gain <= float(gain.max())
    assert found.gain >= 0.999 * dual
    assert seconds < 1.0  # measured: 0.03 s

"""Who gets what within a budget: a multiple-choice knapsack, one option a user, the control costing nothing.

Per user only the options on the concave hull of (cost, gain) can be chosen at any price of money; from one to the next
the gain for a further unit of cost falls. Taking these steps best first is the Lagrangian solution, argmax(gain - price
x cost), for every price at once: the price where the money runs out is the slope of the first step that no longer
fits. Steps behind it are then taken while they fit. Since the order of the steps does not depend on the budget, more
money never gives less gain; since users are put in the order of their ids first, their order in a request does not
matter. Requests with few combinations are solved exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

# As many combinations are looked at one by one: 8 users with 3 options have 6,561.
EXACT_COMBINATIONS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Options:
    """What each of U users may get. Option 0 is the control: gain 0 and cost 0, always allowed.

    Attributes:
        gain: (U, O) net of the cost.
        cost: (U, O), not negative.
        allowed: (U, O); a gain that is NaN is not allowed either.
    """

    gain: Float
    cost: Float
    allowed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Allocation:
    """One option a user.

    Attributes:
        choice: (U,) int64, an index of the options.
        spent: sum of the costs.
        gain: sum of the gains.
        shadow_price: gain that one more unit of money would bring; 0 where there is money left for everything.
    """

    choice: Int
    spent: float
    gain: float
    shadow_price: float


@dataclass(frozen=True, slots=True)
class _Points:
    """Options worth considering, by user in the order of ids, inside a user by cost; the first costs nothing."""

    user: Int
    option: Int
    cost: Float
    gain: Float

    def take(self, keep: NDArray[np.bool_]) -> "_Points":
        return _Points(self.user[keep], self.option[keep], self.cost[keep], self.gain[keep])


def unlimited(options: Options) -> Int:
    """Everybody's best option (U,); ties go to the one named first, and so to the control and to smaller doses."""
    gain = np.where(options.allowed & ~np.isnan(options.gain), options.gain, -np.inf)
    return np.asarray(gain.argmax(axis=1), dtype=np.int64)


def allocate(options: Options, user_ids: Sequence[str], total: float) -> Allocation:
    """Choose so that the costs stay within ``total`` and the gains are as large as the greedy solution makes them.

    The gain is at most one step (one user's upgrade) below the best possible.

    Args:
        options: what each of U users may get.
        user_ids: (U,); equal offers go to the smaller id.
        total: money, not negative.
    """
    order = np.array(sorted(range(len(user_ids)), key=lambda row: user_ids[row]), dtype=np.int64)
    points = _undominated(options, order)
    hull = _concave(points)
    steps, price = _greedy(hull, total)
    taken = _last_of_each_user(hull, steps)
    if price > 0 and _combinations(points) <= EXACT_COMBINATIONS:
        taken, hull = _exact(points, total), points
    found = _allocation(hull, taken, len(order), price)
    choice = np.empty_like(found.choice)
    choice[order] = found.choice
    return Allocation(choice, found.spent, found.gain, price)


def _undominated(options: Options, order: Int) -> _Points:
    """Options that gain more than every cheaper one of the same user."""
    gain, cost = options.gain[order], options.cost[order]
    useful = options.allowed[order] & (gain > 0)
    useful[:, 0] = True
    user, option = np.nonzero(useful)
    points = _Points(user, option, cost[user, option], gain[user, option])
    by_cost = np.lexsort((points.option, -points.gain, points.cost, points.user))
    points = _Points(user[by_cost], option[by_cost], points.cost[by_cost], points.gain[by_cost])
    while True:
        follows = points.user[1:] == points.user[:-1]
        keep = np.ones(len(points.user), dtype=np.bool_)
        keep[1:] = ~(follows & (points.gain[1:] <= points.gain[:-1]))
        if keep.all():
            return points
        points = points.take(keep)


def _concave(points: _Points) -> _Points:
    """The upper hull: a point below the line through its neighbours goes, until none is."""
    while True:
        with np.errstate(
            over="ignore"
        ):  # across users the difference means nothing; a tiny cost may be infinitely good
            slope = np.diff(points.gain) / np.maximum(np.diff(points.cost), np.finfo(np.float64).tiny)
        inside = (points.user[2:] == points.user[:-2]) & (slope[:-1] < slope[1:])
        if not inside.any():
            return points
        keep = np.ones(len(points.user), dtype=np.bool_)
        keep[1:-1] = ~inside
        points = points.take(keep)


def _greedy(hull: _Points, total: float) -> tuple[Int, float]:
    """Indices of the hull's points that are stepped on, in the order of slopes, and the price of money."""
    step = np.flatnonzero(hull.user[1:] == hull.user[:-1]) + 1
    cost = hull.cost[step] - hull.cost[step - 1]
    with np.errstate(over="ignore"):
        slope = (hull.gain[step] - hull.gain[step - 1]) / cost
    rest = np.lexsort((hull.cost[step], hull.user[step], -slope))
    reached = int(np.searchsorted(np.cumsum(cost[rest]), total, side="right"))
    price = float(slope[rest[reached]]) if reached < len(rest) else 0.0
    taken: list[Int] = []
    left = total
    while len(rest):
        rest = _reachable(rest, hull.user[step], cost, left)
        spent = np.cumsum(cost[rest])
        fit = int(np.searchsorted(spent, left, side="right"))
        if fit == 0:
            break
        taken.append(rest[:fit])
        left -= float(spent[fit - 1])
        rest = rest[fit:]
    chosen = np.concatenate(taken) if taken else np.empty(0, dtype=np.int64)
    # The running sums round; the sum that is reported must not exceed the budget by that.
    while len(chosen) and math.fsum(cost[chosen].tolist()) > total:
        chosen = chosen[:-1]
    return step[chosen], price


def _reachable(rest: Int, user: Int, cost: Float, left: float) -> Int:
    """Steps that fit alone; a user whose step does not fit takes none of the later ones either."""
    place = np.arange(len(rest))
    blocked = np.full(int(user.max(initial=0)) + 1, len(rest))
    wide = cost[rest] > left
    np.minimum.at(blocked, user[rest][wide], place[wide])
    return rest[place < blocked[user[rest]]]


def _last_of_each_user(hull: _Points, steps: Int) -> Int:
    """The point each user ends on: the last step, or the first point where no step was taken."""
    first = np.flatnonzero(np.diff(hull.user, prepend=-1))
    ends = first.copy()
    np.maximum.at(ends, hull.user[steps], steps)
    return ends


def _combinations(points: _Points) -> float:
    with np.errstate(over="ignore"):
        return float(np.prod(np.bincount(points.user).astype(np.float64)))


def _exact(points: _Points, total: float) -> Int:
    """The best of all combinations; ties go to the cheaper one, then to smaller ids with cheaper options."""
    costs, gains = np.zeros(1), np.zeros(1)
    counts = np.bincount(points.user)
    first = np.cumsum(counts) - counts
    for start, count in zip(first, counts, strict=True):
        own = slice(start, start + count)
        costs = np.add.outer(costs, points.cost[own]).ravel()
        gains = np.add.outer(gains, points.gain[own]).ravel()
    gains[costs > total] = -np.inf
    best = np.flatnonzero(gains == gains.max())
    combination = best[costs[best].argmin()]
    return first + np.array(np.unravel_index(combination, tuple(counts.tolist())), dtype=np.int64)


def _allocation(points: _Points, chosen: Int, users: int, price: float) -> Allocation:
    choice = np.zeros(users, dtype=np.int64)
    choice[points.user[chosen]] = points.option[chosen]
    spent, gain = math.fsum(points.cost[chosen].tolist()), math.fsum(points.gain[chosen].tolist())
    return Allocation(choice, spent, gain, price)

"""Which treatment, at which dose, for whom: every user's own best, or the best within a budget.

A dose is chosen on the supported points of its grid and, where the curve has no jumps, refined between the two
neighbours. The control is always a candidate, so no recommendation is expected to lose.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle import effects
from service.core.allocation import Allocation, Options, allocate, unlimited
from service.core.question import Asked, Cost

Float = NDArray[np.float64]
Flags = NDArray[np.bool_]

NOTHING: Final = -1
CONTROL: Final = 0
# Two neighbours on a grid of 21 points are 0.1 of the range apart; ten steps leave 0.0005 of it, and float32 curves
# are too flat near their top to tell doses closer than that apart.
_STEPS: Final = 10


@dataclass(frozen=True, slots=True)
class Recommended:
    """One recommendation a user.

    Attributes:
        arm: (U,) NOTHING, CONTROL, or 1 + the place of the treatment among those asked.
        dose: (U,) in the treatment's unit, NaN where there is none.
        gain: (U,) value of the outcome won, less the cost; 0 for the control.
        budget: what is spent in total; None where no budget was given.
    """

    arm: NDArray[np.int64]
    dose: Float
    gain: Float
    budget: Allocation | None


@dataclass(frozen=True, slots=True)
class Candidates:
    """What may be recommended to U users.

    Attributes:
        control: (U,) outcome of the control.
        outcomes: (U, A) of the treatments without a dose.
        curves: by place of a treatment with a dose, its outcomes (U, G) and which grid points are supported (U, G).
        eligible: (U, A) treatments that may be recommended.
        at: scaled doses (U, A) to outcomes (U, A), for refining.
    """

    control: Float
    outcomes: Float
    curves: dict[int, tuple[Float, Flags]]
    eligible: Flags
    at: Callable[[Float], Float]


@dataclass(frozen=True, slots=True)
class _Offers:
    """The same as columns of options: which treatment (1 + place, 0 the control) and dose each column is."""

    options: Options
    arm: NDArray[np.int64]
    dose: Float


def recommend(asked: Asked, candidates: Candidates, user_ids: Sequence[str | None]) -> Recommended:
    """Choose for every user; see the module.

    Args:
        asked: The question.
        candidates: What there is to choose from.
        user_ids: (U,); looked at with a budget only.
    """
    offers = _offers(asked, candidates)
    budget = asked.question.budget
    allocation = None
    if budget is None:
        choice = unlimited(offers.options)
    else:
        ids = [user_id or "" for user_id in user_ids]
        allocation = allocate(_within(offers.options, budget.total), ids, budget.total)
        choice = allocation.choice
    rows = np.arange(len(candidates.control))
    nothing = np.isnan(candidates.control) | ~candidates.eligible.any(axis=1)
    return Recommended(
        arm=np.where(nothing, NOTHING, offers.arm[choice]),
        dose=offers.dose[rows, choice],
        gain=np.where(nothing, np.nan, offers.options.gain[rows, choice]),
        budget=allocation,
    )


def _within(options: Options, total: float) -> Options:
    """No money at all buys nothing, not even what happens to cost nothing; unless everything is free."""
    if total > 0 or not options.cost.any():
        return options
    allowed = np.zeros_like(options.allowed)
    allowed[:, 0] = True
    return Options(options.gain, options.cost, allowed)


def _offers(asked: Asked, candidates: Candidates) -> _Offers:
    return _dosed_offers(asked, candidates) if candidates.curves else _plain_offers(asked, candidates)


def _plain_offers(asked: Asked, candidates: Candidates) -> _Offers:
    """One option a treatment: none has a dose."""
    users, arms = candidates.outcomes.shape
    cost = np.array([0.0, *(_cost(asked, place, np.array(np.nan)) for place in range(arms))])
    gain = np.zeros((users, arms + 1))
    gain[:, 1:] = _value(asked) * candidates.outcomes - cost[1:] - _value(asked) * candidates.control[:, None]
    allowed = np.ones((users, arms + 1), dtype=np.bool_)
    allowed[:, 1:] = candidates.eligible
    options = Options(gain, np.broadcast_to(cost, gain.shape), allowed)
    return _Offers(options, np.arange(arms + 1), np.broadcast_to(np.nan, gain.shape))


def _dosed_offers(asked: Asked, candidates: Candidates) -> _Offers:
    """One option a treatment without a dose, one a dose for the others."""
    users = len(candidates.control)
    gains, costs, allowed = [np.zeros((users, 1))], [np.zeros((users, 1))], [np.ones((users, 1), dtype=np.bool_)]
    doses, arms = [np.full((users, 1), np.nan)], [np.zeros(1, dtype=np.int64)]
    refined = _refine(asked, candidates)
    for place in range(len(asked.names)):
        open_to = candidates.eligible[:, place, None]
        if place in candidates.curves:
            outcome, supported = candidates.curves[place]
            ok, dose = supported & open_to, np.broadcast_to(asked.grid(place), outcome.shape)
        else:
            outcome, ok, dose = candidates.outcomes[:, place, None], open_to, np.full((users, 1), np.nan)
        worth = _worth(asked, place, outcome, dose)
        if place in refined:
            best_dose, best_worth = refined[place]
            dose, worth = np.hstack([dose, best_dose[:, None]]), np.hstack([worth, best_worth[:, None]])
            ok = np.hstack([ok, open_to])
        gains.append(worth - _value(asked) * candidates.control[:, None])
        costs.append(_cost(asked, place, dose))
        allowed.append(ok)
        doses.append(dose)
        arms.append(np.full(dose.shape[1], place + 1))
    options = Options(np.hstack(gains), np.hstack(costs), np.hstack(allowed))
    return _Offers(options, np.concatenate(arms), np.hstack(doses))


def _value(asked: Asked) -> float:
    budget = asked.question.budget
    return 1.0 if budget is None else budget.value_per_outcome


def _worth(asked: Asked, place: int, outcome: Float, dose: Float) -> Float:
    """Value of outcomes at doses in their own unit, less the cost."""
    return _value(asked) * outcome - _cost(asked, place, dose)


def _cost(asked: Asked, place: int, dose: Float) -> Float:
    """Cost of a treatment at doses in its own unit; NaN, a treatment without a dose, costs its base."""
    budget = asked.question.budget
    cost = Cost() if budget is None else budget.costs.get(asked.names[place], Cost())
    # A dose below zero (a price cut, say) does not bring money back.
    return np.maximum(cost.base + cost.per_dose * np.where(np.isnan(dose), 0.0, dose), 0.0)


def _refine(asked: Asked, candidates: Candidates) -> dict[int, tuple[Float, Float]]:
    """Best dose in its own unit and its worth, (U,) each, for the treatments whose curves have no jumps.

    NaN where the best grid point is as good, or where there is none.
    """
    smooth = [place for place in candidates.curves if (scale := asked.scales[place]) is not None and scale.smooth]
    if not smooth:
        return {}
    best = {place: _best_point(asked, candidates, place) for place in smooth}
    shape = (len(candidates.control), len(asked.names))
    low, high = np.zeros(shape), np.zeros(shape)
    for place, (index, _) in best.items():
        low[:, place], high[:, place] = _bracket(index, candidates.curves[place][1])

    def gain(flat: Float) -> Float:
        scaled = flat.reshape(shape)
        outcomes = candidates.at(scaled)
        found = np.full(shape, np.nan)
        for place in smooth:
            found[:, place] = _worth(asked, place, outcomes[:, place], _own(asked, place, scaled))
        return found.ravel()

    doses, gains = (found.reshape(shape) for found in effects.golden_section(gain, low.ravel(), high.ravel(), _STEPS))
    refined = {}
    for place in smooth:
        index, on_grid = best[place]
        better = (index >= 0) & (gains[:, place] > on_grid)
        dose = np.where(better, _own(asked, place, doses), np.nan)
        refined[place] = dose, np.where(better, gains[:, place], np.nan)
    return refined


def _best_point(asked: Asked, candidates: Candidates, place: int) -> tuple[NDArray[np.int64], Float]:
    """Index of the best supported grid point, -1 where none is, and its worth, (U,) each."""
    outcome, supported = candidates.curves[place]
    worth = _worth(asked, place, outcome, asked.grid(place))
    index = effects.first_best(worth, supported & candidates.eligible[:, place, None])
    return index, np.take_along_axis(worth, np.maximum(index, 0)[:, None], axis=1)[:, 0]


def _bracket(index: NDArray[np.int64], supported: Flags) -> tuple[Float, Float]:
    """Scaled doses (U,) of the grid points beside the best one, or of itself where a neighbour is not supported."""
    last, rows = supported.shape[1] - 1, np.arange(len(index))
    here = np.maximum(index, 0)
    below, above = np.maximum(here - 1, 0), np.minimum(here + 1, last)
    low = np.where(supported[rows, below], below, here)
    high = np.where(supported[rows, above], above, here)
    return low / last, high / last


def _own(asked: Asked, place: int, scaled: Float) -> Float:
    scale = asked.scales[place]
    if scale is None:
        raise ValueError(f"place must be of a treatment with a dose, got {place}")
    return effects.unscaled_doses(scaled[:, place], scale)

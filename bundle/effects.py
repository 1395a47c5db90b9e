"""From an uplift graph's outputs to outcomes, effects, propensities, overlap and doses, in float64.

Networks answer on the scale of their losses because float32 sigmoids saturate; everything after the graph happens
here, once, for training's own evaluation, for the service and for files alike. Letters: U users, K treatments (the
control first), G points of a dose grid. Numbers that are not finite go through as NaN; nothing here raises for them.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.correct import sigmoid
from bundle.treatment import DoseScale, OutcomeScale

Float = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Below these shares of users like this one got the arm, so its outcome is an extrapolation.
WEAK_BELOW: Final = 0.05
VIOLATED_BELOW: Final = 0.01
OVERLAP: Final = ("ok", "weak", "violated", "unknown")
OK, WEAK, VIOLATED, UNKNOWN = range(4)
# Density of a dose on the scale [0, 1], where a dose given blindly has density 1.
LEAST_DENSITY: Final = 0.05
_GOLDEN: Final = (5**0.5 - 1) / 2


def outcomes(values: ArrayLike, scale: OutcomeScale) -> Float:
    """Outcomes in their own units, any shape: the probability of a binary one, or mean + sd * value."""
    raw = np.asarray(values, dtype=np.float64)
    if scale.kind == "binary":
        found, known = sigmoid(raw), np.isfinite(raw)
    else:
        with np.errstate(over="ignore"):
            found = raw * scale.sd + scale.mean
        known = np.isfinite(found)  # and so is what it was made of
    return found if known.all() else np.where(known, found, np.nan)


def effects(potential: Float) -> Float:
    """Outcomes (..., K) to effects (..., K - 1): each treatment's outcome minus the control's, nothing rounded.

    For outcomes along a dose grid move the treatments to the last axis first.
    """
    return np.asarray(potential[..., 1:] - potential[..., :1])


def propensities(logits: ArrayLike) -> Float:
    """Softmax over the last axis, (..., K): probability of each treatment. A row with NaN or +inf is NaN."""
    # Treatment by treatment in memory: a sum over the handful of numbers of a user costs more than their exp.
    z = np.array(np.moveaxis(np.asarray(logits), -1, 0), dtype=np.float64, order="C")
    with np.errstate(invalid="ignore", under="ignore"):
        z -= z.max(axis=0)
        shares = np.exp(z, out=z)
        shares /= shares.sum(axis=0)
    return np.moveaxis(shares, 0, -1)


def clipped(propensity: Float, bounds: tuple[float, float]) -> Float:
    """Propensities held inside ``bounds``, for dividing by them; what is reported is never clipped."""
    return np.clip(propensity, *bounds)


def overlap(propensity: Float) -> NDArray[np.int8]:
    """How far the data speaks for each arm, (...): an index into ``OVERLAP``; NaN is unknown."""
    weak, violated = propensity < WEAK_BELOW, propensity < VIOLATED_BELOW
    flags = weak.astype(np.int8) * np.int8(WEAK) + violated.astype(np.int8) * np.int8(VIOLATED - WEAK)
    flags[np.isnan(propensity)] = UNKNOWN
    return flags


# --- doses -----------------------------------------------------------------------------------------------------------


def scaled_doses(doses: ArrayLike, scale: DoseScale) -> Float:
    """Doses in their own unit to the graph's [0, 1]; the ends are met exactly."""
    return (np.asarray(doses, dtype=np.float64) - scale.low) / (scale.high - scale.low)


def unscaled_doses(scaled: ArrayLike, scale: DoseScale) -> Float:
    """The inverse of ``scaled_doses``; 0 and 1 give low and high exactly."""
    share = np.asarray(scaled, dtype=np.float64)
    return (1.0 - share) * scale.low + share * scale.high


def in_range(doses: ArrayLike, scale: DoseScale) -> Flags:
    """Which doses lie between the lowest and the highest that training saw; NaN does not."""
    own = np.asarray(doses, dtype=np.float64)
    return (own >= scale.low) & (own <= scale.high)


def supported(doses: ArrayLike, scale: DoseScale, density: Float | None = None) -> Flags:
    """Which doses training knows about.

    A dose on an edge belongs to the stratum above it; any other end of an interval belongs to the interval.

    Args:
        doses: (G,) in their own unit.
        scale: of the arm.
        density: (..., G) of the dose given user and treatment, integral 1 over the scaled doses; None: not estimated.

    Returns:
        (G,), or (..., G) with a density; a density that is NaN supports nothing.
    """
    own = np.asarray(doses, dtype=np.float64)
    inside = np.zeros(own.shape, dtype=np.bool_)
    for low, high in scale.supported:
        inside |= (own >= low) & ((own < high) if high in scale.edges else (own <= high))
    return inside if density is None else inside & (density >= LEAST_DENSITY)


def first_best(gain: Float, allowed: Flags) -> NDArray[np.int64]:
    """Index of the largest allowed gain along the last axis; ties go to the smaller index, -1 where none is allowed.

    With doses ascending along that axis a tie goes to the smaller dose.
    """
    open_gain = np.where(allowed & ~np.isnan(gain), gain, -np.inf)
    best = open_gain.argmax(axis=-1)
    reached = np.take_along_axis(open_gain, best[..., None], axis=-1)[..., 0]
    return np.where(reached > -np.inf, best, -1)


def golden_section(gain: Callable[[Float], Float], low: Float, high: Float, steps: int) -> tuple[Float, Float]:
    """Maximum of a function of one dose a user, all users at once, each inside its own bracket.

    A bracket keeps 0.618 of its width a step. A NaN counts as less than any number.

    Args:
        gain: doses (U,) to gains (U,).
        low: (U,) lower ends of the brackets.
        high: (U,) upper ends.
        steps: evaluations after the first two.

    Returns:
        Best dose seen and its gain, both (U,).
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = _known(gain(left)), _known(gain(right))
    for _ in range(steps):
        lower = at_left >= at_right  # a tie keeps the half of the smaller doses
        low, high = np.where(lower, low, left), np.where(lower, right, high)
        probe = np.where(lower, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_probe = _known(gain(probe))
        left, right = np.where(lower, probe, right), np.where(lower, left, probe)
        at_left, at_right = np.where(lower, at_probe, at_right), np.where(lower, at_left, at_probe)
    lower = at_left >= at_right
    return np.where(lower, left, right), np.where(lower, at_left, at_right)


def _known(values: Float) -> Float:
    return np.where(np.isnan(values), -np.inf, values)

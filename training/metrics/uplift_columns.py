"""Checked inputs of the treatment-effect metrics, and the value they return where a cell may be empty."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.metrics.columns import Floats, Integers

Booleans = NDArray[np.bool_]

# Softmax in float32 leaves row sums within about 1e-6 of one; anything beyond this is not a distribution.
_SUM_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric's value; warnings say in a sentence each which cell was empty and what was counted in its place."""

    value: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contrast:
    """The rows of one comparison, a treatment against a control, in the order in which they were given.

    Shapes: all (N,); kept (B,) marks the rows of either arm among those given.
    """

    outcome: Floats
    treated: Booleans
    kept: Booleans

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each arm that has no rows."""
        count = int(self.treated.sum())
        empty = [("treated", count == 0), ("control", count == len(self.treated))]
        return tuple(f"no row is {arm}, so the metric counts 0" for arm, is_empty in empty if is_empty)


def column(values: ArrayLike, name: str, rows: int | None = None) -> Floats:
    """A finite column in float64; (B,) -> (B,).

    Raises:
        ValueError: if it has another number of dimensions or rows, no rows at all, or a NaN or infinite value.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"{name} must be a column with at least one row, got shape {found.shape}")
    if rows is not None and len(found) != rows:
        raise ValueError(f"{name} must have {rows} rows like the other columns, got {len(found)}")
    _refuse_gaps(found, name)
    return found


def table(values: ArrayLike, name: str, shape: tuple[int | None, ...]) -> Floats:
    """A finite array in float64 of the wanted shape, None where any positive length will do.

    Raises:
        ValueError: if the shape differs, a dimension is empty, or a value is NaN or infinite.
    """
    found = np.asarray(values, dtype=np.float64)
    fits = found.ndim == len(shape) and all(
        have > 0 if want is None else have == want for have, want in zip(found.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} must have shape ({wanted}), got {found.shape}")
    _refuse_gaps(found, name)
    return found


def mask(values: ArrayLike, name: str, rows: int) -> Booleans:
    """A boolean column, 0 and 1 accepted; (B,) -> (B,).

    Raises:
        ValueError: if it has another shape or holds anything but 0 and 1.
    """
    found = column(np.asarray(values), name, rows)
    if not np.isin(found, (0.0, 1.0)).all():
        raise ValueError(f"{name} must hold booleans or 0 and 1, got {found[~np.isin(found, (0.0, 1.0))][0]:g}")
    return np.asarray(found == 1.0)


def arm_codes(values: ArrayLike, name: str, arms: int, rows: int | None = None) -> Integers:
    """Arm numbers 0..arms-1; (B,) -> (B,) int64.

    Raises:
        ValueError: if a value is not one of the arm numbers.
    """
    found = column(values, name, rows)
    wrong = (found != np.floor(found)) | (found < 0) | (found >= arms)
    if wrong.any():
        raise ValueError(f"{name} must hold arm numbers 0 to {arms - 1}, got {found[wrong][0]:g}")
    return found.astype(np.int64)


def probabilities(values: ArrayLike, name: str, rows: int) -> Floats:
    """Arm probabilities of each row; (B, K) -> (B, K).

    Raises:
        ValueError: if a value lies outside [0, 1] or a row does not sum to 1.
    """
    found = table(values, name, (rows, None))
    if ((found < 0) | (found > 1)).any():
        raise ValueError(f"{name} must be probabilities in [0, 1]; give softmax(logits), not logits")
    if np.abs(found.sum(axis=1) - 1).max() > _SUM_TOLERANCE:
        raise ValueError(f"{name} must sum to 1 over the arms of every row")
    return found


def contrast(outcome: ArrayLike, treated: ArrayLike, control: ArrayLike | None = None) -> Contrast:
    """Select the rows of two arms; rows of neither are left out.

    Shapes: outcome, treated, control (B,); without control, every row that is not treated.

    Raises:
        ValueError: if a column is malformed, an outcome is not finite, a row is in both arms or no row in either.
    """
    outcomes = column(outcome, "outcome")
    in_treated = mask(treated, "treated", len(outcomes))
    in_control = ~in_treated if control is None else mask(control, "control", len(outcomes))
    if (in_treated & in_control).any():
        raise ValueError("a row cannot be both treated and control")
    kept = in_treated | in_control
    if not kept.any():
        raise ValueError("no row is treated or control, so there is nothing to compare")
    return Contrast(outcomes[kept], in_treated[kept], kept)


def _refuse_gaps(values: Floats, name: str) -> None:
    gaps = int((~np.isfinite(values)).sum())
    if gaps:
        raise ValueError(f"{name} must be finite, got {gaps} NaN or infinite values of {values.size}")

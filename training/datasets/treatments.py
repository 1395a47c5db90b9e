"""Arms and doses of rows: read, checked against the declaration, and where rows without a place in it go."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bundle.schema import Treatment
from training.datasets.split import SplitCodes
from training.datasets.tables import Tables
from training.errors import DataError

NO_ARM: Final = -1
OTHER_ARMS: Final = "rows whose treatment is none of the arms, left out"
IGNORED_DOSES: Final = "doses of arms without a dose, ignored"


@dataclass(frozen=True, slots=True)
class Treated:
    """What was done to N rows.

    Attributes:
        arm: (N,) int64, number of the arm; 0 is the control.
        dose: (N,) float64 in its own units, NaN where the arm has no dose.
    """

    arm: NDArray[np.int64]
    dose: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> "Treated":
        """Some of the rows, in the order asked."""
        return Treated(self.arm[rows], self.dose[rows])


def treated(tables: Tables, treatment: Treatment) -> tuple[NDArray[np.int64], Treated, dict[str, int]]:
    """The rows (M,) that have an arm, what was done to them, and counts of what was left out.

    Raises:
        DataError: naming the file, the column and the row of a cell that means no arm, or of a dose that is missing or
            outside the declared range.
    """
    arm = _arms(tables, treatment)
    dose = _doses(tables, treatment, arm)
    ignored = 0 if treatment.dose is None else _ignored(tables.rows[treatment.dose], dose)
    kept = np.flatnonzero(arm != NO_ARM).astype(np.int64)
    notes = {OTHER_ARMS: len(arm) - len(kept), IGNORED_DOSES: ignored}
    if len(kept) == 0:
        raise DataError(f"{tables.file('rows')}, column {treatment.column!r}: no row has one of the arms")
    return kept, Treated(arm, dose).take(kept), {note: count for note, count in notes.items() if count}


def rows_of(tables: Tables, kept: NDArray[np.int64]) -> Tables:
    """The tables with some of their rows, in the order asked."""
    return replace(
        tables,
        rows=tables.rows[kept],
        split=None if tables.split is None else tables.split[kept],
        truth=None if tables.truth is None else tables.truth.take(kept),
    )


def _arms(tables: Tables, treatment: Treatment) -> NDArray[np.int64]:
    """Number of the arm of each row (N,), NO_ARM where the cell means none and such rows are left out."""
    cells = treatment.cells
    texts = tables.rows[treatment.column]
    codes = texts.replace_strict(list(cells), list(cells.values()), default=NO_ARM, return_dtype=pl.Int64)
    arm = codes.to_numpy().astype(np.int64)
    wrong = np.flatnonzero(arm == NO_ARM)
    if treatment.other_values == "refuse" and len(wrong):
        row = int(wrong[0])
        known = ", ".join(_shown(text, treatment.arms[place]) for text, place in cells.items())
        raise DataError(
            f"{tables.file('rows')}, column {treatment.column!r}, row {row + 1}: {texts[row]!r} is none of the arms; "
            f"known are {known}"
        )
    return arm


def _shown(text: str, arm: str) -> str:
    return repr(text) if text == arm else f"{text!r} ({arm})"


def _doses(tables: Tables, treatment: Treatment, arm: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dose of each row (N,), NaN in arms without one."""
    out = np.full(len(arm), np.nan)
    if treatment.dose is None:
        return out
    values = tables.rows[treatment.dose].cast(pl.Float64).fill_null(np.nan).to_numpy()
    has_dose = np.isin(arm, [treatment.arms.index(name) for name in treatment.dosed])
    where = f"{tables.file('rows')}, column {treatment.dose!r}"
    absent = np.flatnonzero(has_dose & np.isnan(values))
    if len(absent):
        row = int(absent[0])
        name = treatment.arms[arm[row]]
        raise DataError(f"{where}, row {row + 1}: the dose is missing, and arm {name!r} needs one")
    if treatment.dose_range is not None:
        low, high = treatment.dose_range
        outside = np.flatnonzero(has_dose & ((values < low) | (values > high)))
        if len(outside):
            row = int(outside[0])
            raise DataError(
                f"{where}, row {row + 1}: the dose {values[row]:g} lies outside treatment.dose_range, "
                f"{low:g} to {high:g}"
            )
    return np.where(has_dose, values, out)


def _ignored(column: pl.Series, dose: NDArray[np.float64]) -> int:
    """How many rows have a dose other than 0 in an arm that has none."""
    values = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return int(np.count_nonzero(np.isnan(dose) & ~np.isnan(values) & (values != 0)))


def check_arms(split: SplitCodes, given: Treated, treatment: Treatment, file: str) -> None:
    """Refuse to train with an arm that no training row has.

    The control may be absent where `reference_dose` says which dose it stands for, other arms where
    `allow_missing_arms` is set.

    Raises:
        DataError: naming the arm.
    """
    counts = np.bincount(given.arm[split == 0], minlength=len(treatment.arms))
    for place, name in enumerate(treatment.arms):
        if counts[place]:
            continue
        if name == treatment.control and treatment.reference_dose is None:
            raise DataError(f"{file}: arm {name!r} has no rows to train on, and effects are measured against it")
        if name != treatment.control and not treatment.allow_missing_arms:
            raise DataError(
                f"{file}: arm {name!r} has no rows to train on; with treatment.allow_missing_arms = true the other "
                "arms are trained"
            )


def dose_ranges(
    split: SplitCodes, given: Treated, treatment: Treatment, file: str
) -> Mapping[str, tuple[float, float]]:
    """Lowest and highest dose of each arm that has doses and training rows, in their own units.

    Raises:
        DataError: if all training rows of an arm have the same dose.
    """
    out: dict[str, tuple[float, float]] = {}
    for name in treatment.dosed:
        doses = given.dose[(split == 0) & (given.arm == treatment.arms.index(name))]
        if treatment.dose_range is not None:
            out[name] = treatment.dose_range
        elif len(doses):
            out[name] = (float(doses.min()), float(doses.max()))
            if out[name][0] == out[name][1]:
                raise DataError(
                    f"{file}, column {treatment.dose!r}: every training row of arm {name!r} has the dose "
                    f"{doses[0]:g}, so there is no curve to learn; leave treatment.dose out"
                )
    return out

"""Train, valid and test: by time, at random, or as a column of the file says."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError

SPLITS: Final = ("train", "valid", "test")
SplitCodes = NDArray[np.int8]  # index into SPLITS


def split_by_time(time: NDArray[np.float64], valid: float, test: float) -> SplitCodes:
    """Oldest rows train, newest test; rows of one second stay together.

    Train goes up to and including the time at sorted index floor((1 - valid - test) N), valid up to and including
    the one at floor((1 - test) N).

    Shapes: time (N,) -> (N,) int8 index into SPLITS.

    Raises:
        DataError: if a part would be empty.
    """
    ordered = np.sort(time)
    # Rounded first: (1 - 0.1 - 0.1) * 10 is 7.999... in floating point and must still be index 8.
    last_train = ordered[math.floor(round((1 - valid - test) * len(time), 6))] if len(time) else 0.0
    last_valid = ordered[math.floor(round((1 - test) * len(time), 6))] if len(time) else 0.0
    codes = np.where(time <= last_train, 0, np.where(time <= last_valid, 1, 2)).astype(np.int8)
    check_parts(codes, "a split by time")
    return codes


def split_at_random(units: NDArray[np.uint64], test: float, seed: int) -> SplitCodes:
    """Units are shuffled; the first round((1 - test) M) of M train, the rest tests. Rows of one unit stay together.

    Shapes: units (N,), the person behind each row -> (N,) int8 index into SPLITS, without valid.

    Raises:
        DataError: if there are too few units for a share of them to be tested.
    """
    unit = in_order_of_appearance(units)
    count = int(unit.max(initial=-1)) + 1
    order = np.random.default_rng(seed).permutation(count)
    codes = np.full(count, 2, dtype=np.int8)
    codes[order[: round((1 - test) * count)]] = 0
    rows = codes[unit]
    check_parts(rows, "a random split", ("train", "test"))
    return rows


def with_validation(
    codes: SplitCodes, units: NDArray[np.uint64], arm: NDArray[np.int64], share: float, seed: int
) -> SplitCodes:
    """A share of the units that are not tested becomes valid, drawn arm by arm so that every arm is validated.

    A unit counts for the arm of its first row. An arm of one unit is trained on and not validated.

    Shapes: codes, units, arm (N,) -> (N,).

    Raises:
        DataError: if no row is left to validate.
    """
    rest = np.flatnonzero(codes != 2)
    unit = in_order_of_appearance(units[rest])
    first = np.unique(unit, return_index=True)[1]
    generator = np.random.default_rng(seed)
    valid = np.zeros(len(first), dtype=np.bool_)
    for k in np.unique(arm[rest]):
        members = np.flatnonzero(arm[rest][first] == k)
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        valid[generator.permutation(members)[: max(count, 0)]] = True
    out = np.where(codes == 2, np.int8(2), np.int8(0))
    out[rest[valid[unit]]] = 1
    check_parts(out, "drawing validation rows", ("train", "valid"))
    return out


def in_order_of_appearance(units: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of each row's unit (N,): 0 for the first unit met, 1 for the next, and so on."""
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def split_by_column(values: list[str | None], where: str, needed: Sequence[str] = SPLITS) -> SplitCodes:
    """Codes of a column whose values are train, valid and test.

    Raises:
        DataError: for another value, or if a part of the needed ones would be empty.
    """
    codes = np.empty(len(values), dtype=np.int8)
    known: dict[str | None, int] = {name: code for code, name in enumerate(SPLITS)}
    for row, value in enumerate(values):
        if value not in known:
            raise DataError(f"{where}, row {row + 1}: expected train, valid or test, got {value!r}")
        codes[row] = known[value]
    check_parts(codes, where, needed)
    return codes


def check_parts(codes: SplitCodes, where: str, needed: Sequence[str] = SPLITS) -> None:
    """Refuse a split with an empty part.

    Raises:
        DataError: naming the empty part.
    """
    for code, name in enumerate(SPLITS):
        if name in needed and not (codes == code).any():
            raise DataError(f"{where} leaves no rows in {name} (of {len(codes)} rows)")

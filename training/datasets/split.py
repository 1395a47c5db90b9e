"""Train, valid and test: by time, or as a column of the file says."""

import math
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


def split_by_column(values: list[str | None], where: str) -> SplitCodes:
    """Codes of a column whose values are train, valid and test.

    Raises:
        DataError: for another value, or if a part would be empty.
    """
    codes = np.empty(len(values), dtype=np.int8)
    known: dict[str | None, int] = {name: code for code, name in enumerate(SPLITS)}
    for row, value in enumerate(values):
        if value not in known:
            raise DataError(f"{where}, row {row + 1}: expected train, valid or test, got {value!r}")
        codes[row] = known[value]
    check_parts(codes, where)
    return codes


def check_parts(codes: SplitCodes, where: str) -> None:
    """Refuse a split with an empty part.

    Raises:
        DataError: naming the empty part.
    """
    for code, name in enumerate(SPLITS):
        if not (codes == code).any():
            raise DataError(f"{where} leaves no rows in {name} (of {len(codes)} rows)")

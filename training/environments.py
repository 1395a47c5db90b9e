"""The environments of the training rows: which there are, which can be used, and batches that hold all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.errors import DataError

Int64 = NDArray[np.int64]

# Two halves with a row each are the least that an unbiased penalty needs.
LEAST_ROWS: Final = 2
LEAST_ENVIRONMENTS: Final = 2


@dataclass(frozen=True, slots=True)
class Environments:
    """The environments that training uses.

    Attributes:
        names: as the column has them, in the order of the codes.
        rows: (M,) the rows that belong to them, in their order; the others take no part in training.
        codes: (M,) the environment of each of these rows.
        warnings: a sentence for each environment that was left out.
    """

    names: tuple[str, ...]
    rows: Int64
    codes: Int64
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def environments_of(texts: pl.Series, labels: NDArray[Any], weights: NDArray[Any], column: str) -> Environments:
    """The environments that a column names, without those from which nothing invariant can be learnt.

    An environment is left out, with a warning, if for some output it has fewer than two labelled rows or only one
    value of the label.

    Args:
        texts: (N,) the environment of each training row.
        labels: (N, K); what stands where the weight is 0 is not looked at.
        weights: (N, K).
        column: what messages call the column.

    Raises:
        DataError: if a row has no environment, or fewer than two environments remain.
    """
    if texts.null_count():
        raise DataError(f"invariance.column: {texts.null_count()} training rows have no {column}, every one needs it")
    listed = sorted(set(texts.to_list()))
    code_of = {name: code for code, name in enumerate(listed)}
    codes = np.array([code_of[name] for name in texts.to_list()], dtype=np.int64)
    problems = {name: _problem(labels[codes == code], weights[codes == code]) for name, code in code_of.items()}
    used = [name for name in listed if problems[name] is None]
    left_out = [f"environment {column}={name} is left out: it has {what}" for name, what in problems.items() if what]
    if len(used) < LEAST_ENVIRONMENTS:
        reason = f" ({'; '.join(left_out[:3])})" if left_out else ""
        raise DataError(
            f"invariance.column: training across environments needs at least {LEAST_ENVIRONMENTS}, and {column} "
            f"gives {len(used)}{reason}"
        )
    new_code = np.full(len(listed), -1, dtype=np.int64)
    new_code[[code_of[name] for name in used]] = np.arange(len(used))
    rows = np.flatnonzero(new_code[codes] >= 0).astype(np.int64)
    return Environments(names=tuple(used), rows=rows, codes=new_code[codes][rows], warnings=tuple(left_out))


def _problem(labels: NDArray[Any], weights: NDArray[Any]) -> str | None:
    """Why an environment with these rows (n, K) cannot be used, or None."""
    for output in range(labels.shape[1]):
        counted = labels[weights[:, output] > 0, output]
        if len(counted) < LEAST_ROWS:
            return f"{len(counted)} labelled row{'' if len(counted) == 1 else 's'}"
        if (counted == counted[0]).all():
            return f"only the label {counted[0]:g}"
    return None


def environment_batches(codes: Int64, batch_size: int, generator: np.random.Generator) -> list[Int64]:
    """The batches of one epoch, each with rows of every environment in the proportion of the whole.

    Every row comes at least once. An environment with fewer than two rows a batch is gone through again, which a mean
    over environments does not notice. Batches differ by a few rows from ``batch_size``; rows are in random order.

    Args:
        codes: (N,) environment of each row, from 0.
        batch_size: rows a batch; N or more makes one batch of all rows.
        generator: draws the order.
    """
    batches = -(-len(codes) // batch_size)
    shares: list[Sequence[Int64]] = []
    for code in range(int(codes.max()) + 1):
        rows = np.flatnonzero(codes == code)
        needed = max(len(rows), LEAST_ROWS * batches)
        # A repetition is a fresh permutation, so that no row comes twice before every other has come once.
        rounds = [generator.permutation(rows) for _ in range(-(-needed // len(rows)))]
        shares.append(np.array_split(np.concatenate(rounds)[:needed], batches))
    # array_split gives its first parts the odd rows: turned for each environment, no batch gets the odd row of all.
    parts = [[share[(number + turn) % batches] for turn, share in enumerate(shares)] for number in range(batches)]
    return [generator.permutation(np.concatenate(part)).astype(np.int64) for part in parts]

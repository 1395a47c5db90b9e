"""Raw columns before encoding: texts become id64, numbers float64 with NaN for missing.

An id column that may hold several values is padded to (..., W) with `MISSING_ID`.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bundle.behaviours import Behaviours
from bundle.errors import FeatureError, FeatureProblem
from bundle.ids import MISSING_ID, id64_column

Column = NDArray[Any]  # uint64 ids or float64 numbers
# The types of a value that JSON or a file brings where a number, or an id, may stand; None is a missing one.
NUMBERS: Final = frozenset({int, float, type(None)})
TEXTS: Final = frozenset({str, type(None)})


@dataclass(frozen=True, slots=True)
class NumberBlock:
    """Every number feature of user and context in one array: a request fills it at once, not a column a feature.

    Attributes:
        names: the N features, in the order of the declaration.
        values: (U, N) float64, NaN for missing.
        given: names that the rows give at all, be it as missing.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]
    given: Set[str]


@dataclass(frozen=True, slots=True)
class Rows:
    """U users x C candidates, before encoding.

    Attributes:
        time: (U,) float64 seconds; what a row may know lies strictly before it.
        items: (U, C) uint64, id64 of the candidates.
        behaviours: the U histories.
        user: user and context features by name, ids (U,) or (U, W) uint64, numbers (U,) float64; a name that is
            absent is missing in every row.
        candidate: candidate features by name, (U, C) or (U, C, W). Required for `per_row` features; for columns of
            the item table a value that is not missing overrides the table.
        numbers: the number features of user and context, where they come together; then `user` holds ids alone.
    """

    time: NDArray[np.float64]
    items: NDArray[np.uint64]
    behaviours: Behaviours
    user: Mapping[str, Column] = field(default_factory=dict)
    candidate: Mapping[str, Column] = field(default_factory=dict)
    numbers: NumberBlock | None = None

    def __post_init__(self) -> None:
        if self.items.ndim != 2 or self.items.dtype != np.uint64:
            raise ValueError(f"items must be uint64 (U, C), got {self.items.dtype} {self.items.shape}")
        users = self.items.shape[0]
        if self.time.shape != (users,) or len(self.behaviours) != users:
            raise ValueError(f"{users} rows of items, times {self.time.shape}, {len(self.behaviours)} histories")
        for name, column in self.user.items():
            if column.shape[:1] != (users,):
                raise ValueError(f"user column {name!r} has shape {column.shape}, expected {users} rows")
        for name, column in self.candidate.items():
            if column.shape[:2] != self.items.shape:
                raise ValueError(f"candidate column {name!r} has shape {column.shape}, expected {self.items.shape}")
        block = self.numbers
        if block is not None and block.values.shape != (users, len(block.names)):
            raise ValueError(f"{len(block.names)} numbers of {users} rows have the shape {block.values.shape}")

    def take(self, rows: NDArray[np.int64] | slice) -> "Rows":
        """Some of the rows, in the order asked; the event log is shared."""
        return Rows(
            time=self.time[rows],
            items=self.items[rows],
            behaviours=self.behaviours.take(rows),
            user={name: column[rows] for name, column in self.user.items()},
            candidate={name: column[rows] for name, column in self.candidate.items()},
            numbers=self.numbers and replace(self.numbers, values=self.numbers.values[rows]),
        )


class Declared(Protocol):
    """What a raw column needs to know about its feature: id and number declarations both have it."""

    @property
    def name(self) -> str:
        """The column's name, for messages."""

    @property
    def kind(self) -> str:
        """`id` or `number`."""

    @property
    def max_values(self) -> int:
        """How many ids one value may hold."""

    @property
    def sep(self) -> str | None:
        """What separates several ids inside one text."""


def raw_column(feature: Declared, values: Sequence[Any] | NDArray[Any]) -> Column:
    """A column of a file or a request as the encoder takes it: ids (N,) or (N, W) uint64, numbers (N,) float64.

    Args:
        feature: an id or number declaration.
        values: ids as str or None (several: a list of str, or one text joined by `sep`); numbers as int, float or
            None, where NaN also means missing.

    Raises:
        FeatureError: naming the column and the row of each value of another type, and infinite numbers.
    """
    if feature.kind == "number":
        return number_column(feature.name, values)
    if feature.max_values == 1:
        return _single_ids(feature.name, values)
    return _several_ids(feature, values)


def quick_column(feature: Declared, values: Sequence[Any]) -> Column | None:
    """`raw_column` of values in whose types nothing can be wrong; None where each has to be looked at.

    A NaN of the caller's own is no missing value here: whoever looks closer says so.
    """
    kinds = set(map(type, values))
    if feature.kind == "number":
        if not kinds <= NUMBERS:
            return None
        try:
            numbers = np.array(values, dtype=np.float64)  # None becomes NaN
        except OverflowError:
            return None
        finite = np.count_nonzero(np.isfinite(numbers))
        return numbers if finite == len(values) - values.count(None) else None
    if feature.max_values > 1 or not kinds <= TEXTS:
        return None
    try:
        return id64_column(values)
    except ValueError:
        return None


def number_column(name: str, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
    """Numbers (N,) as float64 with NaN for missing.

    Raises:
        FeatureError: for texts, booleans and infinities, each with its row.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        numbers = values.astype(np.float64)
    else:
        listed = values.tolist() if isinstance(values, np.ndarray) else values
        problems = [problem for row, value in enumerate(listed) if (problem := number_problem(f"/{name}/{row}", value))]
        if problems:
            raise FeatureError(problems)
        numbers = np.array([np.nan if value is None else value for value in listed], dtype=np.float64)
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise FeatureError([FeatureProblem(f"/{name}/{row}", "not_finite", "must be finite") for row in infinite[:20]])
    return numbers


def number_problem(pointer: str, value: object) -> FeatureProblem | None:
    """Why a value is not a number a file may hold, or None. Missing values (None, NaN) are no problem here."""
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return FeatureProblem(pointer, "schema", f"must be a number, got {type(value).__name__}")
    try:
        infinite = np.isinf(float(value))
    except OverflowError:
        infinite = True
    return FeatureProblem(pointer, "not_finite", "must be finite") if infinite else None


def _single_ids(name: str, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.uint64]:
    if isinstance(values, np.ndarray) and values.dtype == np.uint64:
        return values
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    try:
        return id64_column(listed)
    except (ValueError, TypeError) as error:  # TypeError: a list where one id is expected cannot be a dict key
        problems = [id_problem(f"/{name}/{row}", value) for row, value in enumerate(listed)]
        raise FeatureError([problem for problem in problems if problem]) from error


def id_problem(pointer: str, value: object) -> FeatureProblem | None:
    """Why a value is not one id, or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        return FeatureProblem(pointer, "schema", f"must be a string, got {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return FeatureProblem(pointer, "schema", "must be valid Unicode text")
    return None


def _several_ids(feature: Declared, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.uint64]:
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    split = [split_ids(value, feature.sep) for value in listed]
    problems = [
        problem
        for row, members in enumerate(split)
        for member in (members if isinstance(members, list) else [members])
        if (problem := id_problem(f"/{feature.name}/{row}", member))
    ]
    if problems:
        raise FeatureError(problems)
    lengths = np.array([len(members) for members in split], dtype=np.int64)
    flat = id64_column([member for members in split for member in members])
    return pad_ragged(flat, lengths, feature.max_values)


def split_ids(value: Any, sep: str | None) -> list[Any]:
    """One cell of a column that may hold several ids as a list; no value is an empty list, never an empty id."""
    if value is None:
        return []
    if isinstance(value, str):
        if sep is None:
            return [value]
        return [member for member in value.split(sep) if member]
    if isinstance(value, (list, tuple, np.ndarray)):
        return [member for member in value if member is not None]
    return [value]


def pad_ragged(flat: NDArray[np.uint64], lengths: NDArray[np.int64], width: int) -> NDArray[np.uint64]:
    """Ragged ids (values in one array, a length a row) as (N, width): the first `width` of each row, padded."""
    first = np.cumsum(lengths) - lengths
    steps = np.arange(width)
    real = steps[None, :] < lengths[:, None]
    out = np.full((len(lengths), width), MISSING_ID, dtype=np.uint64)
    out[real] = flat[(first[:, None] + steps[None, :])[real]]
    return out

"""What a request says about many users, by column, and the columns joined with what is stored about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bundle.behaviours import Events
from bundle.columns import Column, raw_column
from bundle.errors import FeatureError, FeatureProblem
from bundle.ids import MISSING_ID
from bundle.request_values import Behaviour, checked, escape
from bundle.schema import IdFeature, NumberFeature

Flags = NDArray[np.bool_]
_NOTHING: Final[Mapping[str, Any]] = {}
_NUMBERS: Final = frozenset({int, float, type(None)})


class StoredLike(Protocol):
    """What is read of a stored user; a store has its own type with the same members."""

    @property
    def behaviours(self) -> Events:
        """Records, oldest first."""

    @property
    def features(self) -> Mapping[str, Any]:
        """Values by name."""


@dataclass(frozen=True, slots=True)
class UserColumns:
    """Whom to answer for: U users at one time, by column.

    Attributes:
        user_ids: (U,), None for nobody in particular.
        ts: seconds; behaviours at or after it are not looked at.
        features: by name, U values: None is a missing one. Numbers may be a float64 array, where NaN is missing, and
            single ids a uint64 array of id64, where `MISSING_ID` is.
        silent: by feature, (U,) True where the user's features do not name it, so that the store may; a feature that
            everybody names is left out.
        behaviours: by place, of the users that bring their own; the others' are the store's.
    """

    user_ids: Sequence[str | None]
    ts: float
    features: Mapping[str, Sequence[Any] | Column]
    silent: Mapping[str, Flags] = field(default_factory=dict)
    behaviours: Mapping[int, Sequence[Behaviour]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user_ids)


def stored_columns(stored: Sequence[StoredLike | None], names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """The stored values of some features, None where there is none.

    One look at each user's values: a thousand of them do not fit into a cache, so one pass a feature costs twice.
    """
    if not names or not stored:
        return {name: [None] * len(stored) for name in names}
    values = [_NOTHING if user is None else user.features for user in stored]
    try:
        rows = map(itemgetter(*names), values) if len(names) > 1 else ((value[names[0]],) for value in values)
        return dict(zip(names, zip(*rows, strict=True), strict=True))
    except KeyError:  # somebody has not all of them
        return {name: [each.get(name) for each in values] for name in names}


def user_column(
    feature: IdFeature | NumberFeature,
    users: UserColumns,
    stored: Mapping[str, Sequence[Any]],
    problems: list[FeatureProblem],
) -> Column | None:
    """One feature of all users; None where a value does not fit, and the problems say which.

    Stored values, by feature, answer for those who are silent; values of another type are left out.
    """
    name = feature.name
    given = users.features[name]
    column = _raw(feature, given)
    if column is None:
        found: list[FeatureProblem] = []
        for place, value in enumerate(given):
            checked(feature, value, f"/users/{place}/features/{escape(name)}", found)
        problems.extend(found)
        if found:
            return None
        column = raw_column(feature, given)  # unusual types, such as numpy's own numbers, and nothing wrong with them
    silent = users.silent.get(name)
    kept = stored.get(name)
    if kept is None or silent is None:
        return column
    from_store = _raw(feature, kept)
    if from_store is None:
        ignored: list[FeatureProblem] = []
        from_store = raw_column(feature, [value if checked(feature, value, "", ignored) else None for value in kept])
    return from_store if silent.all() else np.where(silent if column.ndim == 1 else silent[:, None], from_store, column)


def _raw(feature: IdFeature | NumberFeature, values: Sequence[Any] | Column) -> Column | None:
    """Values as the encoder takes them, or None if one does not fit. Types are looked at once a column, not a value."""
    if isinstance(feature, NumberFeature):
        return _raw_numbers(values)
    if feature.max_values > 1 and any(map(_holds_nothing, values)):
        return None
    try:
        return raw_column(feature, values)
    except FeatureError:
        return None


def _raw_numbers(values: Sequence[Any] | Column) -> Column | None:
    if isinstance(values, np.ndarray):
        return None if np.isinf(values).any() else values
    kinds = frozenset(map(type, values))
    if not kinds <= _NUMBERS:
        return None
    # None becomes NaN; a NaN of the caller's own is counted as one too many.
    absent = values.count(None) if type(None) in kinds else 0
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    return numbers if np.count_nonzero(~np.isfinite(numbers)) == absent else None


def _holds_nothing(value: object) -> bool:
    return isinstance(value, list) and None in value


def is_missing(column: Column) -> Flags:
    """Which rows (U,) of a raw column have no value."""
    if column.dtype.kind == "f":
        return np.isnan(column)
    return np.asarray((column if column.ndim == 1 else column[:, 0]) == MISSING_ID)

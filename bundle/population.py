"""Many users as rows for the encoder, column by column. Problems are JSON pointers into the request.

There are no candidates: a row is a user. What a caller says about a user goes before what is stored.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bundle.behaviours import Behaviours, records
from bundle.columns import Column, Rows, id_problem
from bundle.encode import EncodedRows
from bundle.errors import FeatureError, FeatureProblem
from bundle.fitting import FittedSchema
from bundle.ids import id64_column
from bundle.request_values import MAX_PROBLEMS, Behaviour, behaviour_problems, escape, is_time
from bundle.schema import FeatureSchema, HistoryFeature, IdFeature, NumberFeature, SequenceFeature
from bundle.tables import UNSEEN
from bundle.user_columns import StoredLike, UserColumns, is_missing, stored_columns, user_column

Flags = NDArray[np.bool_]
_TEXTS: Final = frozenset({str, type(None)})


@dataclass(frozen=True, slots=True)
class Person:
    """One user as a request says it.

    Attributes:
        features: user and context features by name; None is a missing value.
        behaviours: None means the store's.
    """

    user_id: str | None = None
    features: Mapping[str, Any] = field(default_factory=dict)
    behaviours: Sequence[Behaviour] | None = None


class PersonLike(Protocol):
    """What is read of a user; a decoded request has its own type with the same members."""

    @property
    def user_id(self) -> str | None:
        """See `Person`."""

    @property
    def features(self) -> Mapping[str, Any]:
        """See `Person`."""

    @property
    def behaviours(self) -> Sequence[Behaviour] | None:
        """See `Person`."""


@dataclass(frozen=True, slots=True)
class UpliftQuery:
    """Whom to answer for: U users at one time.

    Attributes:
        ts: seconds; behaviours at or after it are not looked at.
    """

    users: Sequence[PersonLike]
    ts: float

    @property
    def user_ids(self) -> list[str | None]:
        """(U,), None for nobody in particular."""
        return [user.user_id for user in self.users]

    def to_json(self) -> str:
        """The query as JSON text, for golden rows."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError: if the text is not such a query.
        """
        data = json.loads(text)
        try:
            return cls(users=[_person(user) for user in data.pop("users")], **data)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not an uplift query: {error}") from error


def _person(data: dict[str, Any]) -> Person:
    given = data.pop("behaviours")
    behaviours = None if given is None else [Behaviour(**behaviour) for behaviour in given]
    if not isinstance(data["features"], dict):
        raise TypeError("features are not an object")
    return Person(**data, behaviours=behaviours)


@dataclass(frozen=True, slots=True)
class Population:
    """U users before encoding.

    Attributes:
        rows: for the encoder; U rows without candidates.
        missing: by feature, (U,) True where neither the request nor the store has a value; features that everybody
            has are left out.
    """

    rows: Rows
    missing: Mapping[str, Flags]


def rows_from_users(
    fitted: FittedSchema, users: UpliftQuery | UserColumns, stored: Sequence[StoredLike | None] | None = None
) -> Population:
    """U users as one block of rows.

    A request's features override stored ones, also where it says that a value is missing; its behaviours replace the
    stored ones. Stored features that this declaration does not know, or of another type, are left out.

    Args:
        fitted: the fitted declaration.
        users: whom to answer for; columns must hold every feature that a request can give, and no other.
        stored: one entry a user, None for somebody the store does not know; None where nothing was read.

    Raises:
        FeatureError: every problem with its pointer, such as `/users/3/features/age`.
        ValueError: if `stored` is not as long as the users, or columns are of other features.
    """
    schema, problems = fitted.schema, list[FeatureProblem]()
    plain = [f for f in schema.feature if isinstance(f, (IdFeature, NumberFeature)) and f.name != schema.ids.user]
    told = users if isinstance(users, UserColumns) else _by_column(schema, users, [f.name for f in plain], problems)
    if stored is not None and len(stored) != len(told):
        raise ValueError(f"{len(told)} users, but {len(stored)} entries of the store")
    if told.features.keys() != {feature.name for feature in plain}:
        raise ValueError(f"columns of {sorted(told.features)}, but the declaration has other features")
    kept = {} if stored is None else stored_columns(stored, [name for name in told.features if name in told.silent])
    columns: dict[str, Column] = {}
    for feature in plain:
        column = user_column(feature, told, kept, problems)
        if column is not None:
            columns[feature.name] = column
    missing = {name: flags for name, column in columns.items() if (flags := is_missing(column)).any()}
    _add_ids(schema, told.user_ids, columns, problems)
    if not is_time(told.ts):
        problems.append(FeatureProblem("/ts", "schema", "must be seconds in [0, 2^32)"))
    behaviours = _behaviours(schema, told, stored, problems)
    if problems:
        raise FeatureError(problems[:MAX_PROBLEMS])
    rows = Rows(
        time=np.full(len(told), float(told.ts)),
        items=np.zeros((len(told), 0), dtype=np.uint64),
        behaviours=behaviours,
        # A feature that nobody has is not given at all, which is how the encoder tells it apart.
        user={n: c for n, c in columns.items() if n not in missing or not missing[n].all()},
    )
    return Population(rows, missing)


def unseen_values(fitted: FittedSchema, rows: Rows, encoded: EncodedRows) -> dict[str, Flags]:
    """By id feature, (U,) True where a user has a value that training did not see; only features with such a user."""
    out: dict[str, Flags] = {}
    for entry in fitted.layout.user_ids:
        raw = rows.user.get(entry.name)
        if raw is None or not encoded.unseen.get(entry.name):
            continue
        codes = encoded.user_ids[:, entry.column : entry.column + entry.width]
        out[entry.name] = (codes == UNSEEN).any(axis=1) & ~is_missing(raw)
    return out


def _by_column(
    schema: FeatureSchema, query: UpliftQuery, names: Sequence[str], problems: list[FeatureProblem]
) -> UserColumns:
    """The same users by column; names that no request can give are problems."""
    users = query.users
    columns, silent = _given(users, names), dict[str, Flags]()
    if columns is None:
        _check_names(schema, users, set(names), problems)
        columns = {name: [user.features.get(name) for user in users] for name in names}
        absent = {name: np.array([name not in user.features for user in users], dtype=np.bool_) for name in names}
        silent = {name: flags for name, flags in absent.items() if flags.any()}
    own = {place: user.behaviours for place, user in enumerate(users) if user.behaviours is not None}
    return UserColumns(query.user_ids, query.ts, columns, silent, own)


def _given(users: Sequence[PersonLike], names: Sequence[str]) -> Mapping[str, Sequence[Any]] | None:
    """Every feature's values where each user gives exactly these features; None where somebody does not.

    One look at each user's features: a thousand of them do not fit into a cache, so one pass a feature costs twice.
    """
    features = [user.features for user in users]
    if len(names) < 2 or set(map(len, features)) != {len(names)}:
        return None
    pick = itemgetter(*names)
    try:
        return dict(zip(names, zip(*map(pick, features), strict=True), strict=True))
    except KeyError:
        return None


def _check_names(
    schema: FeatureSchema, users: Sequence[PersonLike], known: Any, problems: list[FeatureProblem]
) -> None:
    """Refuse names that no request can give; on the good path one set operation a user."""
    for place, user in enumerate(users):
        given = user.features.keys()
        if given <= known:
            continue
        for name in given - known:
            pointer = f"/users/{place}/features/{escape(name)}"
            message = "the model has no feature of this name"
            if name == schema.ids.user:
                message = "is taken from user_id"
            elif any(feature.name == name for feature in schema.feature):
                message = "is computed from the behaviours and cannot be given"
            problems.append(FeatureProblem(pointer, "schema", message))


def _add_ids(
    schema: FeatureSchema, ids: Sequence[str | None], columns: dict[str, Column], problems: list[FeatureProblem]
) -> None:
    if schema.ids.user not in {feature.name for feature in schema.feature} and (
        not isinstance(ids, list) or set(map(type, ids)) <= _TEXTS
    ):
        return  # nobody reads their hashes, and a store or a reply that cannot hold one says so itself
    try:
        hashed = id64_column(ids)
    except (ValueError, TypeError):
        found = [id_problem(f"/users/{place}/user_id", value) for place, value in enumerate(ids)]
        problems.extend(problem for problem in found if problem is not None)
        return
    if any(feature.name == schema.ids.user for feature in schema.feature):
        columns[schema.ids.user] = hashed


def _behaviours(
    schema: FeatureSchema,
    users: UserColumns,
    stored: Sequence[StoredLike | None] | None,
    problems: list[FeatureProblem],
) -> Behaviours:
    """One history a user; nothing is copied where no feature looks at behaviours."""
    given = users.behaviours
    found = list(chain.from_iterable(_problems(place, events) for place, events in given.items()))
    problems.extend(found)
    if found or not any(isinstance(f, (SequenceFeature, HistoryFeature)) for f in schema.feature):
        return _nothing(len(users))
    histories, nobody = [], records([], [])
    for place in range(len(users)):
        kept = None if stored is None else stored[place]
        if place in given:
            events = given[place]
            log = records(
                [event.item_id for event in events],
                [float(event.ts) for event in events],
                [event.type for event in events],
                [np.nan if event.value is None else event.value for event in events],
            )
            # A late event in the middle is put where the store would have put it.
            histories.append(log[np.argsort(log["ts"], kind="stable")])
        else:
            histories.append(nobody if kept is None else kept.behaviours)
    return Behaviours.from_events(histories)


@lru_cache(maxsize=8)
def _nothing(users: int) -> Behaviours:
    """Histories without behaviours; requests come with the same number of users again and again."""
    return Behaviours.empty(users)


def _problems(place: int, events: Sequence[Behaviour]) -> Iterator[FeatureProblem]:
    for number, event in enumerate(events):
        yield from behaviour_problems(f"/users/{place}/behaviours/{number}", event)

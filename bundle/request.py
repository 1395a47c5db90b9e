"""One scoring request as rows for the encoder. Problems are JSON pointers into the request."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from bundle.behaviours import Behaviours, Events, records
from bundle.columns import NUMBERS, TEXTS, Column, NumberBlock, Rows, id_problem, quick_column, raw_column
from bundle.errors import FeatureError, FeatureProblem
from bundle.fitting import FittedSchema
from bundle.ids import id64_column
from bundle.request_plan import RequestPlan
from bundle.request_values import (
    FLOAT32_MAX,
    MAX_PROBLEMS,
    Behaviour,
    BehaviourLike,
    behaviour_problems,
    checked,
    escape,
    is_time,
)
from bundle.schema import Feature, FeatureSchema, IdFeature, NumberFeature
from bundle.user_columns import StoredLike

_FIRST: Final = np.zeros(1, dtype=np.int64)  # every history of a request begins at the first of its events


@dataclass(frozen=True, slots=True)
class ScoreQuery:
    """What to score: one user, C candidates, and what the caller knows about them.

    Attributes:
        candidates: (C,) item ids.
        ts: seconds; behaviours at or after it are not looked at.
        behaviours: oldest first; None means the store's.
        candidate_features: columns of C values.
    """

    user_id: str | None
    candidates: Sequence[str]
    ts: float
    context: Mapping[str, Any] = field(default_factory=dict)
    user_features: Mapping[str, Any] = field(default_factory=dict)
    candidate_features: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    behaviours: Sequence[BehaviourLike] | None = None

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
            given = data.pop("behaviours")
            if not isinstance(data["candidates"], list):
                raise TypeError("candidates are not a list")
            behaviours = None if given is None else [Behaviour(**behaviour) for behaviour in given]
            return cls(**data, behaviours=behaviours)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a score query: {error}") from error


@dataclass(frozen=True, slots=True)
class StoredUser:
    """What the behaviour store holds about a user: records oldest first, features by name."""

    behaviours: Events
    features: Mapping[str, Any] = field(default_factory=dict)


def rows_from_query(fitted: FittedSchema, query: ScoreQuery, stored: StoredLike | None = None) -> Rows:
    """One request as one row of C candidates.

    The request's features override stored ones; its behaviours replace the stored ones. Stored features that this
    declaration does not know, or of another type, are left out: a store serves many models.

    Raises:
        FeatureError: every problem with its pointer: unknown names, another side's names, wrong types, NaN and
            infinities, columns that are not as long as the candidates.
    """
    problems: list[FeatureProblem] = []
    plan = fitted.request_plan
    user = _UserFeatures(fitted.schema, plan)
    if stored is not None and stored.features:
        user.add_stored(stored.features)
    user.add("context", "context", query.context, problems)
    user.add("user_features", "user", query.user_features, problems)
    candidate = _candidate_columns(fitted.schema, plan, query, problems) if query.candidate_features else {}
    items = _ids("/candidates", query.candidates, problems)
    if query.user_id is not None:
        user.add_id(query.user_id, problems)
    if not is_time(query.ts):
        problems.append(FeatureProblem("/ts", "schema", "must be seconds in [0, 2^32)"))
    events = _events(query, stored, problems)
    if problems:
        raise FeatureError(problems[:MAX_PROBLEMS])
    return Rows(
        time=np.array([query.ts], dtype=np.float64),
        items=items[None, :],
        behaviours=Behaviours(events, _FIRST, np.array([len(events)], dtype=np.int64)),
        user=user.ids,
        candidate=candidate,
        numbers=user.block(),
    )


class _UserFeatures:
    """User and context features of one request; what is added later goes before what was there."""

    def __init__(self, schema: FeatureSchema, plan: RequestPlan) -> None:
        self._schema = schema
        self._plan = plan
        self._numbers: dict[str, Any] = {}
        self.ids: dict[str, Column] = {}

    def add_stored(self, features: Mapping[str, Any]) -> None:
        """What the store has, as far as this declaration knows it."""
        for name in self._plan.stored.keys() & features.keys():
            feature, value = self._plan.stored[name], features[name]
            if value is not None and checked(feature, value, "", []):
                self._set(feature, value)

    def add(self, place: str, side: str, given: Mapping[str, Any], problems: list[FeatureProblem]) -> None:
        """One part of the request."""
        if not given:
            return
        if given.keys() <= self._plan.numbers_of[side] and _numbers_fit(given.values()):
            self._numbers.update(given)
            return
        for name, value in given.items():
            feature = _feature(self._schema, self._plan, name, side, f"/{place}", problems)
            if feature is not None and checked(feature, value, f"/{place}/{escape(name)}", problems):
                self._set(feature, value)

    def add_id(self, user_id: str, problems: list[FeatureProblem]) -> None:
        """The user's own id, where a feature reads it."""
        problem = id_problem("/user_id", user_id)
        if problem is not None:
            problems.append(problem)
        elif self._plan.hashes_user:
            self.ids[self._schema.ids.user] = id64_column([user_id])

    def _set(self, feature: IdFeature | NumberFeature, value: Any) -> None:
        if isinstance(feature, NumberFeature):
            self._numbers[feature.name] = value
        else:
            self.ids[feature.name] = raw_column(feature, [value])

    def block(self) -> NumberBlock:
        """The numbers, (1, N)."""
        values = list(map(self._numbers.get, self._plan.numbers))  # None is NaN
        return NumberBlock(self._plan.numbers, np.array([values], dtype=np.float64), self._numbers.keys())


def _numbers_fit(values: Collection[Any]) -> bool:
    """Whether all are finite numbers or missing; a False only says that each has to be looked at."""
    if not NUMBERS.issuperset(map(type, values)):
        return False
    try:
        return math.isfinite(sum(filter(None, values)))  # NaN and infinities stay in the sum
    except OverflowError:
        return False


def _feature(
    schema: FeatureSchema,
    plan: RequestPlan,
    name: str,
    side: str,
    place: str,
    problems: list[FeatureProblem],
) -> IdFeature | NumberFeature | None:
    """The feature that a name of one part of the request means, else a problem."""
    known = plan.sides[side].get(name)
    if known is not None:
        return known
    feature: Feature | None = next((f for f in schema.feature if f.name == name), None)
    if feature is None:
        message = "the model has no feature of this name"
    elif not isinstance(feature, (IdFeature, NumberFeature)):
        message = "is computed from the behaviours and cannot be given"
    elif name in (schema.ids.user, schema.ids.item):
        message = f"is taken from {'user_id' if name == schema.ids.user else 'candidates'}"
    else:
        message = f"is a {feature.side} feature, not a {side} feature"
    problems.append(FeatureProblem(f"{place}/{escape(name)}", "schema", message))
    return None


def _candidate_columns(
    schema: FeatureSchema, plan: RequestPlan, query: ScoreQuery, problems: list[FeatureProblem]
) -> dict[str, Column]:
    out: dict[str, Column] = {}
    for name, values in query.candidate_features.items():
        feature = _feature(schema, plan, name, "candidate", "/candidate_features", problems)
        pointer = f"/candidate_features/{escape(name)}"
        if feature is None:
            continue
        if not isinstance(values, (list, tuple)) or len(values) != len(query.candidates):
            message = f"must be a list of {len(query.candidates)} values, one for each candidate"
            problems.append(FeatureProblem(pointer, "schema", message))
            continue
        column = quick_column(feature, values)
        if column is None:
            # A list, so that every wrong value is reported and not only the first.
            fits = [checked(feature, value, f"{pointer}/{row}", problems) for row, value in enumerate(values)]
            column = raw_column(feature, values) if all(fits) else None
        if column is not None:
            out[name] = column[None]
    return out


def _ids(pointer: str, values: Sequence[str], problems: list[FeatureProblem]) -> NDArray[np.uint64]:
    if set(map(type, values)) == {str}:
        try:
            return id64_column(values)
        except ValueError:
            pass  # half a surrogate pair; below it is found
    found = [
        FeatureProblem(f"{pointer}/{row}", "schema", f"must be a string, got {type(value).__name__}")
        if not isinstance(value, str)
        else id_problem(f"{pointer}/{row}", value)
        for row, value in enumerate(values)
    ]
    real = [problem for problem in found if problem is not None]
    problems.extend(real)
    return np.zeros(0, dtype=np.uint64) if real else id64_column(values)


def _events(query: ScoreQuery, stored: StoredLike | None, problems: list[FeatureProblem]) -> Events:
    given = query.behaviours
    if given is None:
        return records([], []) if stored is None else stored.behaviours
    events = _quick_events(given)
    if events is None:
        before = len(problems)
        for place, behaviour in enumerate(given):
            problems.extend(behaviour_problems(f"/behaviours/{place}", behaviour))
        if len(problems) > before:
            return records([], [])
        events = records(
            [behaviour.item_id for behaviour in given],
            [float(behaviour.ts) for behaviour in given],
            [behaviour.type for behaviour in given],
            [np.nan if behaviour.value is None else behaviour.value for behaviour in given],
        )
    # A late event in the middle is put where the store would have put it.
    return events[np.argsort(events["ts"], kind="stable")]


def _quick_events(given: Sequence[BehaviourLike]) -> Events | None:
    """Behaviours as records where types and ranges tell that nothing is wrong; None where each has to be looked at."""
    ids, types = [past.item_id for past in given], [past.type for past in given]
    seconds, values = [past.ts for past in given], [past.value for past in given]
    plain = set(map(type, ids)) == {str} and TEXTS.issuperset(map(type, types))
    if not (plain and {int, float}.issuperset(map(type, seconds)) and NUMBERS.issuperset(map(type, values))):
        return None
    try:
        numbers = np.array(values, dtype=np.float64)  # None becomes NaN
        if np.count_nonzero(np.abs(numbers) <= FLOAT32_MAX) != len(values) - values.count(None):
            return None
        return records(ids, seconds, types, numbers)
    except (ValueError, OverflowError):
        return None


__all__ = ["Behaviour", "ScoreQuery", "StoredUser", "rows_from_query"]

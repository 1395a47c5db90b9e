"""One scoring request as rows for the encoder. Problems are JSON pointers into the request."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bundle.behaviours import Behaviours, Events, records
from bundle.columns import Column, Rows, id_problem, raw_column
from bundle.errors import FeatureError, FeatureProblem
from bundle.fitting import FittedSchema
from bundle.ids import id64_column
from bundle.request_values import MAX_PROBLEMS, Behaviour, behaviour_problems, checked, escape, is_time
from bundle.schema import Feature, FeatureSchema, IdFeature, NumberFeature


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
    behaviours: Sequence[Behaviour] | None = None

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


def rows_from_query(fitted: FittedSchema, query: ScoreQuery, stored: StoredUser | None = None) -> Rows:
    """One request as one row of C candidates.

    The request's features override stored ones; its behaviours replace the stored ones. Stored features that this
    declaration does not know, or of another type, are left out: a store serves many models.

    Raises:
        FeatureError: every problem with its pointer: unknown names, another side's names, wrong types, NaN and
            infinities, columns that are not as long as the candidates.
    """
    problems: list[FeatureProblem] = []
    user = _stored_columns(fitted.schema, stored)
    for place, side, given in (("context", "context", query.context), ("user_features", "user", query.user_features)):
        for name, value in given.items():
            feature = _feature(fitted.schema, name, side, f"/{place}", problems)
            if feature is not None and (accepted := checked(feature, value, f"/{place}/{escape(name)}", problems)):
                user[name] = _user_column(feature, accepted[0])
    candidate = _candidate_columns(fitted.schema, query, problems)
    items = _ids("/candidates", query.candidates, problems)
    if query.user_id is not None:
        _add_user_id(fitted.schema, query.user_id, user, problems)
    if not is_time(query.ts):
        problems.append(FeatureProblem("/ts", "schema", "must be seconds in [0, 2^32)"))
    events = _events(query, stored, problems)
    if problems:
        raise FeatureError(problems[:MAX_PROBLEMS])
    length = np.array([len(events)], dtype=np.int64)
    return Rows(
        time=np.array([query.ts], dtype=np.float64),
        items=items[None, :],
        behaviours=Behaviours(events, np.zeros(1, dtype=np.int64), length),
        user=user,
        candidate=candidate,
    )


def _feature(
    schema: FeatureSchema, name: str, side: str, place: str, problems: list[FeatureProblem]
) -> IdFeature | NumberFeature | None:
    pointer = f"{place}/{escape(name)}"
    feature: Feature | None = next((f for f in schema.feature if f.name == name), None)
    if feature is None:
        problems.append(FeatureProblem(pointer, "schema", "the model has no feature of this name"))
    elif not isinstance(feature, (IdFeature, NumberFeature)):
        problems.append(FeatureProblem(pointer, "schema", "is computed from the behaviours and cannot be given"))
    elif name in (schema.ids.user, schema.ids.item):
        key = "user_id" if name == schema.ids.user else "candidates"
        problems.append(FeatureProblem(pointer, "schema", f"is taken from {key}"))
    elif feature.side != side:
        problems.append(FeatureProblem(pointer, "schema", f"is a {feature.side} feature, not a {side} feature"))
    else:
        return feature
    return None


def _user_column(feature: IdFeature | NumberFeature, value: Any) -> Column:
    return raw_column(feature, [value])


def _candidate_columns(schema: FeatureSchema, query: ScoreQuery, problems: list[FeatureProblem]) -> dict[str, Column]:
    out: dict[str, Column] = {}
    for name, values in query.candidate_features.items():
        feature = _feature(schema, name, "candidate", "/candidate_features", problems)
        pointer = f"/candidate_features/{escape(name)}"
        if feature is None:
            continue
        if not isinstance(values, (list, tuple)) or len(values) != len(query.candidates):
            message = f"must be a list of {len(query.candidates)} values, one for each candidate"
            problems.append(FeatureProblem(pointer, "schema", message))
            continue
        # A list, so that every wrong value is reported and not only the first.
        fits = [checked(feature, value, f"{pointer}/{row}", problems) for row, value in enumerate(values)]
        if all(fits):
            out[name] = raw_column(feature, values)[None]
    return out


def _ids(pointer: str, values: Sequence[str], problems: list[FeatureProblem]) -> NDArray[np.uint64]:
    found = [
        FeatureProblem(f"{pointer}/{row}", "schema", f"must be a string, got {type(value).__name__}")
        if not isinstance(value, str)
        else id_problem(f"{pointer}/{row}", value)
        for row, value in enumerate(values)
    ]
    real = [problem for problem in found if problem is not None]
    problems.extend(real)
    return np.zeros(0, dtype=np.uint64) if real else id64_column(values)


def _add_user_id(schema: FeatureSchema, user_id: str, user: dict[str, Column], problems: list[FeatureProblem]) -> None:
    problem = id_problem("/user_id", user_id)
    if problem is not None:
        problems.append(problem)
    elif any(feature.name == schema.ids.user for feature in schema.feature):
        user[schema.ids.user] = id64_column([user_id])


def _events(query: ScoreQuery, stored: StoredUser | None, problems: list[FeatureProblem]) -> Events:
    given = query.behaviours
    if given is None:
        return records([], []) if stored is None else stored.behaviours
    found: list[FeatureProblem] = []
    for place, behaviour in enumerate(given):
        found.extend(behaviour_problems(f"/behaviours/{place}", behaviour))
    problems.extend(found)
    if found:
        return records([], [])
    events = records(
        [behaviour.item_id for behaviour in given],
        [float(behaviour.ts) for behaviour in given],
        [behaviour.type for behaviour in given],
        [np.nan if behaviour.value is None else behaviour.value for behaviour in given],
    )
    # A late event in the middle is put where the store would have put it.
    return events[np.argsort(events["ts"], kind="stable")]


def _stored_columns(schema: FeatureSchema, stored: StoredUser | None) -> dict[str, Column]:
    out: dict[str, Column] = {}
    if stored is None:
        return out
    for feature in schema.feature:
        if not isinstance(feature, (IdFeature, NumberFeature)) or feature.side == "candidate":
            continue
        value = stored.features.get(feature.name)
        if value is None or feature.name == schema.ids.user:
            continue
        ignored: list[FeatureProblem] = []
        if checked(feature, value, "", ignored):
            out[feature.name] = _user_column(feature, value)
    return out


__all__ = ["Behaviour", "ScoreQuery", "StoredUser", "rows_from_query"]

"""One /uplift request from its version to its answers: resolve, read the users, run, allocate. Forward only."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bundle import effects
from bundle.errors import FeatureError
from bundle.population import Person, UpliftQuery
from bundle.user_columns import StoredLike, UserColumns
from service.behaviours.codec import MOST_FEATURE_BYTES, decode_user
from service.behaviours.histories import CORRUPT_HISTORY, FeatureBlock, Histories
from service.compiled.users import UserBlock
from service.core import question
from service.core.engine_threads import EngineThreads
from service.core.question import Asked, Question
from service.core.registry import Registry
from service.core.scorer import invalid_features
from service.core.treated import Prepared, Treated, Users
from service.core.treating import prepare, prepare_block, treat_prepared
from service.core.uplift_version import UpliftVersion
from service.engines.base import EngineError
from service.errors import InferenceFailed
from service.metrics import Metrics

Id = TypeVar("Id")
Flags = NDArray[np.bool_]
# As a request brings them, as the quick ways of reading do, and as compiled code does.
AnyUsers = UpliftQuery | UserColumns | UserBlock


@dataclass(frozen=True, slots=True)
class UpliftAnswer:
    """Everything the reply to /uplift is made of."""

    model: str
    version: str
    control: str
    treated: Treated
    degraded: list[str]
    warnings: list[str]


class Uplifter:
    """Answers questions about treatments; used by /uplift and by anything that wants the same without HTTP.

    Args:
        registry: Which versions serve.
        histories: Where stored features and behaviours come from.
        metrics: Times each stage apart.
        engines: Where graphs run, shared with /score.
        ignore_unknown: Drop feature names that the bundle does not know instead of refusing the request.
    """

    def __init__(
        self,
        registry: Registry,
        histories: Histories,
        metrics: Metrics,
        engines: EngineThreads,
        *,
        ignore_unknown: bool,
    ) -> None:
        self._registry = registry
        self._histories = histories
        self._metrics = metrics
        self._engines = engines
        self._ignore_unknown = ignore_unknown

    def lease(self, model: str | None) -> AbstractContextManager[UpliftVersion]:
        """Hold the version that ``model`` names while the block runs; see ``Registry.lease``."""
        return self._registry.lease(model, "uplift")

    async def answer(self, version: UpliftVersion, users: AnyUsers, asked: Question) -> UpliftAnswer:
        """Answer for all users with a version that is held until then; ``users`` should not be held by the caller.

        Raises:
            ServiceError: 422 or 500; a store that is away is none of these.
        """
        fitting = question.check(asked, version.part)
        warnings: list[str] = []
        if self._ignore_unknown and isinstance(users, UpliftQuery):
            users = _without_unknown(users, version, warnings)
        prepared, degraded = await self._prepared(version, users, fitting)
        # Thousands of small objects: freeing them now, while the processor's cache holds them, costs a third of what it
        # costs behind the graph.
        del users
        try:
            treated = await self._engines.run(treat_prepared, version, prepared, fitting)
        except EngineError as error:
            raise InferenceFailed("The model failed on this request; nothing is wrong with its form.") from error
        self._count(version, treated, degraded)
        control = version.part.control
        return UpliftAnswer(version.name, version.version, control, treated, degraded, warnings + treated.warnings)

    async def _prepared(self, version: UpliftVersion, users: AnyUsers, asked: Asked) -> tuple[Prepared, list[str]]:
        if isinstance(users, UserBlock) and version.encoder is not None:
            needed = _who_is_silent(users)
            kept = await self._features(_at(users.user_ids, needed)) if len(needed) else FeatureBlock("request", ())
            values, lost = _spread(kept, needed, len(users))
            if len(needed) == 0 or users.fill(values, MOST_FEATURE_BYTES):
                return prepare_block(version.encoder, users, lost, asked), sorted(kept.degraded)
            block, degraded = self._decoded(users.columns(), needed, kept)
        else:
            block, degraded = await self._read(version, users.columns() if isinstance(users, UserBlock) else users)
        try:
            return prepare(version, block, asked), degraded
        except FeatureError as error:
            raise invalid_features(error) from error

    async def _read(self, version: UpliftVersion, users: UpliftQuery | UserColumns) -> tuple[Users, list[str]]:
        """The users with what is stored about them, in one round trip; reasons why it is less than it could be."""
        needed = _who_needs_the_store(version, users)
        if len(needed) == 0:
            return Users(users), []
        ids = users.user_ids
        wanted = [user_id or "" for user_id in _at(ids, needed)]
        if not version.reads_behaviours:
            return self._decoded(users, needed, await self._features(wanted))
        started = time.perf_counter()
        found = await self._histories.read_many(wanted)
        self._metrics.stages["behaviours"].observe(time.perf_counter() - started)
        stored: list[StoredLike | None] = [None] * len(ids)
        lost = np.zeros(len(ids), dtype=np.bool_)
        for place, history in zip(needed, found, strict=True):
            stored[place] = history.user
            # Also a copy from before the store went away: money is not spent on what may have changed since.
            lost[place] = bool(history.degraded)
        self._metrics.source.labels(found[0].source).inc()
        return Users(users, stored, lost), sorted({reason for history in found for reason in history.degraded})

    async def _features(self, user_ids: Sequence[str]) -> FeatureBlock:
        """What is stored about users, but for their behaviours."""
        started = time.perf_counter()
        found = await self._histories.read_features(user_ids)
        self._metrics.stages["behaviours"].observe(time.perf_counter() - started)
        self._metrics.source.labels(found.source).inc()
        return found

    def _decoded(
        self, users: UpliftQuery | UserColumns, needed: Sequence[int], kept: FeatureBlock
    ) -> tuple[Users, list[str]]:
        """The users with stored features, one by one: what is damaged is left out and said."""
        stored: list[StoredLike | None] = [None] * len(users.user_ids)
        lost = np.zeros(len(stored), dtype=np.bool_)
        corrupt = 0
        for number, (place, value) in enumerate(zip(needed, kept.values, strict=True)):
            data = decode_user(None, value, 0)
            stored[place] = data
            corrupt += data.corrupt
            lost[place] = bool(data.corrupt) or (kept.lost is not None and kept.lost[number])
        if corrupt:
            self._metrics.corrupt.inc(corrupt)
        return Users(users, stored, lost), sorted({*kept.degraded, *((CORRUPT_HISTORY,) if corrupt else ())})

    def _count(self, version: UpliftVersion, treated: Treated, degraded: Sequence[str]) -> None:
        metrics, name, tally = self._metrics, version.name, treated.tally
        for stage, seconds in treated.seconds.items():
            metrics.stages[stage].observe(seconds)
        for reason in degraded:
            metrics.degraded.labels(reason).inc()
        for field, count in treated.unseen.items():
            if count:
                metrics.unseen.labels(name, field).inc(count)
        metrics.uplift_users.labels(name).inc(tally.users)
        if tally.unknown:
            metrics.non_finite.inc()
            metrics.unknown_effects.labels(name).inc(tally.unknown)
        for treatment, effect in zip(treated.asked.names, tally.effects, strict=True):
            if effect is not None:
                metrics.effects.labels(name, treatment).observe(effect)
        for flag, count in zip(effects.OVERLAP, tally.overlap, strict=True):
            if count:
                metrics.overlap.labels(name, flag).inc(count)
        names = ("none", version.part.control, *treated.asked.names)  # of nothing, the control and the treatments
        for treatment, count in zip(names, tally.arms, strict=True):
            if count:
                metrics.recommended.labels(name, treatment).inc(count)


def _who_is_silent(users: UserBlock) -> Sequence[int]:
    """Places of the users who do not name every feature."""
    if users.unsaid == 0:
        return ()
    silent = users.silent.any(axis=0)
    return range(len(users)) if silent.all() else np.flatnonzero(silent).tolist()


def _at(user_ids: Sequence[Id], places: Sequence[int]) -> Sequence[Id]:
    return user_ids if len(places) == len(user_ids) else [user_ids[place] for place in places]


def _spread(kept: FeatureBlock, places: Sequence[int], users: int) -> tuple[Sequence[bytes | None], Flags | None]:
    """Values and who lost some, of all users, from those of some."""
    if len(places) == users:
        return kept.values, None if kept.lost is None else np.array(kept.lost, dtype=np.bool_)
    values: list[bytes | None] = [None] * users
    for place, value in zip(places, kept.values, strict=True):
        values[place] = value
    if kept.lost is None:
        return values, None
    lost = np.zeros(users, dtype=np.bool_)
    lost[list(places)] = kept.lost
    return values, lost


def _who_needs_the_store(version: UpliftVersion, users: UpliftQuery | UserColumns) -> Sequence[int]:
    """Places of the users of whom the store can know anything that the request does not say."""
    if isinstance(users, UserColumns):
        if version.reads_behaviours and len(users.behaviours) < len(users):
            return range(len(users))
        silent = np.zeros(len(users), dtype=np.bool_)
        for flags in users.silent.values():
            silent |= flags
        return range(len(users)) if silent.all() else np.flatnonzero(silent).tolist()
    if version.reads_behaviours and not all(person.behaviours is not None for person in users.users):
        return range(len(users.users))
    # Names that the bundle does not know are refused, so whoever gives as many as it reads gives exactly those.
    return [place for place, person in enumerate(users.users) if len(person.features) < len(version.told)]


def _without_unknown(query: UpliftQuery, version: UpliftVersion, warnings: list[str]) -> UpliftQuery:
    known = version.feature_names
    unknown = sorted({name for person in query.users for name in person.features.keys() - known})
    warnings += (f"unknown_feature:{name}" for name in unknown)
    if not unknown:
        return query
    people = [
        Person(person.user_id, {name: value for name, value in person.features.items() if name in known})
        for person in query.users
    ]
    return UpliftQuery(people, query.ts)

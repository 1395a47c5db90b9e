"""One /uplift request from its version to its answers: resolve, read the users, run, allocate. Forward only."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from bundle import effects
from bundle.errors import FeatureError
from bundle.population import Person, PersonLike, UpliftQuery
from bundle.request import StoredUser
from service.behaviours.histories import Histories, History
from service.core import question
from service.core.question import Question
from service.core.recommending import CONTROL, NOTHING
from service.core.registry import Registry
from service.core.scorer import invalid_features
from service.core.treating import Treated, Users, treat
from service.core.uplift_version import UpliftVersion
from service.engines.base import EngineError
from service.errors import InferenceFailed
from service.metrics import Metrics


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
        executor: Where graphs run, shared with /score.
        ignore_unknown: Drop feature names that the bundle does not know instead of refusing the request.
    """

    def __init__(
        self,
        registry: Registry,
        histories: Histories,
        metrics: Metrics,
        executor: ThreadPoolExecutor,
        *,
        ignore_unknown: bool,
    ) -> None:
        self._registry = registry
        self._histories = histories
        self._metrics = metrics
        self._executor = executor
        self._ignore_unknown = ignore_unknown

    async def answer(self, people: Sequence[PersonLike], asked: Question, model: str | None) -> UpliftAnswer:
        """Answer for all users with the version that ``model`` names.

        Raises:
            ServiceError: 404, 422, 500 or 503; a store that is away is none of these.
        """
        with self._registry.lease(model, "uplift") as version:
            fitting = question.check(asked, version.part)
            warnings: list[str] = []
            if self._ignore_unknown:
                people = _without_unknown(people, version, warnings)
            users, degraded = await self._read(version, people)
            loop = asyncio.get_running_loop()
            try:
                treated = await loop.run_in_executor(self._executor, treat, version, users, fitting)
            except FeatureError as error:
                raise invalid_features(error) from error
            except EngineError as error:
                raise InferenceFailed("The model failed on this request; nothing is wrong with its form.") from error
            self._count(version, treated, degraded)
            control = version.part.control
        return UpliftAnswer(version.name, version.version, control, treated, degraded, warnings + treated.warnings)

    async def _read(self, version: UpliftVersion, people: Sequence[PersonLike]) -> tuple[Users, list[str]]:
        """The users with what is stored about them, in one round trip; reasons why it is less than it could be."""
        query = UpliftQuery(people, time.time())
        needed = _who_needs_the_store(version, people)
        if not needed:
            return Users(query), []
        started = time.perf_counter()
        found = await self._histories.read_many([people[place].user_id or "" for place in needed])
        self._metrics.stages["behaviours"].observe(time.perf_counter() - started)
        stored: list[StoredUser | None] = [None] * len(people)
        lost = np.zeros(len(people), dtype=np.bool_)
        for place, history in zip(needed, found, strict=True):
            stored[place] = _stored(history)
            # Also a copy from before the store went away: money is not spent on what may have changed since.
            lost[place] = bool(history.degraded)
        self._metrics.source.labels(found[0].source).inc()
        return Users(query, stored, lost), sorted({reason for history in found for reason in history.degraded})

    def _count(self, version: UpliftVersion, treated: Treated, degraded: Sequence[str]) -> None:
        metrics, name = self._metrics, version.name
        for stage, seconds in treated.seconds.items():
            metrics.stages[stage].observe(seconds)
        for reason in degraded:
            metrics.degraded.labels(reason).inc()
        for field, count in treated.unseen.items():
            if count:
                metrics.unseen.labels(name, field).inc(count)
        metrics.uplift_users.labels(name).inc(len(treated.outcomes))
        unknown = np.isnan(treated.effects)
        if unknown.any():
            metrics.non_finite.inc()
            metrics.unknown_effects.labels(name).inc(int(unknown.sum()))
        for place, treatment in enumerate(treated.asked.names):
            known = treated.effects[~unknown[:, place], place]
            if len(known):
                metrics.effects.labels(name, treatment).observe(float(known.mean()))
        flags = np.bincount(treated.overlap.ravel(), minlength=len(effects.OVERLAP))
        for flag, count in zip(effects.OVERLAP, flags.tolist(), strict=True):
            metrics.overlap.labels(name, flag).inc(count)
        names = {NOTHING: "none", CONTROL: version.part.control} | dict(enumerate(treated.asked.names, start=1))
        for arm, count in zip(*np.unique(treated.recommended.arm, return_counts=True), strict=True):
            metrics.recommended.labels(name, names[int(arm)]).inc(int(count))


def _who_needs_the_store(version: UpliftVersion, people: Sequence[PersonLike]) -> Sequence[int]:
    """Places of the users of whom the store can know anything that the request does not say."""
    if version.reads_behaviours and not all(person.behaviours is not None for person in people):
        return range(len(people))
    # Names that the bundle does not know are refused, so whoever gives as many as it reads gives exactly those.
    count = len(version.given_names)
    return [place for place, person in enumerate(people) if len(person.features) < count]


def _stored(history: History) -> StoredUser | None:
    return None if history.user is None else StoredUser(history.user.behaviours, history.user.features)


def _without_unknown(people: Sequence[PersonLike], version: UpliftVersion, warnings: list[str]) -> Sequence[PersonLike]:
    known = version.feature_names
    unknown = sorted({name for person in people for name in person.features.keys() - known})
    warnings += (f"unknown_feature:{name}" for name in unknown)
    if not unknown:
        return people
    return [
        Person(person.user_id, {name: value for name, value in person.features.items() if name in known})
        for person in people
    ]

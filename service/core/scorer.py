"""One request from its version to its scores: resolve, read the history, encode, run, correct. Forward only."""

from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

from bundle.errors import FeatureError, NonFiniteLogits
from bundle.request import ScoreQuery
from service.behaviours.histories import Histories, History
from service.core.engine_threads import EngineThreads
from service.core.loop_runs import LoopRuns
from service.core.registry import Registry
from service.core.version import Scored, ServedVersion
from service.engines.base import EngineError
from service.errors import InferenceFailed, InvalidFeatures, Problem
from service.metrics import Metrics

PRIOR = "prior"


class Answer(NamedTuple):
    """Everything the reply to /score is made of."""

    model: str
    version: str
    tasks: tuple[str, ...]
    scored: Scored
    history: History
    degraded: list[str]
    warnings: list[str]


class Scorer:
    """Scores requests; used by /score and by anything that wants the same without HTTP.

    Args:
        registry: Which versions serve.
        histories: Where histories come from.
        metrics: Times each stage apart.
        engines: Where a request that takes long to encode is scored as a whole.
        runs: Where the other graphs run.
        ignore_unknown: Drop feature names that the bundle does not know instead of refusing the request.
    """

    def __init__(
        self,
        registry: Registry,
        histories: Histories,
        metrics: Metrics,
        engines: EngineThreads,
        runs: LoopRuns,
        *,
        ignore_unknown: bool,
    ) -> None:
        self._registry = registry
        self._histories = histories
        self._metrics = metrics
        self._ignore_unknown = ignore_unknown
        self._engines = engines
        self._runs = runs

    async def score(self, query: ScoreQuery, model: str | None) -> Answer:
        """Score one slate with the version that ``model`` names.

        Raises:
            ServiceError: 404, 422, 500 or 503; a store that is away is none of these.
        """
        with self._registry.lease(model, "ctr") as version:
            history = await self._history(query)
            warnings: list[str] = []
            if self._ignore_unknown:
                query = _without_unknown(query, version, warnings)
            scored = await self._run(version, query, history)
        return self._answer(version, scored, history, warnings)

    async def _history(self, query: ScoreQuery) -> History:
        if query.behaviours is not None:
            return History("request")
        if query.user_id is None:
            sentence = "user_id is needed where no behaviours are given"
            raise InvalidFeatures(f"/user_id: {sentence}", [Problem("/user_id", "schema", sentence)])
        started = perf_counter()
        history = await self._histories.read(query.user_id)
        self._metrics.stages["behaviours"].observe(perf_counter() - started)
        return history

    async def _run(self, version: ServedVersion, query: ScoreQuery, history: History) -> Scored:
        try:
            if version.takes_long(query, history.user):
                return await self._engines.run(_score, version, query, history)
            # Encoding is shorter than handing over what is to be encoded, and a graph that runs meanwhile is not
            # interrupted for it.
            prepared = version.prepare(query, history.user)
            expected_s = version.run_time.expect(len(query.candidates))
            ran = await self._runs.run(expected_s, version.run, prepared.inputs)
            return version.finish(prepared, ran, without_history=history.lost)
        except FeatureError as error:
            raise invalid_features(error) from error
        except (EngineError, NonFiniteLogits) as error:
            self._metrics.non_finite.inc(isinstance(error, NonFiniteLogits))
            raise InferenceFailed("The model failed on this request; nothing is wrong with its form.") from error

    def _answer(self, version: ServedVersion, scored: Scored, history: History, warnings: list[str]) -> Answer:
        metrics = self._metrics
        for stage, seconds in scored.seconds.items():
            metrics.stages[stage].observe(seconds)
        metrics.source.labels(history.source).inc()
        degraded = list(history.degraded)
        if scored.non_finite:
            metrics.non_finite.inc()
            degraded.append(PRIOR)
        for reason in degraded:
            metrics.degraded.labels(reason).inc()
        for field, count in scored.unseen.items():
            if count:
                metrics.unseen.labels(version.name, field).inc(count)
        for task, probabilities in scored.probabilities.items():
            # The mean of the slate: a thousand observations a request would cost more than the scores.
            metrics.scores.labels(version.name, task).observe(float(probabilities.sum()) / probabilities.size)
        warnings += [f"missing_feature:{name}" for name in scored.missing]
        return Answer(version.name, version.version, version.tasks, scored, history, degraded, warnings)


def _score(version: ServedVersion, query: ScoreQuery, history: History) -> Scored:
    return version.score(query, history.user, without_history=history.lost)


def invalid_features(error: FeatureError) -> InvalidFeatures:
    """What a bundle found wrong with features, as the service says it."""
    return InvalidFeatures.of(Problem(found.pointer, found.code, found.message) for found in error.problems)


def _without_unknown(query: ScoreQuery, version: ServedVersion, warnings: list[str]) -> ScoreQuery:
    names = version.feature_names
    kept: dict[str, Any] = {}
    for part in ("context", "user_features", "candidate_features"):
        given = getattr(query, part)
        unknown = [name for name in given if name not in names]
        warnings += (f"unknown_feature:{name}" for name in unknown)
        if unknown:
            kept[part] = {name: value for name, value in given.items() if name in names}
    return replace(query, **kept) if kept else query

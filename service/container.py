"""Everything one app is made of, put together from its settings and taken apart again."""

from dataclasses import dataclass

import structlog

from service.api.gate import Gate
from service.api.keys import Keys
from service.behaviours import BehaviourStore, open_store
from service.behaviours.histories import Histories
from service.core.admission import Admission
from service.core.engine_threads import EngineThreads
from service.core.loop_runs import LoopRuns
from service.core.registry import Registry
from service.core.scorer import Scorer
from service.core.uplifter import Uplifter
from service.metrics import Metrics
from service.settings import Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Container:
    """The parts that routes use."""

    settings: Settings
    metrics: Metrics
    admission: Admission
    gate: Gate
    registry: Registry
    histories: Histories
    runs: LoopRuns
    scorer: Scorer
    uplifter: Uplifter

    @property
    def store(self) -> BehaviourStore:
        """The behaviour store, for writes."""
        return self.histories.store

    async def start(self) -> None:
        """Begin to look for models and to watch the store; requests may come right away."""
        self.metrics.start()
        self.registry.start()
        self.histories.start()
        log.info("started", models=str(self.settings.models.engine), store=self.settings.store.url.partition(":")[0])

    async def stop(self) -> None:
        """Let go of everything, in the order of use."""
        self.admission.draining = True
        self.runs.close()  # runs that are under way finish
        await self.registry.close()
        await self.histories.close()
        self.metrics.stop()
        log.info("stopped")


def build(settings: Settings, metrics: Metrics, keys: Keys) -> Container:
    """Put the parts together; an embedded store starts here.

    Raises:
        SettingsError: A setting cannot be used.
    """
    admission = Admission(settings.limits, metrics)
    registry = Registry(settings.models, settings.routes, settings.threads, metrics)
    histories = Histories(open_store(settings.store), settings.store, metrics)
    engines = EngineThreads(settings.threads.engine)
    # Several threads are wanted for several runs at a time, which a loop cannot do.
    runs = LoopRuns(engines, settings.threads.loop_ms / 1e3 if settings.threads.engine == 1 else 0.0)
    ignore_unknown = settings.validation.extra == "ignore"
    return Container(
        settings=settings,
        metrics=metrics,
        admission=admission,
        gate=Gate(keys, admission, settings.limits, metrics),
        registry=registry,
        histories=histories,
        runs=runs,
        scorer=Scorer(registry, histories, metrics, engines, runs, ignore_unknown=ignore_unknown),
        uplifter=Uplifter(registry, histories, metrics, engines, ignore_unknown=ignore_unknown),
    )

"""What the service measures, as Prometheus reads it.

Every app has its own registry, so that two apps in one process (tests) do not share numbers. With several server
processes ``PROMETHEUS_MULTIPROC_DIR`` is set before this module is imported, and the exposition adds them up.
"""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.25)
_PROBABILITY = (0.0001, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

STAGES = ("wait", "behaviours", "encode", "engine", "correct", "serialise")


class Metrics:
    """The counters, gauges and histograms of one app."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        name = "ctrlift_"
        self.requests = Counter(
            name + "http_requests", "Answers by route and status.", ["route", "method", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            name + "http_request_seconds", "Time of a whole request.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            name + "stage_seconds",
            "Time of one stage of /score and /uplift.",
            ["stage"],
            buckets=_SHORT,
            registry=registry,
        )
        self.stages = {stage: self.stage_seconds.labels(stage) for stage in STAGES}
        self.in_flight = Gauge(
            name + "in_flight", "Requests being worked on.", registry=registry, multiprocess_mode="livesum"
        )
        self.queued = Gauge(
            name + "queued", "Requests waiting for a place.", registry=registry, multiprocess_mode="livesum"
        )
        self.shed = Counter(name + "shed", "Requests refused by admission.", ["reason"], registry=registry)
        self._store(registry, name)
        self._models(registry, name)
        self._uplift(registry, name)

    def _store(self, registry: CollectorRegistry, name: str) -> None:
        self.store_seconds = Histogram(
            name + "store_read_seconds", "Time of one read of the store.", buckets=_SHORT, registry=registry
        )
        self.store_errors = Counter(name + "store_errors", "Calls to the store that failed.", registry=registry)
        self.breaker = Gauge(
            name + "store_breaker",
            "0 closed, 1 half open, 2 open.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.corrupt = Counter(
            name + "store_corrupt_values", "Stored values that cannot be decoded.", registry=registry
        )
        self.source = Counter(name + "history_source", "Where a history came from.", ["source"], registry=registry)
        self.degraded = Counter(
            name + "degraded", "Answers that were less than they could be.", ["reason"], registry=registry
        )

    def _models(self, registry: CollectorRegistry, name: str) -> None:
        self.unseen = Counter(
            name + "unseen_ids", "Ids the bundle has no row for.", ["model", "field"], registry=registry
        )
        self.scores = Histogram(
            name + "score", "Probabilities that were sent.", ["model", "task"], buckets=_PROBABILITY, registry=registry
        )
        self.non_finite = Counter(
            name + "non_finite_logits", "Runs with a logit that is not finite.", registry=registry
        )
        self.model_info = Gauge(
            name + "model_info",
            "1 for each version that serves.",
            ["model", "version", "network"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.reloads = Counter(name + "reloads", "Tries to load a version.", ["result"], registry=registry)
        self.reload_seconds = Histogram(
            name + "reload_seconds",
            "Time to load one version.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )

    def _uplift(self, registry: CollectorRegistry, name: str) -> None:
        self.uplift_users = Counter(
            name + "uplift_users", "Users that /uplift answered for.", ["model"], registry=registry
        )
        self.effects = Summary(
            name + "uplift_effect", "Mean effect of a request's users.", ["model", "treatment"], registry=registry
        )
        self.overlap = Counter(
            name + "uplift_overlap",
            "Users by how far the data speaks for an arm.",
            ["model", "flag"],
            registry=registry,
        )
        self.recommended = Counter(
            name + "uplift_recommended", "Users by recommended treatment.", ["model", "treatment"], registry=registry
        )
        self.unknown_effects = Counter(
            name + "uplift_unknown",
            "Effects sent as null because a number was not finite.",
            ["model"],
            registry=registry,
        )

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes, of all server processes together."""
        if os.environ.get(MULTIPROC_VARIABLE):
            together = CollectorRegistry()
            MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # untyped upstream
            return generate_latest(together)
        return generate_latest(self.registry)

    @staticmethod
    def end_process() -> None:
        """Take this process's gauges out of the sum when it ends."""
        if os.environ.get(MULTIPROC_VARIABLE):
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]  # untyped upstream

"""What the service measures, as Prometheus reads it.

Every app has its own registry, so that two apps in one process (tests) do not share numbers. Several worker processes
keep theirs in files of one folder, and the exposition of any of them adds all files up.
"""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest, values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.tallies import Gathered, Tallies

MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.25)
_PROBABILITY = (0.0001, 0.001, 0.003, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

FOLD_S = 0.5
STAGES = ("wait", "behaviours", "encode", "engine", "correct", "serialise")


class Metrics:
    """The counters, gauges and histograms of one app."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        tallies = self._tallies = Tallies()
        name = "ctrlift_"
        self.requests = tallies.counts(
            Counter(
                name + "http_requests", "Answers by route and status.", ["route", "method", "status"], registry=registry
            )
        )
        self.request_seconds = tallies.spreads(
            Histogram(
                name + "http_request_seconds",
                "Time of a whole request.",
                ["route"],
                buckets=_SECONDS,
                registry=registry,
            )
        )
        stage_seconds = tallies.spreads(
            Histogram(
                name + "stage_seconds",
                "Time of one stage of /score and /uplift.",
                ["stage"],
                buckets=_SHORT,
                registry=registry,
            )
        )
        self.stages = {stage: stage_seconds.labels(stage) for stage in STAGES}
        self.in_flight = tallies.level(
            Gauge(name + "in_flight", "Requests being worked on.", registry=registry, multiprocess_mode="livesum")
        )
        self.fast = tallies.count(
            Counter(name + "fast_path", "Answers to /score given by the fast path.", registry=registry)
        )
        self.queued = tallies.level(
            Gauge(name + "queued", "Requests waiting for a place.", registry=registry, multiprocess_mode="livesum")
        )
        self.shed = Counter(name + "shed", "Requests refused by admission.", ["reason"], registry=registry)
        self._store(registry, name)
        self._models(registry, name)
        self._uplift(registry, name)

    def _store(self, registry: CollectorRegistry, name: str) -> None:
        self.store_seconds = self._tallies.spread(
            Histogram(name + "store_read_seconds", "Time of one read of the store.", buckets=_SHORT, registry=registry)
        )
        self.store_errors = Counter(name + "store_errors", "Calls to the store that failed.", registry=registry)
        self.breaker = self._tallies.level(
            Gauge(
                name + "store_breaker",
                "0 closed, 1 half open, 2 open.",
                registry=registry,
                multiprocess_mode="livemax",
            )
        )
        self.corrupt = Counter(
            name + "store_corrupt_values", "Stored values that cannot be decoded.", registry=registry
        )
        self.source = self._tallies.counts(
            Counter(name + "history_source", "Where a history came from.", ["source"], registry=registry)
        )
        self.degraded = self._tallies.counts(
            Counter(name + "degraded", "Answers that were less than they could be.", ["reason"], registry=registry)
        )

    def _models(self, registry: CollectorRegistry, name: str) -> None:
        self.unseen = self._tallies.counts(
            Counter(name + "unseen_ids", "Ids the bundle has no row for.", ["model", "field"], registry=registry)
        )
        self.scores = self._tallies.spreads(
            Histogram(
                name + "score",
                "Probabilities that were sent.",
                ["model", "task"],
                buckets=_PROBABILITY,
                registry=registry,
            )
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
        self.uplift_users = self._tallies.counts(
            Counter(name + "uplift_users", "Users that /uplift answered for.", ["model"], registry=registry)
        )
        self.effects = Summary(
            name + "uplift_effect", "Mean effect of a request's users.", ["model", "treatment"], registry=registry
        )
        self.overlap = self._tallies.counts(
            Counter(
                name + "uplift_overlap",
                "Users by how far the data speaks for an arm.",
                ["model", "flag"],
                registry=registry,
            )
        )
        self.recommended = self._tallies.counts(
            Counter(
                name + "uplift_recommended",
                "Users by recommended treatment.",
                ["model", "treatment"],
                registry=registry,
            )
        )
        self.unknown_effects = Counter(
            name + "uplift_unknown",
            "Effects sent as null because a number was not finite.",
            ["model"],
            registry=registry,
        )

    def gather(self, made: Gathered) -> None:
        """Have something folded before everything else; it hands over to the series of this object."""
        self._tallies.keep(made, first=True)

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes, of all server processes together.

        The other processes' numbers are as old as their last ``fold``.
        """
        self.fold()
        if os.environ.get(MULTIPROC_VARIABLE):
            together = CollectorRegistry()
            MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # untyped upstream
            return generate_latest(together)
        return generate_latest(self.registry)

    def start(self) -> None:
        """Fold every now and then; needs a running event loop."""
        self._tallies.start(FOLD_S)

    def stop(self) -> None:
        """Fold a last time."""
        self._tallies.stop()

    def fold(self) -> None:
        """Put what requests have gathered into the series; done every ``FOLD_S`` seconds and before an exposition."""
        self._tallies.fold()

    def retire(self, model: str, version: str, network: str) -> None:
        """Say no longer that a version serves."""
        self.model_info.labels(model, version, network).set(0)
        if not os.environ.get(MULTIPROC_VARIABLE):  # a line of the files cannot be taken back
            self.model_info.remove(model, version, network)


def share_between_processes(folder: str, process: str) -> None:
    """Keep the numbers of every ``Metrics`` made from now on in files that other processes add up.

    Args:
        folder: The same for all of them.
        process: Name of this one. Who takes the name of a dead process goes on with its counters.
    """
    os.environ[MULTIPROC_VARIABLE] = folder
    # The library looks at the variable while it is imported, which was long ago.
    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]  # untyped upstream


def forget_process(folder: str, process: object) -> None:
    """Take the gauges of a process that has ended out of the sum; its counters stay in it."""
    mark_process_dead(process, folder)  # type: ignore[no-untyped-call]  # untyped upstream

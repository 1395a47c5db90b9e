"""What fast answers add to the metrics: a line an answer, taken apart by columns when it is handed over."""

from collections import Counter
from typing import NamedTuple

from service.core.version import ServedVersion
from service.metrics import Metrics


class Landed(NamedTuple):
    """One answer. Times in seconds.

    Attributes:
        version: That answered.
        total: From the first byte to the last.
        behaviours: Until the store had answered.
        encode, engine, serialise: Of the stages.
        unseen: By field, how many ids its table does not know.
        means: Of each task's probabilities.
    """

    version: ServedVersion
    total: float
    behaviours: float
    encode: float
    engine: float
    serialise: float
    unseen: dict[str, int]
    means: tuple[float, ...]


class FastTally:
    """Gathers answers of status 200. A dozen series a request, each touched alone, would cost more than the request.

    Args:
        metrics: Where they are handed over.
        route, method: Of the requests.
    """

    def __init__(self, metrics: Metrics, route: str, method: str) -> None:
        self._metrics = metrics
        self._requests = metrics.requests.labels(route, method, "200")
        self._seconds = metrics.request_seconds.labels(route)
        self._source = metrics.source.labels("store")
        self.landed: list[Landed] = []
        metrics.gather(self)

    def fold(self) -> None:
        """Hand everything over."""
        if not self.landed:
            return
        landed, self.landed = self.landed, []
        metrics, count = self._metrics, len(landed)
        versions, totals, behaviours, encode, engine, serialise, _, _ = zip(*landed, strict=True)
        self._requests.inc(count)
        self._source.inc(count)
        metrics.fast.inc(count)
        self._seconds.observe_all(totals)
        columns = (("wait", [0.0] * count), ("behaviours", behaviours), ("encode", encode))
        for stage, values in (*columns, ("engine", engine), ("serialise", serialise)):
            metrics.stages[stage].observe_all(values)
        for version in set(versions):
            self._fold_version(version, [one for one in landed if one.version is version])

    def _fold_version(self, version: ServedVersion, landed: list[Landed]) -> None:
        metrics, unseen = self._metrics, Counter[str]()
        for one in landed:
            unseen.update(one.unseen)
        for name, number in unseen.items():
            if number:
                metrics.unseen.labels(version.name, name).inc(number)
        if version.compiled is not None:
            means = zip(*(one.means for one in landed), strict=True)
            for task, values in zip(version.compiled.reply.probabilities, means, strict=True):
                metrics.scores.labels(version.name, task).observe_all(values)

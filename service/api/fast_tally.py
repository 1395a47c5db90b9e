"""What fast answers add to the metrics: a line an answer, taken apart by columns when it is handed over."""

from collections import Counter

from service.core.version import ServedVersion
from service.metrics import Metrics

# One answer: the version; seconds from the first byte to the last, of waiting for its turn, until the store had
# answered, of encoding, of the graph and of writing the reply; by field how many ids its table does not know; the mean
# of each task's probabilities. A plain tuple: the making of a named one costs more than all that it is asked for.
Landed = tuple[ServedVersion, float, float, float, float, float, float, dict[str, int], tuple[float, ...]]


class FastTally:
    """Gathers answers of status 200. A dozen series a request, each touched alone, would cost more than the request.

    Args:
        metrics: Where they are handed over.
        route, method: Of the requests.

    Attributes:
        add: Note one answer.
    """

    def __init__(self, metrics: Metrics, route: str, method: str) -> None:
        self._metrics = metrics
        self._requests = metrics.requests.labels(route, method, "200")
        self._seconds = metrics.request_seconds.labels(route)
        self._source = metrics.source.labels("store")
        self._landed: list[Landed] = []
        self.add = self._landed.append
        metrics.gather(self)

    def fold(self) -> None:
        """Hand everything over."""
        landed = self._landed.copy()
        if not landed:
            return
        self._landed.clear()
        metrics, count = self._metrics, len(landed)
        versions, totals, wait, behaviours, encode, engine, serialise, _, _ = zip(*landed, strict=True)
        self._requests.inc(count)
        self._source.inc(count)
        metrics.fast.inc(count)
        self._seconds.observe_all(totals)
        columns = (("wait", wait), ("behaviours", behaviours), ("encode", encode))
        for stage, values in (*columns, ("engine", engine), ("serialise", serialise)):
            metrics.stages[stage].observe_all(values)
        for version in set(versions):
            self._fold_version(version, [one[-2:] for one in landed if one[0] is version])

    def _fold_version(self, version: ServedVersion, landed: list[tuple[dict[str, int], tuple[float, ...]]]) -> None:
        metrics, unseen = self._metrics, Counter[str]()
        for strange, _ in landed:
            unseen.update(strange)
        for name, number in unseen.items():
            if number:
                metrics.unseen.labels(version.name, name).inc(number)
        if version.compiled is not None:
            means = zip(*(one for _, one in landed), strict=True)
            for task, values in zip(version.compiled.reply.probabilities, means, strict=True):
                metrics.scores.labels(version.name, task).observe_all(values)

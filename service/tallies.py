"""What is counted at every request, gathered in plain Python and handed to Prometheus now and then.

An observation of ``prometheus_client`` takes a lock, walks through the buckets and, with several processes, writes
into a mapped file; a dozen of them cost more than reading the request. Here an observation is an append. ``fold`` puts
what was gathered into the library's own series, so that names, buckets and exposition stay the library's.

Only the event loop's thread may use these.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

_MOST = 4096  # values that one series gathers before it folds by itself


class Gathered(Protocol):
    """Something that was counted and not handed over yet."""

    def fold(self) -> None:
        """Hand it over."""
        ...


S = TypeVar("S", bound=Gathered)
G = TypeVar("G", bound=Gathered)


class Count:
    """Stands in for a counter without labels, or for one of its children."""

    __slots__ = ("_amount", "_counter")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._amount = 0.0

    def inc(self, amount: float = 1) -> None:
        """Count ``amount`` more."""
        self._amount += amount

    def fold(self) -> None:
        """Hand the sum over."""
        if self._amount:
            amount, self._amount = self._amount, 0.0
            self._counter.inc(amount)


class Level:
    """Stands in for a gauge."""

    __slots__ = ("_changed", "_gauge", "_value")

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._value = 0.0
        self._changed = False

    def set(self, value: float) -> None:
        """The level is ``value`` now."""
        self._value = value
        self._changed = True

    def fold(self) -> None:
        """Hand the last value over."""
        if self._changed:
            self._changed = False
            self._gauge.set(self._value)


class Spread:
    """Stands in for a histogram without labels, or for one of its children."""

    __slots__ = ("_bounds", "_histogram", "_values")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._bounds = np.array(histogram._upper_bounds)
        self._values: list[float] = []

    def observe(self, value: float) -> None:
        """Note one value."""
        self._values.append(value)
        if len(self._values) >= _MOST:
            self.fold()

    def observe_all(self, values: Iterable[float]) -> None:
        """Note several values."""
        self._values.extend(values)

    def fold(self) -> None:
        """Add all values to their buckets at once: what ``observe`` of the library does for one."""
        if not self._values:
            return
        values = np.array(self._values)
        self._values.clear()
        places = self._bounds.searchsorted(values)  # the first bound that is not below the value
        histogram = self._histogram
        histogram._sum.inc(float(values.sum()))
        counts = np.bincount(places, minlength=len(self._bounds)).tolist()
        for bucket, count in zip(histogram._buckets, counts, strict=False):  # no bucket is that of NaN
            if count:
                bucket.inc(count)


class Labelled(Generic[S]):
    """The children of a metric by the values of its labels, each looked for once."""

    __slots__ = ("_children", "_metric", "_stand_in")

    def __init__(self, metric: Any, stand_in: Callable[[Any], S]) -> None:
        self._metric = metric
        self._stand_in = stand_in
        self._children: dict[tuple[str, ...], S] = {}

    def labels(self, *values: str) -> S:
        """What stands in for the child of these values."""
        found = self._children.get(values)
        if found is None:
            found = self._children[values] = self._stand_in(self._metric.labels(*values))
        return found

    def fold(self) -> None:
        """Hand over what all children gathered."""
        for child in list(self._children.values()):
            child.fold()


class Tallies:
    """Makes stand-ins and folds all of them."""

    def __init__(self) -> None:
        self._made: list[Gathered] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Fold every so many seconds from now on; needs a running event loop."""
        loop = asyncio.get_running_loop()

        def turn() -> None:
            self.fold()
            self._timer = loop.call_later(seconds, turn)

        self._timer = loop.call_later(seconds, turn)

    def stop(self) -> None:
        """Fold a last time."""
        if self._timer is not None:
            self._timer.cancel()
        self.fold()

    def count(self, counter: Counter) -> Count:
        """For a counter without labels."""
        return self.keep(Count(counter))

    def counts(self, counter: Counter) -> Labelled[Count]:
        """For a counter with labels."""
        return self.keep(Labelled(counter, Count))

    def level(self, gauge: Gauge) -> Level:
        """For a gauge without labels."""
        return self.keep(Level(gauge))

    def spread(self, histogram: Histogram) -> Spread:
        """For a histogram without labels."""
        return self.keep(Spread(histogram))

    def spreads(self, histogram: Histogram) -> Labelled[Spread]:
        """For a histogram with labels."""
        return self.keep(Labelled(histogram, Spread))

    def keep(self, made: G, *, first: bool = False) -> G:
        """Fold it with all others; first, if it hands over to another one of these."""
        self._made.insert(0 if first else len(self._made), made)
        return made

    def fold(self) -> None:
        """Hand everything over to Prometheus."""
        for made in self._made:
            made.fold()

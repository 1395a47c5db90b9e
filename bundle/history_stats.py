"""Numbers computed from stored behaviours (`kind = "history"`), for rows and for candidates.

Sums run over each row's own segment and never over differences of running totals, so that a row gives the same bits
alone, in a batch, offline and online.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle.behaviours import Behaviours
from bundle.histories import Filtered, Histories
from bundle.schema import HistoryFeature

Float = NDArray[np.float64]
_CHUNK: Final = 500_000  # visited events at a time: a few MB that stay in the cache
_SECONDS_PER_DAY: Final = 86_400.0
_SECONDS_PER_HOUR: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Segments:
    """The events of some non-empty rows laid end to end.

    Attributes:
        rows: (R,) which rows.
        events: (L,) index into the log.
        offsets: (R,) where each row begins in `events`.
        lengths: (R,).
    """

    rows: NDArray[np.int64]
    events: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def sum(self, values: NDArray[np.float64]) -> Float:
        """Sum of values (L,) of each segment, (R,)."""
        return np.asarray(np.add.reduceat(values, self.offsets), dtype=np.float64)

    def count(self, marked: NDArray[np.bool_]) -> Float:
        """How many of (L,) are True in each segment, (R,)."""
        return np.add.reduceat(marked, self.offsets, dtype=np.int64).astype(np.float64)

    def spread(self, values: NDArray[np.float64]) -> Float:
        """Repeat a value a segment (R,) over its events, (L,)."""
        return values.repeat(self.lengths)


def segments(start: NDArray[np.int64], stop: NDArray[np.int64]) -> Iterator[Segments]:
    """The non-empty slices in chunks of bounded size; none where all are empty."""
    lengths = stop - start
    rows = lengths.nonzero()[0]
    lengths = lengths[rows]
    ends = lengths.cumsum()
    low = 0
    while low < len(rows):
        base = int(ends[low - 1]) if low else 0
        high = len(rows)
        if int(ends[-1]) - base > _CHUNK:
            high = max(low + 1, int(ends.searchsorted(base + _CHUNK, side="right")))
        part = lengths[low:high]
        offsets = ends[low:high] - part - base
        events = (start[rows[low:high]] - offsets).repeat(part) + np.arange(int(ends[high - 1]) - base)
        yield Segments(rows[low:high], events, offsets, part)
        low = high


def row_stats(features: Sequence[HistoryFeature], histories: Histories) -> dict[str, Float]:
    """User-side history features by name, each (U,) float64; NaN where missing.

    Features over the same behaviours share one walk through them.
    """
    out: dict[str, Float] = {}
    of_values: dict[tuple[object, int | None], list[HistoryFeature]] = {}
    for feature in features:
        visible = histories.of(feature.where).behaviours
        match feature.stat:
            case "count":
                out[feature.name] = visible.lengths.astype(np.float64)
            case "seconds_since":
                out[feature.name] = histories.time - _edge_time(visible, newest=True)
            case "per_hour":
                # Behaviours are at least a second older than the row, so the span is never zero.
                span = histories.time - _edge_time(visible, newest=False)
                out[feature.name] = visible.lengths * _SECONDS_PER_HOUR / span
            case _:
                of_values.setdefault((feature.where, feature.k), []).append(feature)
    for members in of_values.values():
        valued = histories.of(members[0].where, valued=True).behaviours
        out |= _value_stats(members, valued if members[0].k is None else valued.newest(members[0].k))
    return out


def _edge_time(behaviours: Behaviours, *, newest: bool) -> Float:
    """Time of the newest or oldest behaviour of each row, NaN where there is none."""
    out = np.full(len(behaviours), np.nan)
    rows = (behaviours.stop > behaviours.start).nonzero()[0]
    edge = behaviours.stop[rows] - 1 if newest else behaviours.start[rows]
    out[rows] = behaviours.events["ts"][edge]
    return out


def _value_stats(features: Sequence[HistoryFeature], valued: Behaviours) -> dict[str, Float]:
    """mean, std, last_k_mean and decayed_mean over behaviours that all have a value."""
    out = {feature.name: np.full(len(valued), np.nan) for feature in features}
    value = valued.events["value"].astype(np.float64)
    for part in segments(valued.start, valued.stop):
        v = value[part.events]
        mean = part.sum(v) / part.lengths
        for feature in features:
            if feature.stat == "decayed_mean":
                result = _decayed_mean(feature.half_life_days or 1.0, valued, part, v)
            elif feature.stat == "std":
                deviation = v - part.spread(mean)
                result = np.sqrt(part.sum(deviation * deviation) / part.lengths)
            else:
                result = mean
            out[feature.name][part.rows] = result
    return out


def _decayed_mean(half_life_days: float, valued: Behaviours, part: Segments, v: Float) -> Float:
    ts = valued.events["ts"]
    newest = ts[valued.stop[part.rows] - 1].astype(np.float64)
    # Ages count from the newest behaviour: the ratio is the same as from the row's time, and the newest weight is 1,
    # so the sum of weights cannot underflow to zero for an old history.
    age_days = (part.spread(newest) - ts[part.events]) / _SECONDS_PER_DAY
    with np.errstate(under="ignore"):
        weight = np.exp2(age_days / -half_life_days)
        return np.asarray(part.sum(weight * v) / part.sum(weight))


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the candidates have in the compared column, and what each behaviour had in it.

    Attributes:
        wanted: (U, C) bit sets, or (U, C, W) raw ids with 0 for none.
        happened: for the filtered log in question, (M,) bit sets or (M, W) raw ids.
    """

    wanted: NDArray[np.uint64]
    happened: NDArray[np.uint64]

    def marks(self, part: Segments) -> NDArray[np.bool_]:
        """For events (L,) of segments that belong to flat (row, candidate) pairs: whether they agree."""
        if self.happened.ndim == 1:
            return np.asarray(
                (self.happened[part.events] & self.wanted.reshape(-1)[part.rows].repeat(part.lengths)) != 0
            )
        candidate = self.wanted.reshape(-1, self.wanted.shape[-1])[part.rows]
        out = np.zeros(len(part.events), dtype=np.bool_)
        for slot in range(candidate.shape[1]):
            wanted = candidate[:, slot].repeat(part.lengths)
            for other in range(self.happened.shape[1]):
                out |= (self.happened[part.events, other] == wanted) & (wanted != 0)
        return out


@dataclass(frozen=True, slots=True)
class Tally:
    """Behaviours that agree with each candidate.

    Attributes:
        agreeing: (U, C) how many.
        valued: (U, C) how many of them have a value.
        sums: (U, C) sum of those values.
        total: (U, 1) behaviours of the row, agreeing or not.
    """

    agreeing: Float
    valued: Float
    sums: Float
    total: Float

    def stat(self, name: str) -> Float:
        """(U, C) count, share or mean; NaN where there is nothing to average."""
        if name == "count":
            return self.agreeing
        if name == "share":
            return np.asarray(self.agreeing / np.maximum(self.total, 1.0))
        mean = np.full(self.sums.shape, np.nan)
        np.divide(self.sums, self.valued, out=mean, where=self.valued > 0)
        return mean


def tally(log: Filtered, agreement: Agreement) -> Tally:
    """Count and sum the agreeing behaviours of every (row, candidate) pair in one walk."""
    users, candidates = agreement.wanted.shape[:2]
    history = log.behaviours
    value = history.events["value"].astype(np.float64)
    has_value = ~np.isnan(value)
    known = np.where(has_value, value, 0.0)
    all_valued = bool(has_value.all())
    agreeing, valued, sums = np.zeros((3, users * candidates))
    for part in segments(history.start.repeat(candidates), history.stop.repeat(candidates)):
        marked = agreement.marks(part)
        agreeing[part.rows] = part.count(marked)
        valued[part.rows] = agreeing[part.rows] if all_valued else part.count(marked & has_value[part.events])
        sums[part.rows] = part.sum(np.where(marked, known[part.events], 0.0))
    shape = (users, candidates)
    total = history.lengths[:, None].astype(np.float64)
    return Tally(agreeing.reshape(shape), valued.reshape(shape), sums.reshape(shape), total)

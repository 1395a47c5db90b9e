"""Behaviours: the record format of the store, and histories of many users as slices into one log.

docs/behaviour-records.md describes the same bytes for other languages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.errors import CorruptRecord
from bundle.ids import MISSING_ID, id64_column, type32

FORMAT_BYTE: Final = 1
MAX_EVENTS: Final = 1000  # behaviours of one user that any feature may look at; the store keeps no more by default
NO_TYPE: Final = 0  # a behaviour without a type
RECORD: Final = np.dtype([("item", "<u8"), ("ts", "<u4"), ("type", "<u4"), ("value", "<f4")])

Events = NDArray[np.void]  # (N,) of RECORD
_LAST_SECOND: Final = 2**32


def records(
    items: Sequence[str] | NDArray[np.uint64],
    ts: ArrayLike,
    types: Sequence[str | None] | None = None,
    values: ArrayLike | None = None,
) -> Events:
    """Columns (N,) to records (N,), order kept. Item ids are text or already id64; `values` uses NaN for none.

    Raises:
        ValueError: if the lengths differ, a time is not finite or outside [0, 2^32) seconds, an item is missing, or
            a value is infinite (as float32).
    """
    hashed = items if isinstance(items, np.ndarray) and items.dtype == np.uint64 else id64_column(items)
    seconds = np.asarray(ts, dtype=np.float64)
    out = np.zeros(len(hashed), dtype=RECORD)
    if seconds.shape != hashed.shape:
        raise ValueError(f"{len(hashed)} items but times of shape {seconds.shape}")
    if not np.all((seconds >= 0) & (seconds < _LAST_SECOND)):
        raise ValueError("a behaviour's time must be whole seconds in [0, 2^32)")
    if np.any(hashed == MISSING_ID):
        raise ValueError("a behaviour needs an item")
    out["item"] = hashed
    out["ts"] = seconds
    if types is not None:
        if len(types) != len(hashed):
            raise ValueError(f"{len(hashed)} items but {len(types)} types")
        codes = {kind: type_code(kind) for kind in set(types)}
        out["type"] = [codes[kind] for kind in types]
    out["value"] = np.nan if values is None else float32_values(values)
    return out


def type_code(kind: str | None) -> int:
    """The stored number of a behaviour's type; none is `NO_TYPE`."""
    return NO_TYPE if kind is None else type32(kind)


def float32_values(values: ArrayLike) -> NDArray[np.float32]:
    """Behaviour values as they are stored; what float32 cannot hold is an error rather than an infinity.

    Raises:
        ValueError: for an infinite value, also one that only becomes infinite as float32.
    """
    with np.errstate(over="ignore"):
        narrowed = np.asarray(values, dtype=np.float64).astype(np.float32)
    if np.any(np.isinf(narrowed)):
        raise ValueError("a behaviour's value must be finite")
    return narrowed


def pack(events: Events) -> bytes:
    """Records (N,) of one user, oldest first, to the bytes that the store keeps.

    Raises:
        ValueError: if the dtype is another one or the times decrease.
    """
    if events.dtype != RECORD or events.ndim != 1:
        raise ValueError(f"expected a column of behaviour records, got {events.dtype} of shape {events.shape}")
    if not _ordered(events):
        raise ValueError("behaviours must be packed oldest first")
    return bytes([FORMAT_BYTE]) + events.tobytes()


def unpack(data: bytes, max_events: int = MAX_EVENTS) -> Events:
    """The newest `max_events` records of one stored value; raises nothing but `CorruptRecord`.

    A longer value is cut before anything is checked or copied, so that a damaged store cannot make a reader large.

    Raises:
        CorruptRecord: wrong format byte, torn length, times that decrease, a missing item, or an infinite value.
    """
    events = np.frombuffer(_newest(data, max_events), dtype=RECORD)
    if not _ordered(events):
        raise CorruptRecord("the records are not oldest first")
    # count_nonzero costs a fraction of any() and all() on arrays as short as a history.
    if np.count_nonzero(events["item"]) != len(events):  # MISSING_ID is 0
        raise CorruptRecord("a record has no item")
    if np.count_nonzero(np.isinf(events["value"])):
        raise CorruptRecord("a record's value is infinite")
    return events


def unpack_rows(values: Sequence[bytes | None], max_events: int = MAX_EVENTS) -> "tuple[Behaviours, list[int]]":
    """Stored values of U users (None: no value) as histories in one log, and the rows whose value is corrupt.

    Says of every value what `unpack` says of it, at a tenth of the cost a user; a corrupt row is an empty history.
    """
    parts: list[bytes] = []
    corrupt: list[int] = []
    for row, value in enumerate(values):
        part = b""
        if value is not None:
            try:
                part = _newest(value, max_events)
            except CorruptRecord:
                corrupt.append(row)
        parts.append(part)
    events = np.frombuffer(b"".join(parts), dtype=RECORD)
    stop = np.cumsum([len(part) for part in parts], dtype=np.int64) // RECORD.itemsize
    start = np.concatenate([np.zeros(min(1, len(stop)), dtype=np.int64), stop[:-1]])
    wrong = np.zeros(len(events), dtype=np.bool_)
    wrong[1:] = events["ts"][1:] < events["ts"][:-1]
    wrong[start[start < stop]] = False  # the first event of a row follows nothing
    wrong |= (events["item"] == MISSING_ID) | np.isinf(events["value"])
    if wrong.any():
        rows = np.unique(np.searchsorted(stop, np.flatnonzero(wrong), side="right"))
        start[rows] = stop[rows]
        corrupt = sorted({*corrupt, *rows.tolist()})
    return Behaviours(events, start, stop), corrupt


def _newest(data: bytes, max_events: int) -> bytes:
    """The newest records' bytes: a copy, so that what is kept does not keep a longer value alive, and lies aligned."""
    if len(data) == 0 or data[0] != FORMAT_BYTE:
        raise CorruptRecord(f"the value does not start with format byte {FORMAT_BYTE}")
    count, torn = divmod(len(data) - 1, RECORD.itemsize)
    if torn:
        raise CorruptRecord(f"{len(data) - 1} bytes are not a whole number of {RECORD.itemsize}-byte records")
    return data[len(data) - min(count, max_events) * RECORD.itemsize :]


def _ordered(events: Events) -> bool:
    ts = events["ts"]
    return not np.count_nonzero(ts[1:] < ts[:-1])


@dataclass(frozen=True, slots=True)
class Behaviours:
    """Histories of U rows as slices of one log; slices may overlap, so a training set stores each event once.

    Attributes:
        events: (N,) RECORD; inside every slice the times never decrease.
        start: (U,) int64, first event of each row.
        stop: (U,) int64, one past its last event.
    """

    events: Events
    start: NDArray[np.int64]
    stop: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.events.dtype != RECORD:
            raise ValueError(f"events must be behaviour records, got {self.events.dtype}")
        if self.start.shape != self.stop.shape or self.start.ndim != 1:
            raise ValueError(f"start {self.start.shape} and stop {self.stop.shape} must be one column each")
        if len(self.start) == 1 and 0 <= self.start[0] <= self.stop[0] <= len(self.events):
            return  # a request: plain numbers cost a fifth of the reductions below
        if len(self.start) and (self.start.min() < 0 or self.stop.max() > len(self.events)):
            raise ValueError("a slice lies outside the log")
        if np.any(self.stop < self.start):
            raise ValueError("a slice ends before it starts")

    @classmethod
    def empty(cls, rows: int) -> Self:
        """`rows` histories without any behaviour."""
        zero = np.zeros(rows, dtype=np.int64)
        return cls(np.empty(0, dtype=RECORD), zero, zero)

    @classmethod
    def from_events(cls, per_row: Sequence[Events]) -> Self:
        """One history a row from separate record arrays, each oldest first (copied into one log)."""
        stop = np.cumsum([len(events) for events in per_row], dtype=np.int64)
        log = np.concatenate([np.empty(0, dtype=RECORD), *per_row])
        start = np.concatenate([np.zeros(min(1, len(stop)), dtype=np.int64), stop[:-1]])
        return cls(log, start, stop)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Behaviours of each row, (U,)."""
        return self.stop - self.start

    def __len__(self) -> int:
        return len(self.start)

    def take(self, rows: NDArray[np.int64] | slice) -> "Behaviours":
        """The histories of some rows; the log is shared, not copied."""
        return Behaviours(self.events, self.start[rows], self.stop[rows])

    def before(self, ts: NDArray[np.float64]) -> "Behaviours":
        """Drop what happened at or after each row's time (U,): an event must be at least one whole second older.

        Whole seconds because a log that stamps a burst with one second does not say which event came first, and a
        row must not see its own event.

        Raises:
            ValueError: if a time is not finite or there is not one a row.
        """
        if ts.shape != self.start.shape or np.count_nonzero(np.isfinite(ts)) != len(ts):
            raise ValueError("every row needs a finite time")
        times = self.events["ts"]
        if len(times) == 0:
            return self
        if len(ts) == 1:
            return self._one_before(float(ts[0]), times)
        limit = np.clip(np.floor(ts), 0, _LAST_SECOND).astype(np.int64)
        # Almost every history is already cut; looking at the last event spares the search.
        low, high = self.start.copy(), self.stop.copy()
        late = (high > low) & (times[np.maximum(high - 1, 0)] >= limit)
        if not late.any():
            return self
        while True:  # one binary search for all rows at once
            open_rows = low < high
            if not open_rows.any():
                return Behaviours(self.events, self.start, low)
            middle = (low + high) // 2
            earlier = open_rows & (times[np.minimum(middle, len(times) - 1)] < limit)
            low = np.where(earlier, middle + 1, low)
            high = np.where(open_rows & ~earlier, middle, high)

    def _one_before(self, ts: float, times: NDArray[np.uint32]) -> "Behaviours":
        """`before` for one row, where whole columns would cost more than the search."""
        limit = min(max(math.floor(ts), 0), _LAST_SECOND)
        low, high = int(self.start[0]), int(self.stop[0])
        if low == high or times[high - 1] < limit:
            return self
        # A limit that the records cannot hold lies after all of them, so here it fits their type.
        kept = low + int(times[low:high].searchsorted(times.dtype.type(limit)))
        return Behaviours(self.events, self.start, np.array([kept], dtype=np.int64))

    def newest(self, count: int) -> "Behaviours":
        """At most the newest `count` behaviours of each row."""
        if len(self.events) == 0 or (len(self.start) == 1 and self.stop[0] - self.start[0] <= count):
            return self
        return Behaviours(self.events, np.maximum(self.start, self.stop - count), self.stop)

    def where(self, keep: NDArray[np.bool_]) -> "Behaviours":
        """Only the events (N,) marked True, in their order; O(N + U), never a copy a row."""
        if keep.all():
            return self
        before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(keep, dtype=np.int64)])
        return Behaviours(self.events[keep], before[self.start], before[self.stop])

"""Stored bytes to values and back: behaviours in the record format of ``bundle``, features as one JSON object."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from bundle.behaviours import RECORD, Events, records, unpack, unpack_rows
from bundle.errors import CorruptRecord
from service.behaviours.base import Event, Features, UserData, no_events

# Features are a few dozen scalars; a value beyond this is damage, and parsing it would hold the event loop.
MOST_FEATURE_BYTES = 64 * 1024
_NO_EVENTS = no_events()


def decode_user(sequence: bytes | None, features: bytes | None, max_events: int) -> UserData:
    """One user from the two stored values; what cannot be decoded is left out and counted, never raised."""
    corrupt = 0
    events = _NO_EVENTS
    if sequence is not None:
        try:
            events = unpack(sequence, max_events)
        except CorruptRecord:
            corrupt = 1
    return _with_features(events, features, corrupt)


def decode_users(
    sequences: Sequence[bytes | None], features: Sequence[bytes | None], max_events: int
) -> tuple[UserData, ...]:
    """Many users at once, each as ``decode_user`` gives it; their behaviours are slices of one log."""
    if len(sequences) == 1:
        return (decode_user(sequences[0], features[0], max_events),)
    behaviours, wrong = unpack_rows(sequences, max_events)
    log = behaviours.events
    slices = zip(behaviours.start.tolist(), behaviours.stop.tolist(), strict=True)
    corrupt = [0] * len(sequences)
    for row in wrong:
        corrupt[row] = 1
    rows = zip(slices, features, corrupt, strict=True)
    return tuple(
        _with_features(log[start:stop] if start < stop else _NO_EVENTS, stored, bad)
        for (start, stop), stored, bad in rows
    )


def _with_features(events: Events, features: bytes | None, corrupt: int) -> UserData:
    if features is None:
        return UserData(events, {}, corrupt)
    try:
        return UserData(events, _decode_features(features), corrupt)
    except CorruptRecord:
        return UserData(events, {}, corrupt + 1)


def encode_features(features: Features) -> bytes:
    """The bytes that ``decode_user`` reads.

    Raises:
        ValueError: The object is larger than a reader would accept.
    """
    data = orjson.dumps(dict(features))
    if len(data) > MOST_FEATURE_BYTES:
        raise ValueError(
            f"the features of one user may take {MOST_FEATURE_BYTES} bytes as JSON, these take {len(data)}"
        )
    return data


def _decode_features(data: bytes) -> Features:
    if len(data) > MOST_FEATURE_BYTES:
        raise CorruptRecord("the stored features are too long")
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise CorruptRecord("the stored features are not JSON") from error
    # Nothing can be nested where there is one brace and no bracket: most values are not looked into.
    nested = data.count(b"{") > 1 or b"[" in data
    if not isinstance(values, dict) or (nested and not _flat(values)):
        raise CorruptRecord("the stored features are not an object of scalars and lists of scalars")
    return values


def _flat(values: dict[str, Any]) -> bool:
    """Whether all values are scalars or lists of scalars."""
    parts = [part for value in values.values() for part in (value if isinstance(value, list) else (value,))]
    return not any(isinstance(part, (list, dict)) for part in parts)


def group_events(events: Sequence[Event]) -> tuple[dict[str, Events], int]:
    """Events by user, each user's oldest first and without repeats; the number of repeats left out."""
    by_user: dict[str, list[Event]] = {}
    for event in events:
        by_user.setdefault(event.user_id, []).append(event)
    grouped: dict[str, Events] = {}
    repeats = 0
    for user_id, own in by_user.items():
        own.sort(key=lambda event: event.ts)  # stable: events of one second keep the order they came in
        packed = records(
            [event.item_id for event in own],
            [event.ts for event in own],
            [event.type for event in own],
            [np.nan if event.value is None else event.value for event in own],
        )
        distinct = _distinct(packed)
        repeats += len(packed) - len(distinct)
        grouped[user_id] = distinct
    return grouped, repeats


def _distinct(events: Events) -> Events:
    # Compared as bytes: two events without a value are equal although NaN is not.
    seen = dict.fromkeys(_rows(events))
    return events if len(seen) == len(events) else np.frombuffer(b"".join(seen), dtype=RECORD)


def _rows(events: Events) -> list[bytes]:
    data, size = events.tobytes(), RECORD.itemsize
    return [data[start : start + size] for start in range(0, len(data), size)]


def merge(stored: Events, fresh: Events, max_events: int) -> tuple[Events, int]:
    """Insert ``fresh`` (oldest first) into ``stored``; the newest ``max_events`` and the number already there.

    The reference of the Lua script in redis.py: events of the same second keep the order in which they arrived.
    """
    present = set(_rows(stored))
    keep = np.array([row not in present for row in _rows(fresh)], dtype=np.bool_)
    both = np.concatenate([stored, fresh[keep]])
    order = np.argsort(both["ts"], kind="stable")
    return both[order][-max_events:], int(len(fresh) - keep.sum())

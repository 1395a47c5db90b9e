"""A chunk of a file as slates, one user's candidates at one time, and slates of equal size as blocks of U x C."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow.compute as pc
from numpy.typing import NDArray

from bundle.behaviours import Behaviours
from bundle.columns import Column, Rows, raw_column
from bundle.errors import FeatureProblem
from bundle.request import StoredUser
from bundle.request_values import checked
from bundle.schema import FeatureSchema, IdFeature, NumberFeature, SequenceFeature
from cli.batch import past
from cli.batch.cells import Faults, WrongValue, feature_column, ids
from cli.exits import InputProblem
from cli.tables import seconds, text_ids

Int = NDArray[np.int64]
USER, ITEM, TIME = "user_id", "item_id", "ts"
LONGEST_SLATE: Final = 1000  # what one request may ask for; a longer run becomes several slates
# A block's largest array in a graph is a value for each hidden unit of each (user, candidate, step): measured, blocks
# of this many (user, candidate, step) are the fastest, and larger ones only need more memory.
BLOCK_CELLS: Final = 65_536
BLOCK_ROWS: Final = 8_192
LAST_SECOND: Final = 2**32


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file.

    Attributes:
        frame: the rows.
        file: which, for messages.
        offset: rows of the file that stand before it.
        now: the time of rows that say none.
        stored: what the store holds by user; empty where the rows bring their histories along.
    """

    frame: pl.DataFrame
    file: Path
    offset: int
    now: float
    stored: Mapping[str, StoredUser]


@dataclass(frozen=True)
class Slates:
    """R slates over the N rows of a chunk.

    Attributes:
        start, stop: (R,) the rows of each slate.
        time: (R,) seconds.
        behaviours: the R histories.
        user: user and context features, (R,) or (R, W).
        items: (N,) id64.
        candidate: candidate features, (N,) or (N, W).
        runs: slates before long ones were cut.
    """

    start: Int
    stop: Int
    time: NDArray[np.float64]
    behaviours: Behaviours
    user: Mapping[str, Column]
    items: NDArray[np.uint64]
    candidate: Mapping[str, Column]
    runs: int

    def blocks(self, steps: int) -> Iterator[tuple[Int, Rows]]:
        """Slates of equal size and similar history side by side.

        Args:
            steps: the longest history that the network reads.

        Yields:
            (U, C) rows of the chunk, and the same as rows for the encoder. Every row comes once.
        """
        sizes = self.stop - self.start
        lengths = np.minimum(self.behaviours.lengths, steps)
        # Longest first, so that a block's first slate says how wide it is padded.
        order = np.lexsort((-lengths, sizes))
        at = 0
        while at < len(order):
            size, length = int(sizes[order[at]]), max(1, int(lengths[order[at]]))
            most = max(1, min(BLOCK_ROWS // size, BLOCK_CELLS // (size * length)))
            slates = order[at : at + most]
            slates = slates[sizes[slates] == size]
            at += len(slates)
            rows = self.start[slates][:, None] + np.arange(size)
            yield rows, self._rows(slates, rows)

    def _rows(self, slates: Int, rows: Int) -> Rows:
        return Rows(
            time=self.time[slates],
            items=self.items[rows],
            behaviours=packed(self.behaviours.take(slates)),
            user={name: column[slates] for name, column in self.user.items()},
            candidate={name: column[rows] for name, column in self.candidate.items()},
        )


def packed(histories: Behaviours) -> Behaviours:
    """The same histories over a log that holds nothing else; one that several rows share stands in it once."""
    span = len(histories.events) + 1
    slices, row = np.unique(histories.start * span + histories.stop, return_inverse=True)
    start, stop = slices // span, slices % span
    ends = (stop - start).cumsum()
    begins = ends - (stop - start)
    places = np.arange(int(ends[-1]) if len(ends) else 0) + (start - begins).repeat(stop - start)
    return Behaviours(histories.events[places], begins[row], ends[row])


def longest_history(schema: FeatureSchema) -> int:
    """Steps of the longest sequence that a declaration reads; 0 if it reads none."""
    return max((feature.max_len for feature in schema.feature if isinstance(feature, SequenceFeature)), default=0)


def slates_of(chunk: Chunk, schema: FeatureSchema) -> Slates:
    """Cut a chunk's rows into slates: consecutive rows with one user, time, user and context features and history.

    Raises:
        InputProblem: naming file, column and row of the first value that cannot be used.
    """
    frame = chunk.frame
    users = text_ids(frame, USER, chunk.file, chunk.offset)
    items = text_ids(frame, ITEM, chunk.file, chunk.offset)
    times = np.full(len(frame), chunk.now)
    if TIME in frame.columns:
        times = seconds(frame, TIME, chunk.file, chunk.offset).to_numpy()
    given = _given(frame, schema, chunk.file)
    of_user = [feature for feature in given if feature.side != "candidate"]
    present = [name for name in past.COLUMNS if name in frame.columns]
    if present and not {past.ITEM, past.TIME} <= set(present):
        raise InputProblem(f"{chunk.file}: histories need both columns, {past.ITEM} and {past.TIME}.")
    shared = [frame[name] for name in (*(feature.name for feature in of_user), *present)]
    runs = _changes([users, pl.Series(times), *shared], len(frame))
    start, stop = _cut(runs, len(frame))
    faults = Faults()
    late = times[start] >= LAST_SECOND
    if late.any():
        faults.add(int(start[late.argmax()]), TIME, "must be seconds in [0, 2^32)")
    user, behaviours = _stored(users.gather(start), chunk.stored, schema)
    user |= _own(frame, of_user, start, user, faults)
    of_candidate = [feature for feature in given if feature.side == "candidate"]
    candidate = _own(frame, of_candidate, np.arange(len(frame)), {}, faults)
    if present:
        behaviours = _histories(frame, present, start, faults) or behaviours
    faults.check(chunk.file, chunk.offset)
    if any(feature.name == schema.ids.user for feature in schema.feature):
        user[schema.ids.user] = ids(users.gather(start))
    return Slates(start, stop, times[start], behaviours, user, ids(items), candidate, len(runs))


def _given(frame: pl.DataFrame, schema: FeatureSchema, file: Path) -> list[IdFeature | NumberFeature]:
    """The features that the file has columns of; the ids of user and item have columns of their own."""
    found = []
    for feature in schema.feature:
        name = feature.name
        if not isinstance(feature, IdFeature | NumberFeature) or name not in frame.columns or name in {USER, ITEM}:
            continue
        if name in {schema.ids.user, schema.ids.item}:
            source = USER if name == schema.ids.user else ITEM
            raise InputProblem(f"{file}: column {name}: is taken from {source}.")
        found.append(feature)
    return found


def _changes(shared: list[pl.Series], rows: int) -> Int:
    """Rows (R,) where something differs from the row before."""
    changed = np.zeros(rows, dtype=np.bool_)
    changed[:1] = True
    for column in shared:
        changed |= column.ne_missing(column.shift()).to_numpy()
    return np.flatnonzero(changed)


def _cut(runs: Int, rows: int) -> tuple[Int, Int]:
    """Start and stop of each slate: runs, the long ones in pieces."""
    stops = np.append(runs[1:], rows)[: len(runs)]
    pieces = -(-(stops - runs) // LONGEST_SLATE)
    before = (pieces.cumsum() - pieces).repeat(pieces)
    start = runs.repeat(pieces) + (np.arange(len(before)) - before) * LONGEST_SLATE
    return start, np.minimum(start + LONGEST_SLATE, stops.repeat(pieces))


def _own(
    frame: pl.DataFrame,
    features: list[IdFeature | NumberFeature],
    rows: Int,
    stored: Mapping[str, Column],
    faults: Faults,
) -> dict[str, Column]:
    """The file's columns at some rows; an empty cell says nothing, so that the store may."""
    out = {}
    for feature in features:
        cells = frame[feature.name].gather(rows)
        try:
            column = feature_column(feature, cells)
        except WrongValue as wrong:
            faults.add(int(rows[wrong.place]), feature.name, wrong.message)
            continue
        known = stored.get(feature.name)
        if known is not None:
            said = cells.is_not_null().to_numpy()
            column = np.where(said if column.ndim == 1 else said[:, None], column, known)
        out[feature.name] = column
    return out


def _histories(frame: pl.DataFrame, present: list[str], rows: Int, faults: Faults) -> Behaviours | None:
    try:
        return past.histories({name: frame[name].gather(rows) for name in present})
    except WrongValue as wrong:
        faults.add(int(rows[wrong.place]), wrong.column or past.ITEM, wrong.message)
        return None


def _stored(
    users: pl.Series, stored: Mapping[str, StoredUser], schema: FeatureSchema
) -> tuple[dict[str, Column], Behaviours]:
    """What the store holds of the users (R,) of the slates: their features and histories."""
    if not stored:
        return {}, Behaviours.empty(len(users))
    encoded = pc.dictionary_encode(users.to_arrow())
    row = encoded.indices.to_numpy()
    nobody = StoredUser(Behaviours.empty(0).events)
    known = [stored.get(name, nobody) for name in encoded.dictionary.to_pylist()]
    columns: dict[str, Column] = {}
    for feature in schema.feature:
        if not isinstance(feature, IdFeature | NumberFeature) or feature.side == "candidate":
            continue
        if feature.name != schema.ids.user:
            values = [_usable(feature, one.features.get(feature.name)) for one in known]
            columns[feature.name] = raw_column(feature, values)[row]
    return columns, Behaviours.from_events([one.behaviours for one in known]).take(row)


def _usable(feature: IdFeature | NumberFeature, value: Any) -> Any:
    """A stored value, or None where it is of another type: a store serves many models."""
    ignored: list[FeatureProblem] = []
    return value if checked(feature, value, "", ignored) else None

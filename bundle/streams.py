"""Behaviour sequences: columns of a filtered log, encoded once, and the steps of each row cut out of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundle.histories import Filtered, Histories
from bundle.items import ItemTable, item_codes, item_key
from bundle.layout import IdField, Layout, NumberField, Stream, layout_of
from bundle.scalers import Scaler
from bundle.schema import DERIVED, FeatureSchema, SequenceFeature
from bundle.schema_checks import MISSING_SUFFIX
from bundle.tables import UNSEEN, IdTable

Int = NDArray[np.int64]
Rows = NDArray[np.int64] | slice
_ALL = slice(None)


@dataclass(frozen=True, slots=True)
class IdColumns:
    """One id field of a stream: `column` counts inside the stream; `key` names the item table's column, "" if none."""

    field: IdField
    feature: SequenceFeature
    table: IdTable
    column: int
    key: str


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """One number of a stream and where its value and its missing flag (-1: none) go."""

    feature: SequenceFeature
    scaler: Scaler
    column: int
    flag: int


@dataclass(frozen=True)
class StreamPlan:
    """What one stream's columns are made of, worked out once for a fitted schema.

    `ages` and `gaps`: whether a column reads the time between a step and its row, or between two steps.
    """

    stream: Stream
    source_items: ItemTable
    ids: tuple[IdColumns, ...]
    numbers: tuple[NumberColumn, ...]
    id_width: int
    number_width: int
    ages: bool
    gaps: bool


def plan_streams(
    schema: FeatureSchema,
    layout: Layout,
    tables: Mapping[str, IdTable],
    scalers: Mapping[str, Scaler],
    items: ItemTable,
) -> tuple[StreamPlan, ...]:
    """The plan of every stream of a layout."""
    return tuple(_plan(schema, layout, number, tables, scalers, items) for number in range(len(layout.streams)))


def _plan(
    schema: FeatureSchema,
    layout: Layout,
    number: int,
    tables: Mapping[str, IdTable],
    scalers: Mapping[str, Scaler],
    items: ItemTable,
) -> StreamPlan:
    stream = layout.streams[number]
    by_name = {feature.name: feature for feature in stream.features}
    id_fields = [field for field in layout.behaviour_ids if field.stream == number]
    number_fields = [field for field in layout.behaviour_numbers if field.stream == number]
    first = id_fields[0].column if id_fields else 0
    ids = tuple(
        IdColumns(
            field,
            by_name[field.name],
            tables[field.table],
            field.column - first,
            _key(schema, by_name[field.name], field),
        )
        for field in id_fields
    )
    of = {feature.of for feature in stream.features}
    return StreamPlan(
        stream=stream,
        source_items=items,
        ids=ids,
        numbers=_number_columns(number_fields, by_name, scalers),
        id_width=sum(field.width for field in id_fields),
        number_width=len(number_fields),
        ages="age" in of,
        gaps="gap" in of,
    )


def _number_columns(
    fields: list[NumberField], by_name: Mapping[str, SequenceFeature], scalers: Mapping[str, Scaler]
) -> tuple[NumberColumn, ...]:
    columns = []
    for column, field in enumerate(fields):
        if not field.name.endswith(MISSING_SUFFIX):
            feature = by_name[field.name]
            flag = column + 1 if feature.missing_flag else -1
            columns.append(NumberColumn(feature, scalers[scaler_name(feature)], column, flag))
    return tuple(columns)


def scaler_name(feature: SequenceFeature) -> str:
    """Whose statistics scale a number sequence: its own, or those of the item column it reads."""
    return feature.name if feature.of in DERIVED else feature.of


def _key(schema: FeatureSchema, feature: SequenceFeature, field: IdField) -> str:
    return "" if feature.of in DERIVED else item_key(schema.source_of(feature.of), field.table)


def behaviour_fields(schema: FeatureSchema) -> tuple[tuple[str, int], ...]:
    """(key of the item table's column, width) of each behaviour id field; "" where it is no property of the item."""
    fields = []
    for stream in layout_of(schema).streams:
        by_name = {feature.name: feature for feature in stream.features}
        for field in layout_of(schema).behaviour_ids:
            if field.name in by_name:
                fields.append((_key(schema, by_name[field.name], field), field.width))
    return tuple(fields)


class Steps(NamedTuple):
    """Which events of a filtered log the rows of one stream see.

    Attributes:
        ts: (M,) uint32, time of each event.
        item_rows: (M,) row in the item table, -1 if unknown.
        first, start, stop: (U,) the row's oldest visible event, its oldest kept one, one past its newest.
        time: (U,) float64 whole seconds.
    """

    ts: NDArray[np.uint32]
    item_rows: Int
    first: Int
    start: Int
    stop: Int
    time: NDArray[np.float64]

    @property
    def lengths(self) -> Int:
        """Steps of each row, (U,), at most the stream's `max_len`."""
        return self.stop - self.start

    @property
    def gap(self) -> NDArray[np.float64]:
        """Seconds (M,) since the event before in the log; NaN for its first."""
        ts = self.ts.astype(np.float64)
        gap = np.empty_like(ts)
        gap[:1] = np.nan
        np.subtract(ts[1:], ts[:-1], out=gap[1:])
        return gap

    def lone(self, rows: Rows) -> tuple[int, int] | None:
        """Where the steps of the only row begin and end in the log; None unless `rows` are all and there is one."""
        if isinstance(rows, slice) and rows == _ALL and len(self.start) == 1:
            return int(self.start[0]), int(self.stop[0])
        return None

    def longest(self, rows: Rows) -> int:
        """Steps of the longest of some rows; 0 if there are none."""
        if (lone := self.lone(rows)) is not None:
            return lone[1] - lone[0]
        return int((self.stop[rows] - self.start[rows]).max(initial=0))

    def places(self, rows: Rows, length: int) -> tuple[Int, NDArray[np.bool_]]:
        """Places in the log (B, T) of some rows' steps, oldest first, and which are real; padded places are legal."""
        position = np.arange(length)
        start = self.start[rows]
        mask = position < (self.stop[rows] - start)[:, None]
        places = start[:, None] + position
        return np.minimum(places, max(len(self.ts) - 1, 0), out=places), mask

    def age(self, rows: Rows, places: Int) -> NDArray[np.float64]:
        """Seconds (B, T) from each step to its row's time."""
        return np.asarray(self.time[rows][:, None] - self.ts[places])


def steps_of(stream: Stream, histories: Histories) -> Steps:
    """The steps of one stream for all rows."""
    log = histories.of(stream.where)
    kept = log.behaviours.newest(stream.max_len)
    ts = np.ascontiguousarray(log.behaviours.events["ts"])
    return Steps(ts, log.item_rows, log.behaviours.start, kept.start, kept.stop, histories.time)


class EncodedStream(NamedTuple):
    """One stream of U rows: encoded events (M, W) and (M, N), and the steps of each row.

    Ages depend on the row and are filled in by `take`.
    """

    plan: StreamPlan
    ids: Int
    numbers: NDArray[np.float32]
    steps: Steps

    @property
    def stream(self) -> Stream:
        """Filter, length and features."""
        return self.plan.stream

    @property
    def lengths(self) -> Int:
        """Steps of each row, (U,)."""
        return self.steps.lengths

    def take(self, rows: Rows, length: int) -> tuple[Int, NDArray[np.float32], NDArray[np.bool_]]:
        """The stream's ids (B, T, W), numbers (B, T, N) and mask (B, T); masked steps are zero in all of them."""
        plan = self.plan
        lone = None if plan.ages or plan.gaps else self.steps.lone(rows)
        if lone is not None and lone[1] - lone[0] == length:  # a request: nothing to gather, pad or fill in
            steps = slice(*lone)
            return self.ids[None, steps], self.numbers[None, steps], np.ones((1, length), dtype=np.bool_)
        places, mask = self.steps.places(rows, length)
        if len(self.steps.ts) == 0:
            ids = np.zeros((*mask.shape, plan.id_width), dtype=np.int64)
            return ids, np.zeros((*mask.shape, plan.number_width), dtype=np.float32), mask
        ids, numbers = self.ids.take(places, axis=0), self.numbers.take(places, axis=0)
        if plan.ages or plan.gaps:
            self._fill_row_columns(rows, places, ids, numbers)
        if not mask.all():
            # Multiplying is several times faster than assigning through the inverted mask; PADDING is 0.
            np.multiply(ids, mask[..., None], out=ids)
            np.multiply(numbers, mask[..., None], out=numbers)
        return ids, numbers, mask

    def _fill_row_columns(self, rows: Rows, places: Int, ids: Int, numbers: NDArray[np.float32]) -> None:
        """Ages count to the row's time, and the first behaviour a row may see has no gap before it."""
        plan = self.plan
        age = self.steps.age(rows, places) if plan.ages else np.empty(0)
        first = places == self.steps.first[rows][:, None] if plan.gaps else np.empty(0, dtype=np.bool_)
        for part in plan.ids:
            if part.feature.of == "age":
                ids[..., part.column] = part.table.bucket(age)
            elif part.feature.of == "gap":
                ids[first, part.column] = UNSEEN
        for number in plan.numbers:
            if number.feature.of == "age":
                numbers[..., number.column] = number.scaler.encode(age)
            elif number.feature.of == "gap":
                numbers[first, number.column] = number.scaler.encode(np.array([np.nan]))[0]
                if number.flag >= 0:
                    numbers[first, number.flag] = 1.0

    def unseen(self) -> dict[str, int]:
        """Events of the log whose item or type the tables do not know, by sequence."""
        return {
            part.field.name: int(np.count_nonzero(self.ids[:, part.column] == UNSEEN))
            for part in self.plan.ids
            if part.key.startswith("item/") or part.feature.of == "type"
        }


def encode_stream(plan: StreamPlan, histories: Histories) -> EncodedStream:
    """Encode the events of one stream; what depends on the row waits for `EncodedStream.take`."""
    log = histories.of(plan.stream.where)
    steps = steps_of(plan.stream, histories)
    ids = np.zeros((len(log.item_rows), plan.id_width), dtype=np.int64)
    numbers = np.zeros((len(log.item_rows), plan.number_width), dtype=np.float32)
    for part in plan.ids:
        if part.feature.of != "age":
            ids[:, part.column : part.column + part.field.width] = _event_ids(plan, part, log, steps)
    for number in plan.numbers:
        if number.feature.of == "age":
            continue
        raw = event_numbers(plan.source_items, number.feature, log, steps)
        numbers[:, number.column] = number.scaler.encode(raw)
        if number.flag >= 0:
            numbers[:, number.flag] = np.isnan(raw)
    return EncodedStream(plan, ids, numbers, steps)


def _event_ids(plan: StreamPlan, part: IdColumns, log: Filtered, steps: Steps) -> Int:
    events = log.behaviours.events
    if part.key.startswith("item/"):
        listed = plan.source_items.id_columns.get(part.key)
        return item_codes(part.table, listed, events["item"], log.item_rows)[:, None]
    if part.key:
        return plan.source_items.id_columns[part.key][log.item_rows]
    if part.feature.of == "type":
        return part.table.lookup(events["type"].astype(np.uint64))[:, None]
    return part.table.bucket(event_numbers(plan.source_items, part.feature, log, steps))[:, None]


def event_numbers(items: ItemTable, feature: SequenceFeature, log: Filtered, steps: Steps) -> NDArray[np.float64]:
    """Raw numbers (M,) of a sequence that belong to the event: its value, its gap or a number of its item."""
    if feature.of == "value":
        return log.behaviours.events["value"].astype(np.float64)
    if feature.of == "gap":
        return steps.gap
    return items.number_columns[feature.of][log.item_rows]

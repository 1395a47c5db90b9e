"""The steps of fitting: what training rows may be counted, vocabularies, the item table, scalers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bundle.behaviours import Behaviours
from bundle.columns import Column, Rows, pad_ragged
from bundle.errors import FeatureError, FeatureProblem
from bundle.histories import Histories
from bundle.ids import MISSING_ID
from bundle.items import ItemTable, MatchColumn, RawItems, item_key
from bundle.layout import streams_of
from bundle.numbers import HistoryNumbers
from bundle.scalers import Scaler
from bundle.schema import (
    FeatureSchema,
    HistoryFeature,
    IdFeature,
    NumberEncoder,
    NumberFeature,
    SequenceFeature,
    VocabEncoder,
)
from bundle.schema_checks import item_readers, matched_columns, table_encoders, table_members, table_of
from bundle.streams import behaviour_fields, event_numbers, steps_of
from bundle.tables import UNSEEN, IdTable

if TYPE_CHECKING:
    from bundle.fitting import FitColumns

# Steps of sequences that scalers look at; beyond it evenly spaced rows stand for all of them.
_MAX_STEPS: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class TrainingView:
    """Training rows with point-in-time histories, and the raw item table."""

    rows: Rows
    items: RawItems
    histories: Histories


def training_view(schema: FeatureSchema, columns: "FitColumns") -> TrainingView:
    """Check that every declared column is there and sort the items.

    Without an item table the distinct candidates and behaviours of the rows are the items.

    Raises:
        FeatureError: naming each column that is absent or has the wrong type or shape.
    """
    problems = []
    for feature in schema.feature:
        if not isinstance(feature, (IdFeature, NumberFeature)) or feature.name == schema.ids.item:
            continue
        place, columns_there = "user", columns.rows.user
        if feature.side == "candidate":
            in_items = schema.is_item_column(feature)
            place = "item" if in_items else "candidate"
            columns_there = columns.item_columns if in_items else columns.rows.candidate
        problem = _column_problem(feature, columns_there.get(feature.name), place)
        if problem is not None:
            problems.append(problem)
    if problems:
        raise FeatureError(problems)
    ids = columns.item_ids
    if len(ids) == 0:
        ids = np.union1d(columns.rows.items, columns.rows.behaviours.events["item"])
        ids = ids[ids != MISSING_ID]
    used = {name: column for name, column in columns.item_columns.items() if _is_item_column(schema, name)}
    shaped = {name: shaped_ids(schema.named(name), column) for name, column in used.items()}
    items = RawItems.sort(ids, shaped)
    return TrainingView(columns.rows, items, Histories.cut(columns.rows.behaviours, columns.rows.time, items))


def _is_item_column(schema: FeatureSchema, name: str) -> bool:
    return any(feature.name == name and schema.is_item_column(feature) for feature in schema.feature)


def _column_problem(feature: IdFeature | NumberFeature, column: Column | None, place: str) -> FeatureProblem | None:
    if column is None:
        hint = " (or set per_row = true if the rows hold it)" if place == "item" else ""
        return FeatureProblem(f"/{feature.name}", "schema", f"the {place} columns lack this feature{hint}")
    wanted = np.uint64 if isinstance(feature, IdFeature) else np.float64
    if column.dtype != wanted:
        return FeatureProblem(f"/{feature.name}", "schema", f"expected {np.dtype(wanted)}, got {column.dtype}")
    return None


def shaped_ids(feature: object, column: Column) -> Column:
    """Raw ids of an item column as (I, max_values); numbers pass."""
    if not isinstance(feature, IdFeature):
        return column
    return fit_width(column if column.ndim == 2 else column[:, None], feature.max_values)


def fit_width(column: Column, width: int) -> NDArray[np.uint64]:
    """Padded ids (N, W) as (N, width): the first values are kept, empty slots added."""
    lengths = np.full(len(column), column.shape[1], dtype=np.int64)
    return column if column.shape[1] == width else pad_ragged(column.reshape(-1), lengths, width)


def fit_vocabularies(schema: FeatureSchema, view: TrainingView) -> dict[str, NDArray[np.uint64]]:
    """Sorted ids of each table with a vocabulary that were seen `min_count` times in training.

    Counted are the values of the rows (an item's columns once for each candidate) and, for sequences, the distinct
    events that the rows' histories show.
    """
    encoders = table_encoders(schema)
    out = {}
    for table, members in table_members(schema).items():
        encoder = encoders[table]
        if not isinstance(encoder, VocabEncoder):
            continue
        parts = [np.empty(0, dtype=np.uint64)]
        for member in members:
            parts.extend(part.reshape(-1) for part in _seen(schema, view, member))
        values, counts = np.unique(np.concatenate(parts), return_counts=True)
        out[table] = values[(counts >= encoder.min_count) & (values != MISSING_ID)]
    return out


def _seen(schema: FeatureSchema, view: TrainingView, member: IdFeature | SequenceFeature) -> Iterator[Column]:
    if isinstance(member, SequenceFeature):
        # Two sequences of one table must not count an event twice: only the first of the same source counts.
        if member is _first_reader(schema, member):
            yield _seen_events(schema, view, member)
    elif member.side != "candidate":
        yield view.rows.user[member.name]
    elif member.name == schema.ids.item:
        yield view.rows.items
    elif member.per_row:
        yield view.rows.candidate[member.name]
    else:
        yield view.items.column(member.name, view.items.rows(view.rows.items))


def _first_reader(schema: FeatureSchema, member: SequenceFeature) -> SequenceFeature:
    table = table_of(schema, member)
    readers = [m for m in table_members(schema)[table] if isinstance(m, SequenceFeature)]
    return next(m for m in readers if schema.source_of(m.of) == schema.source_of(member.of))


def _seen_events(schema: FeatureSchema, view: TrainingView, member: SequenceFeature) -> Column:
    table = table_of(schema, member)
    source = schema.source_of(member.of)
    readers = [
        m for m in table_members(schema)[table] if isinstance(m, SequenceFeature) and schema.source_of(m.of) == source
    ]
    # Filters shorten the log, so events of several readers are matched by their place in the whole log.
    shown = np.zeros(len(view.histories.visible.behaviours.events), dtype=np.bool_)
    for reader in readers:
        log = view.histories.of(reader.where)
        shown[log.places] |= covered(log.behaviours.newest(reader.max_len))
    visible = view.histories.visible
    if source == "item":
        return np.asarray(visible.behaviours.events["item"][shown], dtype=np.uint64)
    if source == "type":
        return visible.behaviours.events["type"][shown].astype(np.uint64)
    return view.items.column(source, visible.item_rows[shown])


def covered(behaviours: Behaviours) -> NDArray[np.bool_]:
    """Which events (N,) lie in at least one row's slice."""
    edges = np.zeros(len(behaviours.events) + 1, dtype=np.int64)
    np.add.at(edges, behaviours.start, 1)
    np.add.at(edges, behaviours.stop, -1)
    return np.cumsum(edges)[:-1] > 0


def fit_items(schema: FeatureSchema, raw: RawItems, tables: dict[str, IdTable]) -> ItemTable:
    """Encode the item table through every table that reads it; the last row stands for an unknown item."""
    id_columns: dict[str, NDArray[np.int64]] = {}
    for source, table in item_readers(schema):
        ids = raw.ids[:, None] if source == "item" else raw.columns[source]
        id_columns[item_key(source, table)] = _with_unknown(tables[table].lookup_padded(ids))
    numbers = {name: np.append(c, np.nan) for name, c in raw.columns.items() if c.dtype.kind == "f"}
    matches = {
        name: MatchColumn(np.concatenate([raw.columns[name], np.zeros((1, raw.columns[name].shape[1]), np.uint64)]))
        for name in matched_columns(schema)
    }
    return ItemTable(raw.ids, id_columns, numbers, matches, behaviour_fields(schema))


def _with_unknown(encoded: NDArray[np.int64]) -> NDArray[np.int64]:
    unknown = np.zeros((1, encoded.shape[1]), dtype=np.int64)
    unknown[:, 0] = UNSEEN
    return np.concatenate([encoded, unknown])


def fit_scalers(schema: FeatureSchema, view: TrainingView, items: ItemTable) -> dict[str, Scaler]:
    """Statistics of every number, number sequence and history feature over the training rows."""
    histories = HistoryNumbers(schema, view.rows, view.histories, items.rows(view.rows.items), items.matches)
    scalers = {}
    for feature in schema.feature:
        if isinstance(feature, NumberFeature):
            scalers[feature.name] = Scaler.fit(feature.encoder.type, _numbers(schema, view, feature), feature.name)
        elif isinstance(feature, HistoryFeature):
            scalers[feature.name] = Scaler.fit(feature.encoder.type, histories.of(feature), feature.name)
        elif isinstance(feature, SequenceFeature) and isinstance(feature.encoder, NumberEncoder):
            scalers[feature.name] = Scaler.fit(
                feature.encoder.type, _step_values(schema, view, items, feature), feature.name
            )
    return scalers


def _numbers(schema: FeatureSchema, view: TrainingView, feature: NumberFeature) -> NDArray[np.float64]:
    if feature.side != "candidate":
        return view.rows.user[feature.name]
    if feature.per_row:
        return view.rows.candidate[feature.name]
    return view.items.column(feature.name, view.items.rows(view.rows.items))


def _step_values(
    schema: FeatureSchema, view: TrainingView, items: ItemTable, feature: SequenceFeature
) -> NDArray[np.float64]:
    """All kept steps of a number sequence over the training rows, (L,)."""
    stream = next(stream for stream in streams_of(schema) if feature in stream.features)
    steps = steps_of(stream, view.histories)
    stride = max(1, -(-len(view.rows.time) * stream.max_len // _MAX_STEPS))
    rows = np.arange(0, len(view.rows.time), stride)
    if len(steps.ts) == 0 or len(rows) == 0:
        return np.empty(0)
    places, mask = steps.places(rows, int(max(1, steps.lengths.max())))
    if feature.of == "age":
        return steps.age(rows, places)[mask]
    if feature.of == "gap":
        mask &= places != steps.first[rows][:, None]
    return event_numbers(items, feature, view.histories.of(feature.where), steps)[places[mask]]

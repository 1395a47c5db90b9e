"""What compiled code has to know of a fitted declaration to encode slates, laid out as it reads it."""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from bundle.behaviours import MAX_EVENTS, type_code
from bundle.fitting import FittedSchema
from bundle.items import item_key
from bundle.layout import IdField, NumberField, Stream, id_width
from bundle.request_plan import Given
from bundle.schema import (
    DERIVED,
    HistoryFeature,
    IdFeature,
    NumberFeature,
    SequenceFeature,
    Where,
)
from bundle.schema_checks import MISSING_SUFFIX, history_features
from bundle.streams import scaler_name
from service.compiled.fitted_parts import IdTablePart, Parts, ScalerPart, fields

_NONE: Final = -1
_SIDES: Final = ("user", "context", "candidate")
_STEP_SOURCES: Final = {"item": 0, "type": 2, "value": 3, "age": 4, "gap": 5}
_ITEM_COLUMN: Final = 1
_STATISTICS: Final = {
    "count": 0,
    "seconds_since": 1,
    "per_hour": 2,
    "mean": 3,
    "last_k_mean": 3,
    "std": 4,
    "decayed_mean": 5,
    "share": 6,
}


class _Feature(ctypes.Structure):
    _fields_ = fields("p name; q length kind missing")


class _IdField(ctypes.Structure):
    _fields_ = fields("q feature column width; p table stored; q unseen")


class _NumberField(ctypes.Structure):
    _fields_ = (*fields("q source computed column flag"), ("scaler", ScalerPart), *fields("p stored"))


class _StepId(ctypes.Structure):
    _fields_ = fields("q source column width; p table stored; q unseen")


class _Filter(ctypes.Structure):
    _fields_ = fields("d lowest highest; p types; q type_count")


class _Stream(ctypes.Structure):
    _fields_ = fields("q filter max_len; p ids; q id_count; p numbers; q number_count")


class _Statistic(ctypes.Structure):
    _fields_ = fields("q kind filter newest; d half_life_days; q match")


class _Match(ctypes.Structure):
    _fields_ = fields("q filter feature; p values sets alphabet; q letters width")


class _Plan(ctypes.Structure):
    _fields_ = fields(
        "p items; q item_count; p features; q user_features told_features feature_count user_missing;"
        "p user_ids; q user_id_count user_id_width; p user_numbers; q user_number_count user_number_width;"
        "p candidate_ids; q candidate_id_count candidate_id_width;"
        "p candidate_numbers; q candidate_number_count candidate_number_width; p filters; q filter_count;"
        "p streams; q stream_count step_id_width step_number_width masks;"
        "p statistics; q statistic_count; p matches; q match_count; q unseen_count missing_count max_visible"
    )


class SlatePlan:
    """``Plan`` of slate_plan.h for one declaration, and all that it points to.

    Args:
        fitted: A declaration that has candidates.

    Attributes:
        layout: Of the arrays.
        address: Of the plan; it stays good as long as this object lives.
        unseen: Fields whose unknown ids are counted, in the order of the counts.
        missing: Features that rows have to give, in the order of the flags.
        filters: How many different ones there are.
        matches: How many columns candidates and behaviours are compared by.
        features: How many a request may give.
        told: How many of them are of the user and the context.
    """

    def __init__(self, fitted: FittedSchema) -> None:
        self._fitted, self._schema = fitted, fitted.schema
        self.layout = fitted.layout
        self._parts = Parts()
        given = [fitted.request_plan.sides[side] for side in _SIDES]
        self._places = {name: place for place, name in enumerate(name for side in given for name in side)}
        self.features, self.told = len(self._places), len(given[0]) + len(given[1])
        self.missing = self._expected()
        self.unseen: list[str] = []
        self._wheres: list[Where | None] = [None]
        self._compared: list[tuple[int, str]] = []
        self._statistics = self._listed_statistics()
        made = {name: [self._parts.table(table)] for name, table in fitted.id_tables.items()}
        self._tables = {name: self._parts.structures(IdTablePart, table) for name, table in made.items()}
        self._plan = self._made(given)
        self.address = ctypes.addressof(self._plan)
        self.filters, self.matches = len(self._wheres), len(self._compared)

    def _expected(self) -> list[str]:
        """What ``EncodedRows.missing`` may name, in its order."""
        user = self._schema.ids.user
        return [
            feature.name
            for feature in self._schema.feature
            if isinstance(feature, (IdFeature, NumberFeature))
            and (feature.name in self._places or feature.name == user)
            and not self._schema.is_item_column(feature)
        ]

    def _made(self, given: Sequence[Mapping[str, Given]]) -> _Plan:
        layout, items = self.layout, self._fitted.items
        # In this order, which is that of ``Encoder.encode``, names come to ``unseen``.
        streams = [self._stream(number, stream) for number, stream in enumerate(layout.streams)]
        user_ids = [self._id_field(field) for field in layout.user_ids]
        candidate_ids = [self._id_field(field) for field in layout.candidate_ids]
        user_numbers, candidate_numbers = self._numbers(layout.user_numbers), self._numbers(layout.candidate_numbers)
        statistics, matches = [self._statistic(one) for one in self._statistics], self._matches()
        declared = [self._feature(feature) for side in given for feature in side.values()]
        user = self._schema.ids.user
        return _Plan(
            *(self._parts.array(items.ids, np.uint64), len(items.ids)),
            *(self._parts.structures(_Feature, declared), len(given[0]), self.told, self.features),
            self.missing.index(user) if user in self.missing else _NONE,
            *(self._parts.structures(_IdField, user_ids), len(user_ids), id_width(layout.user_ids)),
            *(self._parts.structures(_NumberField, user_numbers), len(user_numbers), len(layout.user_numbers)),
            *(self._parts.structures(_IdField, candidate_ids), len(candidate_ids), id_width(layout.candidate_ids)),
            self._parts.structures(_NumberField, candidate_numbers),
            *(len(candidate_numbers), len(layout.candidate_numbers)),
            *(self._parts.structures(_Filter, list(map(self._filter, self._wheres))), len(self._wheres)),
            *(self._parts.structures(_Stream, streams), len(streams), id_width(layout.behaviour_ids)),
            *(len(layout.behaviour_numbers), layout.masks),
            *(self._parts.structures(_Statistic, statistics), len(statistics)),
            *(self._parts.structures(_Match, matches), len(matches)),
            *(len(self.unseen), len(self.missing), MAX_EVENTS),
        )

    def _feature(self, feature: Given) -> _Feature:
        name = feature.name.encode()
        kind = 2 if isinstance(feature, NumberFeature) else int(feature.max_values > 1)
        missing = self.missing.index(feature.name) if feature.name in self.missing else _NONE
        return _Feature(self._parts.array(np.frombuffer(name, dtype=np.uint8), np.uint8), len(name), kind, missing)

    def _counted(self, name: str) -> int:
        self.unseen.append(name)
        return len(self.unseen) - 1

    def _id_column(self, key: str) -> int | None:
        column = self._fitted.items.id_columns.get(key)
        return None if column is None else self._parts.array(column, np.int64)

    def _id_field(self, field: IdField) -> _IdField:
        source = "item" if field.name == self._schema.ids.item else field.name
        stored = self._id_column(item_key(source, field.table))
        place = self._places.get(field.name, _NONE)
        table, unseen = self._tables[field.table], self._counted(field.name)
        return _IdField(place, field.column, field.width, table, stored, unseen)

    def _numbers(self, fields: Sequence[NumberField]) -> list[_NumberField]:
        """The number fields of one side; a field that only flags missing values is part of the one before."""
        computed_by = {feature.name: place for place, feature in enumerate(self._statistics)}
        out = []
        for field in fields:
            if field.name.endswith(MISSING_SUFFIX):
                continue
            computed = field.name in computed_by
            source = (computed_by if computed else self._places)[field.name]
            stored = self._number_column(field.name)
            scaler = self._parts.scaler(self._fitted.scalers[field.name])
            out.append(_NumberField(source, computed, field.column, _flag(field, fields), scaler, stored))
        return out

    def _number_column(self, name: str) -> int | None:
        column = self._fitted.items.number_columns.get(name)
        return None if column is None else self._parts.array(column, np.float64)

    def _stream(self, number: int, stream: Stream) -> _Stream:
        by_name = {feature.name: feature for feature in stream.features}
        id_fields = [field for field in self.layout.behaviour_ids if field.stream == number]
        ids = [self._step_id(field, by_name[field.name]) for field in id_fields]
        every = [field for field in self.layout.behaviour_numbers if field.stream == number]
        numbers = []
        for field in every:
            if field.name in by_name:
                feature = by_name[field.name]
                scaler = self._parts.scaler(self._fitted.scalers[scaler_name(feature)])
                stored = self._number_column(feature.of)
                # No behaviour is without an age, and so its flag is never up.
                source = _STEP_SOURCES.get(feature.of, _ITEM_COLUMN)
                numbers.append(_NumberField(source, False, field.column, _flag(field, every), scaler, stored))
        return _Stream(
            *(self._where(stream.where), stream.max_len),
            *(self._parts.structures(_StepId, ids), len(ids)),
            *(self._parts.structures(_NumberField, numbers), len(numbers)),
        )

    def _step_id(self, field: IdField, feature: SequenceFeature) -> _StepId:
        source = feature.of if feature.of in DERIVED else self._schema.source_of(feature.of)
        stored = None if source in DERIVED else self._id_column(item_key(source, field.table))
        unseen = self._counted(field.name) if source in ("item", "type") else _NONE
        kind = _STEP_SOURCES.get(source, _ITEM_COLUMN)
        return _StepId(kind, field.column, field.width, self._tables[field.table], stored, unseen)

    def _where(self, where: Where | None) -> int:
        """Place of a filter."""
        if where not in self._wheres:
            self._wheres.append(where)
        return self._wheres.index(where)

    def _filter(self, where: Where | None) -> _Filter:
        if where is None:
            return _Filter(np.nan, np.nan, None, _NONE)
        bounds = (np.nan if bound is None else float(np.float32(bound)) for bound in (where.min_value, where.max_value))
        if where.types is None:
            return _Filter(*bounds, None, _NONE)
        codes = np.array([type_code(kind) for kind in where.types], dtype=np.uint32)
        return _Filter(*bounds, self._parts.array(codes, np.uint32), len(codes))

    def _listed_statistics(self) -> list[HistoryFeature]:
        return [feature for per in (False, True) for feature in history_features(self._schema, per_candidate=per)]

    def _statistic(self, feature: HistoryFeature) -> _Statistic:
        where, match = self._where(feature.where), _NONE
        if feature.match is not None:
            key = (where, self._schema.source_of(feature.match))
            if key not in self._compared:
                self._compared.append(key)
            match = self._compared.index(key)
        return _Statistic(_STATISTICS[feature.stat], where, feature.k or 0, feature.half_life_days or 1.0, match)

    def _matches(self) -> list[_Match]:
        made = []
        for where, source in self._compared:
            if source == "item":
                made.append(_Match(where, _NONE, None, None, None, 0, 1))
                continue
            column = self._fitted.items.matches[source]
            values = self._parts.array(column.values, np.uint64)
            sets = None if column.bits is None else self._parts.array(column.bits, np.uint64)
            alphabet = self._parts.array(column.alphabet, np.uint64)
            width = column.values.shape[1]
            made.append(_Match(where, self._places[source], values, sets, alphabet, len(column.alphabet), width))
        return made


def _flag(field: NumberField, fields: Sequence[NumberField]) -> int:
    """Column of a field's missing flag."""
    flagged = field.name + MISSING_SUFFIX
    return next((other.column for other in fields if other.name == flagged), _NONE)

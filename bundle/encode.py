"""Rows to the arrays a network takes: the one implementation, used offline on columns and online on one request."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.columns import Column, NumberBlock, Rows
from bundle.errors import FeatureError, FeatureProblem
from bundle.fitting import FittedSchema
from bundle.histories import Filtered, Histories
from bundle.ids import MISSING_ID
from bundle.items import item_codes, item_key
from bundle.layout import IdField, NumberField, id_width
from bundle.numbers import HistoryNumbers, candidate_ids
from bundle.scalers import ScalerBank
from bundle.schema import Feature, HistoryFeature, IdFeature, NumberFeature
from bundle.schema_checks import MISSING_SUFFIX
from bundle.streams import EncodedStream, encode_stream, plan_streams
from bundle.tables import UNSEEN

Int = NDArray[np.int64]
Float = NDArray[np.float32]
_IDS, _NUMBERS = np.dtype(np.uint64), np.dtype(np.float64)

__all__ = ["EncodedRows", "Encoder", "Rows"]


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """U encoded rows; `take` cuts batches out of them.

    Attributes:
        user_ids, user_numbers: (U, Fu) int64, (U, Nu) float32.
        candidate_ids, candidate_numbers: (U, C, Fc) int64, (U, C, Nc) float32.
        streams: the behaviour sequences, still one log.
        visible: the behaviours every row may see (all of them, not only the sequences' newest), and the item row of
            each event: what a sampler of negatives must avoid.
        unseen: by feature, how many given values the tables do not know.
        missing: features that the rows did not give at all.
    """

    user_ids: Int
    user_numbers: Float
    candidate_ids: Int
    candidate_numbers: Float
    streams: tuple[EncodedStream, ...]
    visible: Filtered
    unseen: Mapping[str, int]
    missing: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def lengths(self) -> Int:
        """Steps of the longest sequence of each row, (U,): what a batch is padded by."""
        longest = np.zeros(len(self), dtype=np.int64)
        for stream in self.streams:
            np.maximum(longest, stream.lengths, out=longest)
        return longest

    def take(self, indices: Int | None = None, trim: bool = True) -> dict[str, NDArray[Any]]:
        """The network's inputs for some rows (all by default), in the order asked.

        Args:
            indices: (B,) rows.
            trim: pad histories to the longest of these rows; else to the longest that the declaration allows.

        Returns:
            user_ids (B, Fu), user_numbers (B, Nu), candidate_ids (B, C, Fc), candidate_numbers (B, C, Nc),
            behaviour_ids (B, T, Fb), behaviour_numbers (B, T, Nb), behaviour_mask (B, T, S): ids int64, numbers
            float32, True = a real step; right padded, oldest first. T is at least 1: an empty history is one masked
            step.
        """
        rows: Int | slice = slice(None) if indices is None else indices
        ids, numbers, mask = self._behaviours(rows, trim)
        return {
            "user_ids": self.user_ids[rows],
            "user_numbers": self.user_numbers[rows],
            "candidate_ids": self.candidate_ids[rows],
            "candidate_numbers": self.candidate_numbers[rows],
            "behaviour_ids": ids,
            "behaviour_numbers": numbers,
            "behaviour_mask": mask,
        }

    def _length(self, rows: Int | slice, trim: bool) -> int:
        if trim:
            return max(1, *(stream.steps.longest(rows) for stream in self.streams))
        return max(stream.stream.max_len for stream in self.streams)

    def _behaviours(self, rows: Int | slice, trim: bool) -> tuple[Int, Float, NDArray[np.bool_]]:
        taken = len(self.user_ids[rows])
        if not self.streams:
            empty = np.zeros((taken, 1, 0))
            return empty.astype(np.int64), empty.astype(np.float32), np.zeros((taken, 1, 1), dtype=np.bool_)
        length = self._length(rows, trim)
        parts = [stream.take(rows, length) for stream in self.streams]
        if len(parts) == 1:
            return parts[0][0], parts[0][1], parts[0][2][..., None]
        ids, numbers, masks = zip(*parts, strict=True)
        return np.concatenate(ids, axis=-1), np.concatenate(numbers, axis=-1), np.stack(masks, axis=-1)

    def behaviour_item_rows(self, indices: Int | None = None, trim: bool = True, stream: int = 0) -> Int:
        """Row in the item table of each step of one stream, (B, T) as `take` lays them out.

        -1 where the step is masked or the item is not in the table.
        """
        rows: Int | slice = slice(None) if indices is None else indices
        steps = self.streams[stream].steps
        places, mask = steps.places(rows, self._length(rows, trim))
        if len(steps.item_rows) == 0:
            return np.full(mask.shape, -1, dtype=np.int64)
        return np.where(mask, steps.item_rows[places], -1)


@dataclass(frozen=True)
class NumberPlan:
    """The number columns of one side: which features, how scaled, where value and missing flag go.

    `given` are the features that rows bring and `given_places` their places among all; the others are computed.
    `plain`: the columns are the features, without missing flags.
    """

    features: tuple[NumberFeature | HistoryFeature, ...]
    bank: ScalerBank
    columns: list[int]
    flagged: list[int]
    flags: list[int]
    width: int
    given: tuple[str, ...]
    given_places: list[int]
    plain: bool


def number_plan(fitted: FittedSchema, fields: tuple[NumberField, ...]) -> NumberPlan:
    """Work out one side's number columns."""
    values = [field for field in fields if not field.name.endswith(MISSING_SUFFIX)]
    flags = [field for field in fields if field.name.endswith(MISSING_SUFFIX)]
    names = [field.name for field in values]
    named = [fitted.schema.named(name) for name in names]
    features = tuple(f for f in named if isinstance(f, (NumberFeature, HistoryFeature)))
    given = [place for place, feature in enumerate(features) if isinstance(feature, NumberFeature)]
    return NumberPlan(
        features=features,
        bank=ScalerBank([fitted.scalers[name] for name in names]),
        columns=[field.column for field in values],
        flagged=[names.index(field.name.removesuffix(MISSING_SUFFIX)) for field in flags],
        flags=[field.column for field in flags],
        width=len(fields),
        given=tuple(features[place].name for place in given),
        given_places=given,
        plain=[field.column for field in values] == list(range(len(fields))),
    )


class Encoder:
    """Encodes rows with a fitted declaration. Holds no state of its own; safe to share between threads."""

    def __init__(self, fitted: FittedSchema) -> None:
        self.fitted = fitted
        self._layout, self._tables, self._items = fitted.layout, fitted.id_tables, fitted.items
        self._streams = plan_streams(fitted.schema, self._layout, self._tables, fitted.scalers, fitted.items)
        self._user_width, self._candidate_width = id_width(self._layout.user_ids), id_width(self._layout.candidate_ids)
        self._user_numbers = number_plan(fitted, self._layout.user_numbers)
        self._candidate_numbers = number_plan(fitted, self._layout.candidate_numbers)
        self._features: dict[str, Feature] = {feature.name: feature for feature in fitted.schema.feature}
        # What rows have to give and no item table has: (name, whether it is the candidate's).
        self._expected = tuple(
            (feature.name, feature.side == "candidate")
            for feature in fitted.schema.feature
            if isinstance(feature, (IdFeature, NumberFeature))
            and feature.name != fitted.schema.ids.item
            and not fitted.schema.is_item_column(feature)
        )

    def encode(self, rows: Rows) -> EncodedRows:
        """Encode U rows x C candidates; nothing at or after a row's time is looked at.

        Raises:
            FeatureError: if a column has another type than its feature; unknown ids and missing values never raise.
        """
        self._check(rows)
        histories = Histories.cut(rows.behaviours, rows.time, self._items)
        item_rows = self._items.rows(rows.items)
        numbers = HistoryNumbers(self.fitted.schema, rows, histories, item_rows, self._items.matches)
        unseen: dict[str, int] = {}
        streams = tuple(encode_stream(plan, histories) for plan in self._streams)
        for stream in streams:
            unseen |= stream.unseen()
        return EncodedRows(
            user_ids=self._user_ids(rows, unseen),
            user_numbers=self._numbers(self._user_numbers, rows.user, rows.time.shape, numbers, rows.numbers),
            candidate_ids=self._candidate_ids(rows, item_rows, unseen),
            candidate_numbers=self._numbers(self._candidate_numbers, rows.candidate, rows.items.shape, numbers),
            streams=streams,
            visible=histories.visible,
            unseen=unseen,
            missing=self._missing(rows),
        )

    def _check(self, rows: Rows) -> None:
        problems = []
        for given, of_candidate in ((rows.user, False), (rows.candidate, True)):
            for name, column in given.items():
                feature = self._features.get(name)
                if not isinstance(feature, (IdFeature, NumberFeature)):
                    problems.append(FeatureProblem(f"/{name}", "schema", "is not a feature that rows can give"))
                elif (feature.side == "candidate") != of_candidate:
                    problems.append(FeatureProblem(f"/{name}", "schema", f"is a feature of side {feature.side!r}"))
                elif column.dtype != (_IDS if feature.kind == "id" else _NUMBERS):
                    problems.append(FeatureProblem(f"/{name}", "schema", f"must not be {column.dtype}"))
                elif rows.numbers is not None and not of_candidate and feature.kind == "number":
                    problems.append(FeatureProblem(f"/{name}", "schema", "stands beside the block of numbers"))
        if rows.numbers is not None and rows.numbers.names != self._user_numbers.given:
            problems.append(FeatureProblem("", "schema", "the block of numbers is not of this declaration"))
        if problems:
            raise FeatureError(problems)

    def _missing(self, rows: Rows) -> tuple[str, ...]:
        block: Set[str] = frozenset() if rows.numbers is None else rows.numbers.given
        return tuple(
            name
            for name, of_candidate in self._expected
            if name not in (rows.candidate if of_candidate else rows.user) and name not in block
        )

    def _user_ids(self, rows: Rows, unseen: dict[str, int]) -> Int:
        fields = self._layout.user_ids
        out = np.zeros((len(rows.time), self._user_width), dtype=np.int64)
        for field in fields:
            raw = rows.user.get(field.name)
            if raw is None:
                out[:, field.column] = UNSEEN
                continue
            self._fill(out, field, candidate_ids(raw[:, None], field.width)[:, 0], unseen)
        return out

    def _candidate_ids(self, rows: Rows, item_rows: Int, unseen: dict[str, int]) -> Int:
        fields = self._layout.candidate_ids
        out = np.zeros((*rows.items.shape, self._candidate_width), dtype=np.int64)
        for field in fields:
            given = rows.candidate.get(field.name)
            if field.name == self.fitted.schema.ids.item:
                listed = self._items.id_columns.get(item_key("item", field.table))
                out[..., field.column] = item_codes(self._tables[field.table], listed, rows.items, item_rows)
                self._count_unseen(out[..., field.column], rows.items, field.name, unseen)
                continue
            end = field.column + field.width
            own = None if given is None else candidate_ids(given, field.width)
            if own is not None:
                self._fill(out, field, own, unseen)
            column = self._items.id_columns.get(item_key(field.name, field.table))
            if column is not None:
                stored = column[item_rows]
                keep = None if own is None else own[..., :1] != MISSING_ID
                out[..., field.column : end] = (
                    stored if keep is None else np.where(keep, out[..., field.column : end], stored)
                )
            elif own is None:
                out[..., field.column] = UNSEEN
        return out

    def _fill(self, out: Int, field: IdField, raw: Column, unseen: dict[str, int]) -> None:
        """Encode raw ids (..., W) into a field's columns and count the ones its table does not know."""
        encoded = self._tables[field.table].lookup_padded(raw)
        out[..., field.column : field.column + field.width] = encoded
        self._count_unseen(encoded, raw, field.name, unseen)

    @staticmethod
    def _count_unseen(encoded: Int, raw: Column, name: str, unseen: dict[str, int]) -> None:
        strange = encoded == UNSEEN
        count = int(np.count_nonzero(strange))
        unseen[name] = count and int(np.count_nonzero(strange & (raw != MISSING_ID)))

    def _numbers(
        self,
        plan: NumberPlan,
        given: Mapping[str, Column],
        shape: tuple[int, ...],
        histories: HistoryNumbers,
        block: NumberBlock | None = None,
    ) -> Float:
        """The number columns of one side: (U, N), or (U, C, N) for candidates."""
        if not plan.features:
            return np.empty((*shape, 0), dtype=np.float32)
        raw = self._raw_numbers(plan, given, shape, histories, block)
        if plan.plain:
            return plan.bank.encode(raw)
        out = np.empty((*shape, plan.width), dtype=np.float32)
        out[..., plan.columns] = plan.bank.encode(raw)
        out[..., plan.flags] = np.isnan(raw[..., plan.flagged])
        return out

    def _raw_numbers(
        self,
        plan: NumberPlan,
        given: Mapping[str, Column],
        shape: tuple[int, ...],
        histories: HistoryNumbers,
        block: NumberBlock | None,
    ) -> NDArray[np.float64]:
        """Before scaling; NaN for missing."""
        if block is not None and len(plan.given) == len(plan.features):
            return block.values
        # Feature by feature in memory: else scaling many rows works on a handful of numbers at a time.
        raw = np.empty((len(plan.features), *shape), dtype=np.float64).transpose(*range(1, len(shape) + 1), 0)
        if block is not None:
            raw[:, plan.given_places] = block.values
        for place, feature in enumerate(plan.features):
            if isinstance(feature, HistoryFeature):
                raw[..., place] = histories.of(feature)
            elif block is None:
                raw[..., place] = self._given_numbers(feature.name, given.get(feature.name), histories.item_rows)
        return raw

    def _given_numbers(self, name: str, column: Column | None, item_rows: Int) -> Column | float:
        """A column as the rows give it; where they do not, the item table's, and else NaN."""
        stored = self._items.number_columns.get(name)
        if stored is None:
            return np.nan if column is None else column
        from_table = stored[item_rows]
        return from_table if column is None else np.where(np.isnan(column), from_table, column)

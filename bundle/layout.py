"""Which feature lies in which column of the network's inputs. Computed from the declaration alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bundle.schema import Feature, FeatureSchema, IdFeature, NumberFeature, SequenceFeature, Where
from bundle.schema_checks import MISSING_SUFFIX, history_features, sequence_is_number, sequence_width, table_of


@dataclass(frozen=True, slots=True)
class IdField:
    """`width` columns of ids starting at `column`; `stream` numbers the mask of a behaviour field."""

    name: str
    table: str
    column: int
    width: int
    stream: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON; `stream` only where there is one."""
        out: dict[str, Any] = {n: getattr(self, n) for n in ("name", "table", "column", "width")}
        return out if self.stream is None else out | {"stream": self.stream}


@dataclass(frozen=True, slots=True)
class NumberField:
    """One column of numbers; missing flags are columns of their own named `<feature>:missing`."""

    name: str
    column: int
    stream: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON; `stream` only where there is one."""
        out: dict[str, Any] = {n: getattr(self, n) for n in ("name", "column")}
        return out if self.stream is None else out | {"stream": self.stream}


@dataclass(frozen=True, slots=True)
class Stream:
    """Sequences with the same filter and length share their steps, so one mask serves all of them."""

    where: Where | None
    max_len: int
    features: tuple[SequenceFeature, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Fields of the three sides in column order. Behaviour columns are contiguous for each stream."""

    user_ids: tuple[IdField, ...]
    user_numbers: tuple[NumberField, ...]
    candidate_ids: tuple[IdField, ...]
    candidate_numbers: tuple[NumberField, ...]
    behaviour_ids: tuple[IdField, ...]
    behaviour_numbers: tuple[NumberField, ...]
    streams: tuple[Stream, ...]

    @property
    def masks(self) -> int:
        """Columns of `behaviour_mask`; at least one, so that the tensor has the same rank without sequences."""
        return max(1, len(self.streams))


def id_width(fields: tuple[IdField, ...]) -> int:
    """Columns that id fields take together."""
    return sum(field.width for field in fields)


def layout_of(schema: FeatureSchema) -> Layout:
    """The layout of a checked schema."""
    user = [f for f in schema.feature if isinstance(f, (IdFeature, NumberFeature)) and f.side != "candidate"]
    candidate = [f for f in schema.feature if isinstance(f, (IdFeature, NumberFeature)) and f.side == "candidate"]
    user_history = history_features(schema, per_candidate=False)
    candidate_history = history_features(schema, per_candidate=True)
    streams = streams_of(schema)
    sequences = [(number, feature) for number, stream in enumerate(streams) for feature in stream.features]
    return Layout(
        user_ids=_id_fields(schema, [(None, f) for f in user]),
        user_numbers=_number_fields(schema, [(None, f) for f in [*user, *user_history]]),
        candidate_ids=_id_fields(schema, [(None, f) for f in candidate]),
        candidate_numbers=_number_fields(schema, [(None, f) for f in [*candidate, *candidate_history]]),
        behaviour_ids=_id_fields(schema, sequences),
        behaviour_numbers=_number_fields(schema, sequences),
        streams=streams,
    )


def streams_of(schema: FeatureSchema) -> tuple[Stream, ...]:
    """The distinct (filter, length) combinations of the sequences, in declared order."""
    groups: dict[tuple[Where | None, int], list[SequenceFeature]] = {}
    for feature in schema.feature:
        if isinstance(feature, SequenceFeature):
            groups.setdefault((feature.where, feature.max_len), []).append(feature)
    return tuple(Stream(where, max_len, tuple(members)) for (where, max_len), members in groups.items())


def _id_fields(schema: FeatureSchema, features: Sequence[tuple[int | None, Any]]) -> tuple[IdField, ...]:
    fields: list[IdField] = []
    column = 0
    for stream, feature in features:
        if _is_number(schema, feature):
            continue
        width = feature.max_values if isinstance(feature, IdFeature) else sequence_width(schema, feature)
        fields.append(IdField(feature.name, table_of(schema, feature), column, width, stream))
        column += width
    return tuple(fields)


def _number_fields(schema: FeatureSchema, features: Sequence[tuple[int | None, Any]]) -> tuple[NumberField, ...]:
    fields: list[NumberField] = []
    for stream, feature in features:
        if not _is_number(schema, feature):
            continue
        fields.append(NumberField(feature.name, len(fields), stream))
        if feature.missing_flag:
            fields.append(NumberField(feature.name + MISSING_SUFFIX, len(fields), stream))
    return tuple(fields)


def _is_number(schema: FeatureSchema, feature: Feature) -> bool:
    if isinstance(feature, SequenceFeature):
        return sequence_is_number(schema, feature)
    return not isinstance(feature, IdFeature)

"""Checks that span several declarations of a schema. Each raises a `SchemaError` that names the key."""

from bundle.errors import SchemaError
from bundle.schema import (
    DERIVED,
    BucketEncoder,
    FeatureSchema,
    HistoryFeature,
    IdFeature,
    NumberEncoder,
    NumberFeature,
    SequenceFeature,
    TableEncoder,
    VocabEncoder,
)
from bundle.schema import Feature as AnyFeature
from bundle.treatment_checks import check_kind

MISSING_SUFFIX = ":missing"


def check_schema(schema: FeatureSchema) -> None:
    """Check names, references, treatments, shared tables and groups.

    Raises:
        SchemaError: for the first broken rule.
    """
    _check_names(schema)
    check_kind(schema)
    for feature in schema.feature:
        _check_feature(schema, feature)
    table_encoders(schema)
    _check_tables(schema)
    _check_groups(schema)


def _check_names(schema: FeatureSchema) -> None:
    seen: set[str] = set()
    for feature in schema.feature:
        if feature.name in seen:
            raise SchemaError(f"key feature[{feature.name}].name: declared twice")
        seen.add(feature.name)
    for task in schema.weight:
        if task not in schema.label:
            raise SchemaError(f"key weight.{task}: there is no label of that task")
    for task, column in schema.label.items():
        if column in seen:
            raise SchemaError(f"key feature[{column}]: it is the label of task {task!r} and must not be a feature")


def _check_feature(schema: FeatureSchema, feature: AnyFeature) -> None:
    key = f"feature[{feature.name}]"
    if isinstance(feature, (IdFeature, NumberFeature)):
        if feature.per_row and feature.side != "candidate":
            raise SchemaError(f"key {key}.per_row: only candidate features can come from the rows or the item table")
        _check_id_column(schema, feature, key)
    elif isinstance(feature, SequenceFeature):
        _check_sequence(schema, feature, key)
    elif feature.match is not None:
        column = item_source(schema, feature.match, f"{key}.match")
        if isinstance(column, NumberFeature):
            raise SchemaError(f"key {key}.match: {feature.match!r} is a number; agreement needs an id column")


def _check_id_column(schema: FeatureSchema, feature: IdFeature | NumberFeature, key: str) -> None:
    for column, side in ((schema.ids.item, "candidate"), (schema.ids.user, "user")):
        if feature.name != column:
            continue
        if not isinstance(feature, IdFeature) or feature.side != side or feature.max_values != 1 or feature.per_row:
            raise SchemaError(f"key {key}: the column of [ids] must be a plain id feature of side {side!r}")


def _check_sequence(schema: FeatureSchema, feature: SequenceFeature, key: str) -> None:
    source = item_source(schema, feature.of, f"{key}.of")
    encoder = feature.encoder
    number = sequence_is_number(schema, feature)
    if feature.of in ("value", "age", "gap"):
        if not isinstance(encoder, (NumberEncoder, BucketEncoder)):
            raise SchemaError(f"key {key}.encoder: of = {feature.of!r} needs a number encoder or type = 'bucket'")
    elif isinstance(source, NumberFeature):
        if encoder is not None:
            raise SchemaError(f"key {key}.encoder: the column {feature.of!r} is a number and keeps its own encoder")
    elif isinstance(encoder, (NumberEncoder, BucketEncoder)):
        raise SchemaError(f"key {key}.encoder: {feature.of!r} is an id, so use type = 'vocab' or 'hash'")
    if number and feature.table is not None:
        raise SchemaError(f"key {key}.table: numbers have no table")
    if feature.missing_flag and not number:
        raise SchemaError(f"key {key}.missing_flag: only sequences of numbers have one")


def item_source(schema: FeatureSchema, of: str, key: str) -> IdFeature | NumberFeature | None:
    """The item column that `of` or `match` names; None for the item itself and for derived fields.

    Raises:
        SchemaError: naming `key`, if it is none of these.
    """
    source = schema.source_of(of)
    if source == "item" or (source in DERIVED and key.endswith(".of")):
        return None
    for feature in schema.feature:
        if feature.name == source and isinstance(feature, (IdFeature, NumberFeature)):
            if schema.is_item_column(feature):
                return feature
            raise SchemaError(f"key {key}: {of!r} is not a column of the item table")
    raise SchemaError(f"key {key}: {of!r} is neither 'item' nor a candidate feature")


def sequence_is_number(schema: FeatureSchema, feature: SequenceFeature) -> bool:
    """Whether a sequence gives numbers rather than ids."""
    if isinstance(feature.encoder, NumberEncoder):
        return True
    return isinstance(item_source(schema, feature.of, f"feature[{feature.name}].of"), NumberFeature)


def sequence_width(schema: FeatureSchema, feature: SequenceFeature) -> int:
    """How many ids each step of an id sequence holds."""
    source = item_source(schema, feature.of, f"feature[{feature.name}].of")
    return source.max_values if isinstance(source, IdFeature) else 1


def table_of(schema: FeatureSchema, feature: IdFeature | SequenceFeature) -> str:
    """The embedding table of an id feature: named, or its own; a sequence defaults to the table of what it reads."""
    if feature.table is not None:
        return feature.table
    if isinstance(feature, IdFeature) or feature.of in DERIVED:
        return feature.name
    name = schema.item_column if schema.source_of(feature.of) == "item" else feature.of
    source = next((f for f in schema.feature if f.name == name), None)
    return table_of(schema, source) if isinstance(source, IdFeature) else name


def table_members(schema: FeatureSchema) -> dict[str, list[IdFeature | SequenceFeature]]:
    """The id features of each table, tables in the order of their first feature."""
    members: dict[str, list[IdFeature | SequenceFeature]] = {}
    for feature in schema.feature:
        if isinstance(feature, IdFeature) or (
            isinstance(feature, SequenceFeature) and not sequence_is_number(schema, feature)
        ):
            members.setdefault(table_of(schema, feature), []).append(feature)
    return members


def table_encoders(schema: FeatureSchema) -> dict[str, TableEncoder]:
    """The one encoder of each table; features that leave it out take the table's (a vocabulary if nobody says).

    Raises:
        SchemaError: if two features of a table say different things, or mix ids with types or buckets.
    """
    encoders: dict[str, TableEncoder] = {}
    for table, members in table_members(schema).items():
        kinds = {m.of if isinstance(m, SequenceFeature) and m.of in DERIVED else "id" for m in members}
        if len(kinds) > 1:
            raise SchemaError(f"key feature[{members[-1].name}].table: table {table!r} would mix {sorted(kinds)}")
        for member in members:
            if member.encoder is None or isinstance(member.encoder, NumberEncoder):
                continue
            if encoders.setdefault(table, member.encoder) != member.encoder:
                raise SchemaError(
                    f"key feature[{member.name}].encoder: differs from another feature of table {table!r}"
                )
        encoders.setdefault(table, VocabEncoder())
    return encoders


def _check_tables(schema: FeatureSchema) -> None:
    members = table_members(schema)
    for table in schema.tables:
        if table not in members:
            raise SchemaError(f"key tables.{table}: no feature uses this table")


def _check_groups(schema: FeatureSchema) -> None:
    names: set[str] = set()
    for group in schema.group:
        key = f"group[{group.name}]"
        if group.name in names:
            raise SchemaError(f"key {key}.name: declared twice")
        names.add(group.name)
        streams = set()
        for pair in group.pairs:
            candidate, history = _named(schema, pair.candidate, key), _sequence(schema, pair.history, key)
            if not isinstance(candidate, IdFeature) or candidate.side != "candidate":
                raise SchemaError(f"key {key}.pairs: {pair.candidate!r} is not a candidate id feature")
            if sequence_is_number(schema, history):
                raise SchemaError(f"key {key}.pairs: {pair.history!r} is a sequence of numbers; name it in extras")
            _check_dims(schema, candidate, history, key)
            streams.add((history.where, history.max_len))
        for name in group.extras:
            extra = _sequence(schema, name, key)
            streams.add((extra.where, extra.max_len))
        if len(streams) > 1:
            # Steps are aligned by position, so a second filter or length would pair fields of different events.
            raise SchemaError(f"key {key}: all its sequences must have the same where and max_len")


def _check_dims(schema: FeatureSchema, candidate: IdFeature, history: SequenceFeature, key: str) -> None:
    dims = {schema.tables[t].dim if t in schema.tables else None for t in _tables(schema, candidate, history)}
    if len(dims) > 1:
        raise SchemaError(f"key {key}.pairs: {candidate.name!r} and {history.name!r} have tables of different dim")


def _tables(schema: FeatureSchema, *features: IdFeature | SequenceFeature) -> set[str]:
    return {table_of(schema, feature) for feature in features}


def _named(schema: FeatureSchema, name: str, key: str) -> AnyFeature:
    for feature in schema.feature:
        if feature.name == name:
            return feature
    raise SchemaError(f"key {key}.pairs: there is no feature named {name!r}")


def _sequence(schema: FeatureSchema, name: str, key: str) -> SequenceFeature:
    feature = _named(schema, name, key)
    if not isinstance(feature, SequenceFeature):
        raise SchemaError(f"key {key}: {name!r} is not a sequence")
    return feature


def history_features(schema: FeatureSchema, *, per_candidate: bool) -> list[HistoryFeature]:
    """The history features of one side, in declared order."""
    return [f for f in schema.feature if isinstance(f, HistoryFeature) and (f.match is not None) == per_candidate]


def item_readers(schema: FeatureSchema) -> list[tuple[str, str]]:
    """(source, table) of every id column that the item table holds; the source is an item column or "item"."""
    out = []
    for table, members in table_members(schema).items():
        for member in members:
            if isinstance(member, IdFeature):
                if schema.is_item_column(member):
                    out.append((member.name, table))
            elif member.of not in DERIVED:
                out.append((schema.source_of(member.of), table))
    return list(dict.fromkeys(out))


def matched_columns(schema: FeatureSchema) -> list[str]:
    """The item columns that history features compare, without the item itself."""
    matches = [f.match for f in schema.feature if isinstance(f, HistoryFeature) and f.match is not None]
    return [name for name in dict.fromkeys(matches) if schema.source_of(name) != "item"]

"""Whether a loaded fitted schema is whole: a file can be intact and still not be what fitting would have written."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bundle.items import ItemTable, item_key
from bundle.scalers import Scaler
from bundle.schema import FeatureSchema, HistoryFeature, NumberEncoder, NumberFeature, SequenceFeature, VocabEncoder
from bundle.schema_checks import item_readers, matched_columns
from bundle.tables import IdTable


def check_fitted(
    schema: FeatureSchema,
    tables: Mapping[str, IdTable],
    vocabularies: Mapping[str, NDArray[np.uint64]],
    scalers: Mapping[str, Scaler],
    items: ItemTable,
) -> None:
    """Check that every part is there, has its type and shape, and points into its table.

    Raises:
        ValueError: naming the first part that does not fit.
    """
    wanted = {name for name, table in tables.items() if isinstance(table.encoder, VocabEncoder)}
    _same_names("vocabularies", vocabularies, wanted)
    for name, vocabulary in vocabularies.items():
        _increasing(f"vocabulary {name!r}", vocabulary)
    _same_names("scalers", scalers, {feature.name for feature in schema.feature if _is_scaled(feature)})
    _check_items(schema, tables, items)


def _is_scaled(feature: object) -> bool:
    if isinstance(feature, SequenceFeature):
        return isinstance(feature.encoder, NumberEncoder)
    return isinstance(feature, (NumberFeature, HistoryFeature))


def _check_items(schema: FeatureSchema, tables: Mapping[str, IdTable], items: ItemTable) -> None:
    _increasing("items", items.ids)
    rows = len(items.ids) + 1  # the last one stands for an unknown item
    readers = {item_key(source, table): tables[table].rows for source, table in item_readers(schema)}
    _same_names("item id columns", items.id_columns, set(readers))
    for key, column in items.id_columns.items():
        if column.dtype != np.int64 or column.ndim != 2 or len(column) != rows:
            raise ValueError(f"item column {key!r} has another type or shape")
        if column.min(initial=0) < 0 or column.max(initial=0) >= readers[key]:
            raise ValueError(f"item column {key!r} points outside its table")
    numbers = {f.name for f in schema.feature if isinstance(f, NumberFeature) and schema.is_item_column(f)}
    _same_names("item number columns", items.number_columns, numbers)
    for name, values in items.number_columns.items():
        if values.dtype != np.float64 or values.shape != (rows,) or np.isinf(values).any():
            raise ValueError(f"item column {name!r} has another type or shape")
    _same_names("compared item columns", items.matches, set(matched_columns(schema)))
    for name, match in items.matches.items():
        if match.values.dtype != np.uint64 or match.values.ndim != 2 or len(match.values) != rows:
            raise ValueError(f"compared item column {name!r} has another type or shape")


def _same_names(what: str, found: Mapping[str, object], wanted: set[str]) -> None:
    if set(found) != wanted:
        raise ValueError(f"{what}: expected {sorted(wanted)}, found {sorted(found)}")


def _increasing(what: str, ids: NDArray[np.uint64]) -> None:
    if ids.dtype != np.uint64 or ids.ndim != 1 or np.any(ids[1:] <= ids[:-1]):
        raise ValueError(f"{what}: ids are not sorted and distinct")

"""Tables of a loader and a declaration become a data set."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bundle.columns import Column, Rows
from bundle.items import UNKNOWN_ROW
from bundle.schema import FeatureSchema, IdFeature, NumberFeature
from training.config import Split
from training.datasets.columns import feature_column, hashed
from training.datasets.dataset import Dataset, Part, label_columns
from training.datasets.fingerprint import fingerprint
from training.datasets.histories import all_items, histories_of
from training.datasets.split import SplitCodes, split_by_time
from training.datasets.tables import Tables
from training.errors import DataError


def assemble(tables: Tables, features: FeatureSchema, split: Split) -> Dataset:
    """Sort by time, cut histories, hash columns, split and fingerprint.

    Raises:
        DataError: naming the file, the column and, where there is one, the row of what does not fit.
    """
    ids = features.ids
    unsorted_time = tables.rows[ids.time].to_numpy()
    unsorted_users = hashed(tables.rows[ids.user])
    # Histories first: their messages count rows as the file does.
    behaviours, dropped = histories_of(tables, unsorted_users, unsorted_time)
    order = np.argsort(unsorted_time, kind="stable").astype(np.int64)
    rows, time, users = tables.rows[order], unsorted_time[order], unsorted_users[order]
    behaviours = behaviours.take(order)
    codes = split_by_time(time, split.valid, split.test) if tables.split is None else tables.split[order]
    user_columns, missing_users = _user_columns(tables, features, rows)
    item_ids, item_columns, per_row = _item_columns(tables, features, rows, codes)
    group = features.ids.group or features.ids.user
    whole = Part(
        rows=Rows(
            time=time,
            items=hashed(rows[ids.item])[:, None],
            behaviours=behaviours,
            user=user_columns,
            candidate=_candidate_columns(tables, features, rows) | per_row,
        ),
        labels=label_columns(rows, features.label, features.tasks),
        weights=label_columns(rows, features.weight, features.tasks),
        groups=np.unique(hashed(rows[group]), return_inverse=True)[1].astype(np.int64),
        users=users,
        user_ids=rows[ids.user],
        item_ids=rows[ids.item],
    )
    content = {"rows": rows} | {
        name: frame for name, frame in (("items", tables.items), ("users", tables.users)) if frame is not None
    }
    return Dataset(
        name=tables.name,
        features=features,
        rows=rows,
        items=tables.items,
        users=tables.users,
        split=codes,
        whole=whole,
        item_ids=item_ids,
        item_columns=item_columns,
        fingerprint=fingerprint(content, behaviours, codes),
        notes={**tables.notes, **dropped, **missing_users},
    )


def _plain(features: FeatureSchema) -> list[IdFeature | NumberFeature]:
    return [feature for feature in features.feature if isinstance(feature, (IdFeature, NumberFeature))]


def _user_columns(
    tables: Tables, features: FeatureSchema, rows: pl.DataFrame
) -> tuple[dict[str, Column], dict[str, int]]:
    """User and context columns of every row; a user that the user table lacks has missing values, and is counted."""
    key = features.ids.user
    columns: dict[str, Column] = {}
    notes: dict[str, int] = {}
    user_rows: NDArray[np.int64] | None = None
    if tables.users is not None:
        listed = hashed(tables.users[key])
        user_rows, order = _rows_of(listed, hashed(rows[key])), np.argsort(listed)
        absent = len(np.unique(hashed(rows[key])[user_rows == UNKNOWN_ROW]))
        if absent:
            notes["users without a row in the user table"] = absent
    for feature in _plain(features):
        if feature.side == "candidate":
            continue
        if feature.name == key or feature.name in rows.columns:
            columns[feature.name] = feature_column(feature, rows[feature.name], tables.file("rows"))
        elif tables.users is not None and user_rows is not None and feature.name in tables.users.columns:
            table = feature_column(feature, tables.users[feature.name], tables.file("users"))[order]
            columns[feature.name] = _at(table, user_rows)
        else:
            raise DataError(f"{tables.file('rows')}: there is no column {feature.name!r} (a feature)")
    return columns, notes


def _candidate_columns(tables: Tables, features: FeatureSchema, rows: pl.DataFrame) -> dict[str, Column]:
    """Candidate columns that belong to the row and not to the item, (N, 1) or (N, 1, W)."""
    return {
        feature.name: feature_column(feature, rows[feature.name], tables.file("rows"))[:, None]
        for feature in _plain(features)
        if feature.side == "candidate" and feature.per_row
    }


def _item_columns(
    tables: Tables, features: FeatureSchema, rows: pl.DataFrame, codes: SplitCodes
) -> tuple[NDArray[np.uint64], dict[str, Column], dict[str, Column]]:
    """Every item that may be scored, its columns, and row columns that override them.

    Item columns that only the rows hold are taken from the first training row of each item; the rows then keep their
    own values too, so that an item that training never met is still described.
    """
    ids = all_items(tables, features.ids.item)
    from_table: dict[str, Column] = {}
    overrides: dict[str, Column] = {}
    train = rows.filter(pl.Series(codes == 0))
    for feature in _plain(features):
        if not features.is_item_column(feature):
            continue
        source = tables.items if tables.items is not None and feature.name in tables.items.columns else None
        if source is None:
            if feature.name not in rows.columns:
                raise DataError(f"{tables.file('items')}: there is no column {feature.name!r} (an item column)")
            overrides[feature.name] = feature_column(feature, rows[feature.name], tables.file("rows"))[:, None]
            source = train.unique(features.ids.item, keep="first", maintain_order=True)
        file = tables.file("items" if source is tables.items else "rows")
        listed = hashed(source[features.ids.item])
        order = np.argsort(listed)
        values = feature_column(feature, source[feature.name], file)[order]
        from_table[feature.name] = _at(values, _rows_of(listed, ids))
    return ids, from_table, overrides


def _rows_of(listed: NDArray[np.uint64], ids: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Position of each id in the sorted listed ids, UNKNOWN_ROW where it is not listed."""
    ordered = np.sort(listed)
    if not len(ordered):
        return np.full(len(ids), UNKNOWN_ROW, dtype=np.int64)
    position = np.searchsorted(ordered, ids)
    found = ordered[np.minimum(position, len(ordered) - 1)] == ids
    return np.where(found, position, UNKNOWN_ROW).astype(np.int64)


def _at(values: Column, rows: NDArray[np.int64]) -> Column:
    """Values (I,) or (I, W) at some rows, missing where the row is UNKNOWN_ROW."""
    missing = np.full((1, *values.shape[1:]), np.nan if values.dtype.kind == "f" else 0, dtype=values.dtype)
    return np.asarray(np.concatenate([values, missing])[rows])

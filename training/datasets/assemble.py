"""Tables of a loader and a declaration become a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bundle.behaviours import Behaviours
from bundle.columns import Column, Rows
from bundle.items import UNKNOWN_ROW
from bundle.schema import FeatureSchema, IdFeature, NumberFeature
from training.config import Split
from training.datasets.columns import feature_column, hashed
from training.datasets.dataset import Dataset, Part, label_columns
from training.datasets.fingerprint import fingerprint
from training.datasets.funnel import BOTH, CONVERSION, funnel_labels
from training.datasets.histories import all_items, histories_of
from training.datasets.split import SplitCodes, split_at_random, split_by_time, with_validation
from training.datasets.tables import Tables
from training.datasets.treatments import Treated, check_arms, dose_ranges, rows_of, treated
from training.errors import DataError


@dataclass(frozen=True, slots=True)
class Ordered:
    """Rows in the order of the data set, with what was cut and left out on the way.

    Attributes:
        tables: without rows of arms that are not declared; its rows and truth in the new order, its split before
            validation rows were drawn.
        time, users, behaviours, given: of the rows; `given` is None where no treatments are declared.
        split: with the validation rows.
        known_split: the same without validation rows that were drawn with the seed of the training.
        notes: counts of what was dropped.
    """

    tables: Tables
    time: NDArray[np.float64]
    users: NDArray[np.uint64]
    behaviours: Behaviours
    given: Treated | None
    split: SplitCodes
    known_split: SplitCodes
    notes: dict[str, int]


def assemble(
    tables: Tables,
    features: FeatureSchema,
    split: Split,
    *,
    seed: int = 0,
    environment: str | None = None,
    funnel: bool = False,
) -> Dataset:
    """Sort by time, cut histories, hash columns, split and fingerprint.

    Args:
        tables: of a loader.
        features: the declaration.
        split: what [data.split] says.
        seed: of the validation rows that are drawn where treatments are declared.
        environment: the column of the rows that [invariance] names.
        funnel: the tasks ctr and cvr are steps of one funnel.

    Raises:
        DataError: naming the file, the column and, where there is one, the row of what does not fit.
    """
    ordered = _ordered(tables, features, split, seed)
    tables, given = ordered.tables, ordered.given
    ranges: Mapping[str, tuple[float, float]] = {}
    if features.treatment is not None and given is not None:
        check_arms(ordered.split, given, features.treatment, tables.file("rows"))
        ranges = dose_ranges(ordered.split, given, features.treatment, tables.file("rows"))
    user_columns, missing_users = _user_columns(tables, features, tables.rows)
    item_ids, item_columns, per_row = _item_columns(tables, features, ordered.split)
    raw = Rows(
        time=ordered.time,
        items=_candidates(features, tables.rows),
        behaviours=ordered.behaviours,
        user=user_columns,
        candidate=_candidate_columns(tables, features, tables.rows) | per_row,
    )
    content = {"rows": tables.rows} | {
        name: frame for name, frame in (("items", tables.items), ("users", tables.users)) if frame is not None
    }
    whole = _whole(tables.rows, features, raw, ordered, environment)
    if funnel:
        weights = {**whole.weights, BOTH: whole.weights[CONVERSION]}
        whole = replace(whole, labels=funnel_labels(whole.labels), weights=weights)
    return Dataset(
        name=tables.name,
        features=features,
        rows=tables.rows,
        items=tables.items,
        users=tables.users,
        split=ordered.split,
        whole=whole,
        item_ids=item_ids,
        item_columns=item_columns,
        fingerprint=fingerprint(content, ordered.behaviours, ordered.known_split),
        notes={**tables.notes, **ordered.notes, **missing_users},
        dose_ranges=ranges,
        known_truth=tables.truth,
    )


def _ordered(tables: Tables, features: FeatureSchema, split: Split, seed: int) -> Ordered:
    rows = tables.rows
    time = np.zeros(len(rows)) if features.ids.time is None else rows[features.ids.time].to_numpy()
    users = hashed(rows[features.ids.user])
    # Histories and arms first: their messages count rows as the file does.
    behaviours, dropped = histories_of(tables, users, time)
    given: Treated | None = None
    if features.treatment is not None:
        kept, given, left_out = treated(tables, features.treatment)
        tables, time, users, behaviours = rows_of(tables, kept), time[kept], users[kept], behaviours.take(kept)
        dropped = {**left_out, **dropped}
    known = _split(tables, split, time, users)
    codes = known
    if given is not None and not (known == 1).any():
        codes = with_validation(known, users, given.arm, split.valid, seed)
    order = np.argsort(time, kind="stable").astype(np.int64)
    return Ordered(
        tables=rows_of(tables, order),
        time=time[order],
        users=users[order],
        behaviours=behaviours.take(order),
        given=None if given is None else given.take(order),
        split=codes[order],
        known_split=known[order],
        notes=dropped,
    )


def _split(tables: Tables, split: Split, time: NDArray[np.float64], users: NDArray[np.uint64]) -> SplitCodes:
    if tables.split is not None:
        return tables.split
    if split.by == "random":
        return split_at_random(users, split.test, split.seed or 0)
    return split_by_time(time, split.valid, split.test)


def _whole(rows: pl.DataFrame, features: FeatureSchema, raw: Rows, ordered: Ordered, environment: str | None) -> Part:
    nobody = pl.Series("item", [None] * len(rows), dtype=pl.String)
    return Part(
        rows=raw,
        labels=label_columns(rows, features.label, features.tasks),
        weights=label_columns(rows, features.weight, features.tasks),
        groups=np.unique(hashed(rows[features.ids.group or features.ids.user]), return_inverse=True)[1].astype(
            np.int64
        ),
        users=ordered.users,
        user_ids=rows[features.ids.user],
        item_ids=nobody if features.treatment is not None else rows[features.item_column],
        treated=ordered.given,
        environment=None if environment is None else rows[environment],
    )


def _candidates(features: FeatureSchema, rows: pl.DataFrame) -> NDArray[np.uint64]:
    """The one candidate of each row (N, 1), or (N, 0) where treatments are declared."""
    if features.treatment is not None:
        return np.zeros((len(rows), 0), dtype=np.uint64)
    return hashed(rows[features.item_column])[:, None]


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
    tables: Tables, features: FeatureSchema, codes: SplitCodes
) -> tuple[NDArray[np.uint64], dict[str, Column], dict[str, Column]]:
    """Every item that may be scored, its columns, and row columns that override them.

    Item columns that only the rows hold are taken from the first training row of each item; the rows then keep their
    own values too, so that an item that training never met is still described. With treatments there are no item
    columns, and the items are those of the behaviours.
    """
    if features.treatment is not None:
        return np.zeros(0, dtype=np.uint64), {}, {}
    item, rows = features.item_column, tables.rows
    ids = all_items(tables, item)
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
            source = train.unique(item, keep="first", maintain_order=True)
        file = tables.file("items" if source is tables.items else "rows")
        listed = hashed(source[item])
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

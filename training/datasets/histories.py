"""Histories of rows: slices into one log of all users, or lists that the rows bring along.

Either way a row sees only what happened in strictly earlier seconds.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bundle.behaviours import Behaviours, Events, records, type_code
from bundle.ids import id64_column
from training.datasets.columns import hashed
from training.datasets.tables import RowLists, Tables
from training.errors import DataError

Ids = NDArray[np.uint64]


def histories_of(tables: Tables, users: Ids, time: NDArray[np.float64]) -> tuple[Behaviours, dict[str, int]]:
    """Histories of the rows, and counts of what was dropped.

    Args:
        tables: of the loader.
        users: (N,) id64 of each row's user.
        time: (N,) seconds.

    Raises:
        DataError: naming the file, the column and the row of what is not a history.
    """
    if tables.events is not None:
        return from_log(tables.events, users, time, tables.file("events")), {}
    if tables.lists is not None:
        return from_lists(tables.rows, tables.lists, time, tables.file("rows"))
    return Behaviours.empty(len(users)), {}


def from_log(events: pl.DataFrame, users: Ids, time: NDArray[np.float64], file: str) -> Behaviours:
    """Slice each row's past out of one log sorted by user and second; events of one second keep the file's order.

    Raises:
        DataError: if a value is too large to be stored.
    """
    event_users = hashed(events["user"])
    seconds = events["ts"].to_numpy().astype(np.int64)
    known, codes = np.unique(event_users, return_inverse=True)
    keys = (codes.astype(np.int64) << 32) + seconds
    order = np.argsort(keys, kind="stable")
    log = _records(events, seconds, file)[order]
    keys = keys[order]
    position = np.minimum(np.searchsorted(known, users), max(len(known) - 1, 0))
    has_events = known[position] == users if len(known) else np.zeros(len(users), dtype=np.bool_)
    user_key = position.astype(np.int64) << 32
    start = np.searchsorted(keys, user_key, "left")
    stop = np.searchsorted(keys, user_key + np.floor(time).astype(np.int64), "left")
    return Behaviours(log, np.where(has_events, start, 0), np.where(has_events, stop, 0))


def from_lists(
    rows: pl.DataFrame, lists: RowLists, time: NDArray[np.float64], file: str
) -> tuple[Behaviours, dict[str, int]]:
    """Histories that the rows hold as lists, oldest first.

    Behaviours at or after their row's time are dropped and counted: they are the row itself or its future.

    Raises:
        DataError: if the lists of a row differ in length or its times decrease.
    """
    lengths = rows[lists.item].list.len().to_numpy().astype(np.int64)
    for column in (lists.time, lists.type, lists.value):
        if column is None:
            continue
        other = rows[column].list.len().to_numpy().astype(np.int64)
        wrong = np.flatnonzero(other != lengths)
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{file}, column {column!r}, row {row + 1}: holds {other[row]} values but {lists.item!r} {lengths[row]}"
            )
    stop = np.cumsum(lengths)
    start = stop - lengths
    frame = pl.DataFrame(
        {
            name: rows[column].explode(empty_as_null=False)
            for name, column in (("item", lists.item), ("ts", lists.time), ("type", lists.type), ("value", lists.value))
            if column is not None
        }
    )
    seconds = frame["ts"].to_numpy().astype(np.int64)
    row_of = np.repeat(np.arange(len(rows)), lengths)
    unsorted = np.flatnonzero((np.diff(seconds) < 0) & (np.diff(row_of) == 0))
    if len(unsorted):
        row = int(row_of[unsorted[0]])
        raise DataError(f"{file}, column {lists.time!r}, row {row + 1}: the history must be oldest first")
    whole = Behaviours(_records(frame, seconds, file), start, stop)
    past = whole.before(time)
    dropped = int(whole.lengths.sum() - past.lengths.sum())
    return past, {"behaviours at or after their row's time, dropped": dropped} if dropped else {}


def _records(events: pl.DataFrame, seconds: NDArray[np.int64], file: str) -> Events:
    values = events["value"].to_numpy() if "value" in events.columns else None
    try:
        log = records(hashed(events["item"]), seconds, values=values)
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error
    if "type" in events.columns:
        log["type"] = _type_codes(events["type"])
    return log


def _type_codes(types: pl.Series) -> NDArray[np.uint32]:
    distinct = types.unique()
    codes = pl.DataFrame({"type": distinct, "code": [type_code(kind) for kind in distinct.to_list()]})
    joined = pl.DataFrame({"type": types}).join(codes, on="type", how="left", maintain_order="left", nulls_equal=True)
    return joined["code"].to_numpy().astype(np.uint32)


def all_items(tables: Tables, item_column: str) -> Ids:
    """Distinct id64 of every item that the tables mention, sorted: listed, exposed or met in a history."""
    texts = [tables.rows[item_column]]
    if tables.items is not None:
        texts.append(tables.items[item_column])
    if tables.events is not None:
        texts.append(tables.events["item"])
    if tables.lists is not None:
        texts.append(tables.rows[tables.lists.item].explode(empty_as_null=False))
    distinct = pl.concat([text.cast(pl.String).unique().alias("item") for text in texts]).unique().drop_nulls()
    return np.unique(id64_column(distinct.to_list()))

"""Histories that a file brings along in list columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bundle.behaviours import RECORD, Behaviours
from cli.batch.cells import TEXT, Ragged, WrongValue

ITEM, TIME, TYPE, VALUE = "behaviour_item_id", "behaviour_ts", "behaviour_type", "behaviour_value"
COLUMNS: Final = (ITEM, TIME, TYPE, VALUE)
_LAST_SECOND: Final = 2**32
_LARGEST: Final = float(np.finfo(np.float32).max)


def histories(cells: Mapping[str, pl.Series]) -> Behaviours:
    """The histories (R,) of R cells of each list column, oldest first; types and values may be absent.

    Raises:
        WrongValue: with column and cell, for the first list that is as long as it must not be, and the first member
            that belongs to no behaviour.
    """
    lists: dict[str, Ragged] = {}
    columns: dict[str, NDArray[Any]] = {}
    wrong: list[WrongValue] = []
    for name, series in cells.items():
        with _noted(wrong, name):
            lists[name] = Ragged.of(series)
            columns[name] = _READ[name](lists[name])
    for name in lists if ITEM in lists else ():
        with _noted(wrong, name):
            _check_length(lists[name], lists[ITEM], optional=name in {TYPE, VALUE})
    if wrong:
        raise min(wrong, key=lambda each: each.place)
    events = np.zeros(len(lists[ITEM].members), dtype=RECORD)
    events["item"], events["ts"] = columns[ITEM], columns[TIME]
    events["value"] = np.nan
    for name, field in ((TYPE, "type"), (VALUE, "value")):
        if name in lists:
            events[field][(lists[name].lengths > 0).repeat(lists[ITEM].lengths)] = columns[name]
    stop = lists[ITEM].lengths.cumsum()
    return _oldest_first(Behaviours(events, stop - lists[ITEM].lengths, stop))


@contextmanager
def _noted(wrong: list[WrongValue], column: str) -> Iterator[None]:
    try:
        yield
    except WrongValue as found:
        found.column = column
        wrong.append(found)


def _check_length(part: Ragged, items: Ragged, *, optional: bool) -> None:
    differs = part.lengths != items.lengths
    if optional:
        differs &= part.lengths != 0
    if differs.any():
        cell = int(differs.argmax())
        raise WrongValue(cell, f"{part.lengths[cell]} entries, but {ITEM} has {items.lengths[cell]}.")


def _seconds(times: Ragged) -> NDArray[np.float64]:
    seconds = times.numbers()
    times.refuse(~((seconds >= 0) & (seconds < _LAST_SECOND)), "must be seconds in [0, 2^32)")
    return seconds


def _types(kinds: Ragged) -> NDArray[np.uint32]:
    if kinds.members.dtype.is_integer():
        kinds.refuse(kinds.members.is_not_null().to_numpy(), f"{TEXT}, got int")
    # The stored number of a type is the low half of its id64, and 0 where there is none.
    return kinds.optional_ids().astype(np.uint32)


def _values(part: Ragged) -> NDArray[np.float64]:
    values = part.numbers()
    given = part.members.is_not_null().to_numpy()
    part.refuse(given & ~(np.abs(values) <= _LARGEST), "must be finite in 32 bits")
    return values


_READ: Final[Mapping[str, Callable[[Ragged], NDArray[Any]]]] = {
    ITEM: Ragged.ids,
    TIME: _seconds,
    TYPE: _types,
    VALUE: _values,
}


def _oldest_first(histories: Behaviours) -> Behaviours:
    """A late event in the middle is put where the store would have put it."""
    times = histories.events["ts"]
    falls = np.zeros(len(times), dtype=np.bool_)
    falls[1:] = times[1:] < times[:-1]
    falls[histories.start[histories.lengths > 0]] = False
    if not falls.any():
        return histories
    row = np.arange(len(histories)).repeat(histories.lengths)
    return Behaviours(histories.events[np.lexsort((times, row))], histories.start, histories.stop)

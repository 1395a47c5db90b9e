"""Statistics of items and histories that simple references are fitted on.

Everything learned from labels comes from training rows, and for a training row from other users' rows only: an item's
rate that counted the row itself would give the label away.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from bundle.behaviours import Behaviours
from bundle.items import MatchColumn
from bundle.schema import FeatureSchema, SequenceFeature, Where
from training.datasets import Dataset

Floats = NDArray[np.float64]
Int64 = NDArray[np.int64]

SMOOTHING: Final = 10.0
_FOLDS: Final = 20
_CELLS: Final = 50_000_000  # of the fold x item table; huge catalogues get fewer folds
_ROWS_AT_ONCE: Final = 100_000
_NEWEST: Final = 50


@dataclass(frozen=True, slots=True)
class View:
    """A data set as the statistics see it, N rows.

    Attributes:
        item: (N,) position of each row's item among the data set's items.
        history: histories of the longest declared sequence: its filter, its newest steps (50 without a sequence).
        event_item: (E,) item position of each event of `history`.
        time: (N,) seconds.
        fold: (N,) user fold of training rows, `folds` for all others.
        folds: how many.
        items: how many items there are.
        columns: raw id columns of the items that a sequence carries, by name.
    """

    item: Int64
    history: Behaviours
    event_item: Int64
    time: Floats
    fold: Int64
    folds: int
    items: int
    columns: dict[str, MatchColumn]

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Positions, folds and histories of all rows."""
        ids, rows = np.sort(dataset.item_ids), dataset.whole.rows
        order = np.argsort(dataset.item_ids)
        sequences = [feature for feature in dataset.features.feature if isinstance(feature, SequenceFeature)]
        sequence = max(sequences, key=lambda feature: feature.max_len, default=None)
        carried = {feature.of for feature in sequences}
        history = dataset.behaviours
        if sequence is not None and sequence.where is not None:
            history = history.where(_keep(history, sequence.where, dataset.features))
        history = history.newest(_NEWEST if sequence is None else sequence.max_len)
        folds = max(2, min(_FOLDS, _CELLS // max(1, len(ids))))
        # By the user's hash: the same users fall into one fold whatever file the rows came from.
        fold = (dataset.whole.users % np.uint64(folds)).astype(np.int64)
        columns = {
            name: column
            for name, column in dataset.item_columns.items()
            if column.dtype == np.uint64 and name in carried
        }
        return cls(
            item=np.searchsorted(ids, rows.items[:, 0]).astype(np.int64),
            history=history,
            event_item=np.searchsorted(ids, history.events["item"]).astype(np.int64),
            time=rows.time,
            fold=np.where(dataset.split == 0, fold, folds),
            folds=folds,
            items=len(ids),
            columns={
                name: MatchColumn((values if values.ndim == 2 else values[:, None])[order])
                for name, values in columns.items()
            },
        )


def _keep(history: Behaviours, where: Where, features: FeatureSchema) -> NDArray[np.bool_]:
    from bundle.behaviours import type_code

    value = history.events["value"]
    keep = np.ones(len(history.events), dtype=np.bool_)
    if where.min_value is not None:
        keep &= value >= where.min_value
    if where.max_value is not None:
        keep &= value <= where.max_value
    if where.types is not None:
        keep &= np.isin(history.events["type"], [type_code(kind) for kind in where.types])
    return keep


@dataclass(frozen=True, slots=True)
class ItemRates:
    """Label rates smoothed by ten rows at the base rate, and counts, for each fold left out; the last leaves none.

    Shapes: rate (folds + 1, items), count (items,).
    """

    rate: Floats
    count: Floats

    @classmethod
    def fit(cls, view: View, labels: Floats, weights: Floats) -> Self:
        """Count the training rows that have a label; labels (N,) with NaN, weights (N,)."""
        rows = (view.fold < view.folds) & ~np.isnan(labels) & (weights > 0)
        cell = view.fold[rows] * view.items + view.item[rows]
        size = view.folds * view.items
        seen = np.bincount(cell, weights[rows], size).reshape(view.folds, view.items)
        positive = np.bincount(cell, (weights * labels)[rows], size).reshape(view.folds, view.items)
        seen = np.concatenate([seen.sum(axis=0) - seen, seen.sum(axis=0)[None]])
        positive = np.concatenate([positive.sum(axis=0) - positive, positive.sum(axis=0)[None]])
        base = positive.sum(axis=1, keepdims=True) / np.maximum(seen.sum(axis=1, keepdims=True), 1e-12)
        # A fold that holds every row leaves nothing to count; kept off 0 and 1 so that log-odds stay finite.
        base = np.clip(base, 1e-6, 1 - 1e-6)
        return cls((positive + SMOOTHING * base) / (seen + SMOOTHING), seen[-1])


def statistics(view: View, rates: ItemRates, rows: Int64) -> Floats:
    """Columns of some rows: item rate, history's mean log-odds, agreement shares, popularities, length, recency.

    Args:
        view: of the data set.
        rates: of one task.
        rows: (M,) rows wanted.

    Returns:
        (M, 6 + A): item rate; mean log-odds of the history's items; for each of the A item id columns the share of
        the history that agrees with the candidate; log popularity of the item; the mean of the history's; history
        length; log seconds since the last behaviour (NaN without one).
    """
    blocks = [_block(view, rates, rows[first : first + _ROWS_AT_ONCE]) for first in range(0, len(rows), _ROWS_AT_ONCE)]
    return np.concatenate(blocks) if blocks else np.zeros((0, 6 + len(view.columns)))


def _block(view: View, rates: ItemRates, rows: Int64) -> Floats:
    start, lengths = view.history.start[rows], view.history.lengths[rows]
    row_of = np.repeat(np.arange(len(rows)), lengths)
    event = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(start, lengths)
    behaved = view.event_item[event]
    popularity = np.log1p(rates.count)
    rate = rates.rate[view.fold[rows], view.item[rows]]
    behaved_rate = rates.rate[view.fold[rows][row_of], behaved]

    def mean(values: Floats) -> Floats:
        return np.bincount(row_of, values, len(rows)) / np.maximum(lengths, 1)

    last = view.history.events["ts"][np.maximum(view.history.stop[rows] - 1, 0)] if len(event) else np.zeros(len(rows))
    since = np.where(lengths > 0, np.log1p(np.maximum(view.time[rows] - last, 0)), np.nan)
    agreement = [mean(_agrees(column, behaved, view.item[rows][row_of])) for column in view.columns.values()]
    columns = [rate, mean(np.log(behaved_rate) - np.log1p(-behaved_rate)), *agreement]
    columns += [popularity[view.item[rows]], mean(popularity[behaved]), lengths.astype(np.float64), since]
    return np.stack(columns, axis=1)


def _agrees(column: MatchColumn, first: Int64, second: Int64) -> Floats:
    """1 where two items share a value of the column, (E,) positions twice -> (E,)."""
    if column.bits is not None:
        return np.asarray((column.bits[first] & column.bits[second]) != 0, dtype=np.float64)
    shared = np.zeros(len(first), dtype=np.bool_)
    for one in range(column.values.shape[1]):
        for other in range(column.values.shape[1]):
            value = column.values[first, one]
            shared |= (value != 0) & (value == column.values[second, other])
    return shared.astype(np.float64)

"""What simple models reach on the same rows, rebuilt for every report: no number of a network stands alone.

All are fitted on training rows. For each task: the item's smoothed rate; a logistic regression on statistics of item
and history; gradient boosting on these and the codes of user and item columns; a logistic regression that also sees
every number the network sees.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from bundle.encode import Encoder
from bundle.fitting import FittedSchema, fit
from bundle.schema import IdFeature, NumberFeature
from training.datasets import Dataset
from training.datasets.dataset import SplitName
from training.datasets.funnel import BOTH, CLICK, CONVERSION
from training.datasets.split import SPLITS
from training.statistics import ItemRates, View, statistics

Floats = NDArray[np.float64]
Int64 = NDArray[np.int64]

ITEM_RATE: Final = "item rate"
LOGISTIC: Final = "logistic on statistics"
BOOSTING: Final = "boosting on statistics"
LOGISTIC_NUMBERS: Final = "logistic on all numbers"
BOOSTING_NUMBERS: Final = "boosting on all numbers"
EVERY: Final = (ITEM_RATE, LOGISTIC, BOOSTING, LOGISTIC_NUMBERS, BOOSTING_NUMBERS)
# The newest training rows that the regressions are fitted on; the item rates count all of them.
_FITTED_ROWS: Final = 200_000
_ROUNDS: Final = 150
_RATE: Final = 0.06


@dataclass(frozen=True, slots=True)
class Reference:
    """A simple model's probabilities for the rows of one split, (N,) in the order of `Dataset.part`."""

    name: str
    task: str
    scores: Floats


def references(
    dataset: Dataset,
    split: SplitName = "test",
    *,
    fitted: FittedSchema | None = None,
    names: Collection[str] = EVERY,
    seed: int = 0,
) -> list[Reference]:
    """Fit the references of every task and score one split.

    Args:
        dataset: rows and histories.
        split: the rows to score.
        fitted: the declaration's fit, to save fitting it again for the encoded numbers.
        names: which references; the item rate always comes.
        seed: of the boosting.

    Returns:
        Task by task; only the item rate where the training labels of the task have one class.
    """
    view = View.of(dataset)
    train = np.flatnonzero(dataset.split == 0)[-_FITTED_ROWS:].astype(np.int64)
    target = np.flatnonzero(dataset.split == SPLITS.index(split)).astype(np.int64)
    rows = np.concatenate([train, target])
    numbers, codes = _user_numbers(dataset, rows), _codes(dataset, view, rows)
    wants_numbers = LOGISTIC_NUMBERS in names or BOOSTING_NUMBERS in names
    encoded = _encoded_numbers(dataset, rows, fitted) if wants_numbers else np.zeros((len(rows), 0))
    found = []
    for task in dataset.tasks:
        labels = dataset.whole.labels[task].astype(np.float64)
        weights = dataset.whole.weights[task].astype(np.float64)
        counted = statistics(view, ItemRates.fit(view, labels, weights), rows)
        found.append(Reference(ITEM_RATE, task, counted[len(train) :, 0]))
        known = ~np.isnan(labels[train]) & (weights[train] > 0)
        fit_rows = _FitRows(np.flatnonzero(known), labels[train][known], weights[train][known], len(train))
        if len(np.unique(fit_rows.labels)) < 2:
            continue
        if LOGISTIC in names:
            found.append(Reference(LOGISTIC, task, fit_rows.logistic(_beside(counted, numbers))))
        if BOOSTING in names:
            found.append(Reference(BOOSTING, task, fit_rows.boosting(_beside(counted, numbers, codes), seed)))
        if LOGISTIC_NUMBERS in names:
            found.append(Reference(LOGISTIC_NUMBERS, task, fit_rows.logistic(_beside(counted, encoded))))
        if BOOSTING_NUMBERS in names:
            found.append(Reference(BOOSTING_NUMBERS, task, fit_rows.boosting(_beside(counted, encoded, codes), seed)))
    return [*found, *_products(found)] if BOTH in dataset.whole.labels else found


def _products(found: Sequence[Reference]) -> list[Reference]:
    """Click and conversion together, where a reference knows both."""
    scores = {(reference.name, reference.task): reference.scores for reference in found}
    return [
        Reference(name, BOTH, clicks * scores[name, CONVERSION])
        for (name, task), clicks in scores.items()
        if task == CLICK and (name, CONVERSION) in scores
    ]


def _beside(*tables: Floats) -> Floats:
    return np.concatenate(tables, axis=1)


@dataclass(frozen=True, slots=True)
class _FitRows:
    """Which of the leading training rows of a table are fitted on; the rows from `target` on are scored."""

    index: Int64
    labels: Floats
    weights: Floats
    target: int

    def logistic(self, table: Floats) -> Floats:
        """Standardised columns, missing = the mean, into a logistic regression."""
        known = table[self.index]
        columns = ~np.isnan(known).all(axis=0)
        known, table = known[:, columns], table[:, columns]
        mean, deviation = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
        scaled = np.nan_to_num((table - mean) / np.where(deviation > 0, deviation, 1.0))
        model = LogisticRegression(max_iter=1000)
        model.fit(scaled[self.index], self.labels, sample_weight=self.weights)
        return np.asarray(model.predict_proba(scaled[self.target :])[:, 1], dtype=np.float64)

    def boosting(self, table: Floats, seed: int) -> Floats:
        """Histogram gradient boosting, which takes missing values as they are."""
        model = HistGradientBoostingClassifier(
            max_iter=_ROUNDS, learning_rate=_RATE, early_stopping=False, random_state=seed
        )
        # Its OpenMP threads spin: two on a core that others use took ten times as long as one.
        with threadpool_limits(limits=1, user_api="openmp"):
            model.fit(table[self.index], self.labels, sample_weight=self.weights)
            return np.asarray(model.predict_proba(table[self.target :])[:, 1], dtype=np.float64)


def _user_numbers(dataset: Dataset, rows: Int64) -> Floats:
    """Declared numbers of user and context, (M, ...) with NaN for missing."""
    names = [f.name for f in dataset.features.feature if isinstance(f, NumberFeature) and f.side != "candidate"]
    columns = [dataset.whole.rows.user[name][rows] for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))


def _codes(dataset: Dataset, view: View, rows: Int64) -> Floats:
    """Codes of the declared id columns of user, row and sequences; one a combination of values, no user or item id."""
    columns = []
    for feature in dataset.features.feature:
        if not isinstance(feature, IdFeature) or feature.name in (dataset.features.ids.user, dataset.features.ids.item):
            continue
        if feature.side != "candidate":
            columns.append(_numbered(dataset.whole.rows.user[feature.name])[rows])
        elif feature.name in view.columns:
            columns.append(_numbered(view.columns[feature.name].values)[view.item[rows]])
        elif feature.per_row:
            columns.append(_numbered(dataset.whole.rows.candidate[feature.name][:, 0])[rows])
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.zeros((len(rows), 0))


def _numbered(values: NDArray[np.uint64]) -> Int64:
    """0, 1, ... for each distinct value (N,) or combination of values (N, W)."""
    return np.unique(values, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _encoded_numbers(dataset: Dataset, rows: Int64, fitted: FittedSchema | None) -> Floats:
    """Every number that the network sees of user, context and candidate, (M, Nu + Nc)."""
    encoder = Encoder(fitted if fitted is not None else fit(dataset.features, dataset.fit_columns()))
    encoded = encoder.encode(dataset.whole.rows.take(rows))
    return np.concatenate([encoded.user_numbers, encoded.candidate_numbers[:, 0]], axis=1).astype(np.float64)

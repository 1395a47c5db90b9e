"""A data set tied to a declaration: rows in time order with labels, raw columns and point-in-time histories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bundle.behaviours import Behaviours
from bundle.columns import Column, Rows
from bundle.fitting import FitColumns
from bundle.schema import FeatureSchema
from training.config import SamplingSection
from training.datasets.sampling import kept_rows
from training.datasets.split import SPLITS, SplitCodes
from training.datasets.tables import Truth
from training.datasets.treatments import Treated

SplitName = Literal["train", "valid", "test"]


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a data set, N rows with one candidate each; none where treatments are declared.

    Attributes:
        rows: raw columns and histories (strictly earlier seconds), as `bundle.encode.Encoder` takes them.
        labels: by task, (N,) float32; NaN where the task has no label for the row. With treatments the one outcome, in
            its own units. In a funnel `cvr` is NaN without a click, and `ctcvr` holds both steps together.
        weights: by task, (N,) float32.
        groups: (N,) int64, the key of GAUC.
        users: (N,) uint64, id64 of the user.
        user_ids: the users' texts.
        item_ids: the items' texts; null where there are no candidates.
        negative_rate: by task, (N,) float32: share of the negatives like this row that were kept. None where nothing
            was dropped.
        treated: arm and dose of each row, None where no treatments are declared.
        environment: the texts of the column that [invariance] names, or None.
    """

    rows: Rows
    labels: Mapping[str, NDArray[np.float32]]
    weights: Mapping[str, NDArray[np.float32]]
    groups: NDArray[np.int64]
    users: NDArray[np.uint64]
    user_ids: pl.Series
    item_ids: pl.Series
    negative_rate: Mapping[str, NDArray[np.float32]] | None = None
    treated: Treated | None = None
    environment: pl.Series | None = None

    @property
    def treatment(self) -> NDArray[np.int64]:
        """Number of each row's arm, (N,); 0 is the control.

        Raises:
            ValueError: if no treatments are declared.
        """
        return self._treated().arm

    @property
    def dose(self) -> NDArray[np.float64]:
        """Dose of each row in its own units, (N,); NaN where the arm has none.

        Raises:
            ValueError: if no treatments are declared.
        """
        return self._treated().dose

    def _treated(self) -> Treated:
        if self.treated is None:
            raise ValueError("these rows have no treatments")
        return self.treated

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.int64]) -> "Part":
        """Some of the rows, in the order asked."""

        def taken(columns: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
            return {name: column[rows] for name, column in columns.items()}

        return Part(
            rows=self.rows.take(rows),
            labels=taken(self.labels),
            weights=taken(self.weights),
            groups=self.groups[rows],
            users=self.users[rows],
            user_ids=self.user_ids.gather(rows),
            item_ids=self.item_ids.gather(rows),
            negative_rate=None if self.negative_rate is None else taken(self.negative_rate),
            treated=None if self.treated is None else self.treated.take(rows),
            environment=None if self.environment is None else self.environment.gather(rows),
        )

    def without_history(self) -> "Part":
        """The same rows as if nobody had any behaviours: what the service scores while the store is away."""
        return replace(self, rows=replace(self.rows, behaviours=Behaviours.empty(len(self))))


@dataclass(frozen=True, slots=True)
class Dataset:
    """All rows, sorted by time (rows of one second, and rows without a time, in the file's order).

    Attributes:
        name: of the data set.
        features: the declaration it was read for.
        rows: ids, time, labels, weights and the row's own feature columns as a polars frame.
        items: one item a row, or None where the rows hold the item columns.
        users: one user a row, or None where the rows hold them.
        split: (N,) index into train, valid, test.
        whole: every row as one part.
        item_ids: (I,) uint64, distinct: every item that may be scored.
        item_columns: raw candidate columns of these items, from the item file, or from the training rows.
        fingerprint: SHA-256 over the content of everything above.
        notes: what was left out or filled in, as counts.
        dose_ranges: by arm, the lowest and the highest dose of its training rows in their own units, or those that the
            declaration says; only arms that have doses and rows.
        known_truth: what is known of outcomes that did not happen. For `truth` alone.
    """

    name: str
    features: FeatureSchema
    rows: pl.DataFrame
    items: pl.DataFrame | None
    users: pl.DataFrame | None
    split: SplitCodes
    whole: Part
    item_ids: NDArray[np.uint64]
    item_columns: Mapping[str, Column]
    fingerprint: str
    notes: Mapping[str, int]
    dose_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    known_truth: Truth | None = None

    @property
    def behaviours(self) -> Behaviours:
        """Histories of all rows: slices into one log, strictly earlier seconds."""
        return self.whole.rows.behaviours

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the order of their labels."""
        return self.features.tasks

    @property
    def window(self) -> dict[str, tuple[float, float]]:
        """First and last time of each split, in seconds since 1970."""
        time = self.whole.rows.time
        return {name: (float(time[rows].min()), float(time[rows].max())) for name, rows in self._indices().items()}

    def part(self, split: SplitName) -> Part:
        """The rows of one split, oldest first."""
        return self.whole.take(self._indices()[split])

    def truth(self, split: SplitName) -> dict[str, NDArray[Any]]:
        """What is known of outcomes that did not happen, by name, in the order of `part`; empty where nothing is.

        Only evaluation may ask: a network that has seen any of it has seen the answer. `docs/schema.md` lists what the
        data sets known by name tell.
        """
        if self.known_truth is None:
            return {}
        truth = self.known_truth.take(self._indices()[split])
        return {**truth.rows, **truth.shared}

    def columns(self, split: SplitName) -> Rows:
        """Raw columns and histories of one split."""
        return self.whole.rows.take(self._indices()[split])

    def frame(self, split: SplitName) -> pl.DataFrame:
        """The polars rows of one split, in the order of `part`."""
        return self.rows[self._indices()[split]]

    def training_part(self, sampling: SamplingSection, seed: int) -> Part:
        """The training rows, with negatives dropped at the rate of [sampling].

        Rows keep their order. The same seed keeps the same rows.
        """
        part = self.part("train")
        rates = sampling.rates(self.tasks)
        if all(rate == 1.0 for rate in rates.values()):
            return part
        if not sampling.upstream:
            task = next(task for task, rate in rates.items() if rate < 1.0)
            part = part.take(kept_rows(part.labels[task], rates[task], seed))
        # The rate is a row's own, positives included: both sides of the corrected logit need it.
        return replace(part, negative_rate={task: np.full(len(part), rates[task], np.float32) for task in self.tasks})

    def fit_columns(self) -> FitColumns:
        """What the declaration is fitted on: training rows only, and the item table.

        With treatments, a row of weight 0 is no training row: it may have been kept out as one of other people.
        """
        part = self.part("train")
        rows = part.rows
        if self.features.treatment is not None:
            rows = rows.take(np.flatnonzero(part.weights[self.tasks[0]] != 0).astype(np.int64))
        return FitColumns(rows=rows, item_ids=self.item_ids, item_columns=self.item_columns)

    def _indices(self) -> dict[str, NDArray[np.int64]]:
        return {name: np.flatnonzero(self.split == code).astype(np.int64) for code, name in enumerate(SPLITS)}


def label_columns(rows: pl.DataFrame, columns: Mapping[str, str], tasks: Sequence[str]) -> dict[str, Any]:
    """Label or weight columns by task, (N,) float32 with NaN for null; 1 for a task without a column."""
    return {
        task: rows[columns[task]].cast(pl.Float32).to_numpy().copy()
        if task in columns
        else np.ones(len(rows), dtype=np.float32)
        for task in tasks
    }

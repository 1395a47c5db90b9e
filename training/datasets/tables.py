"""What every loader hands over, and the columns that a declaration needs from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bundle.schema import FeatureSchema, IdFeature, NumberFeature
from training.datasets.cells import Kind
from training.datasets.split import SplitCodes

# Columns of the event log, whatever the file calls them.
EVENT_COLUMNS: Final = ("user", "item", "ts", "type", "value")


@dataclass(frozen=True, slots=True)
class RowLists:
    """Names of the row columns that hold each row's own history as lists."""

    item: str
    time: str
    type: str | None
    value: str | None


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of outcomes that did not happen; evaluation reads it, and nothing else may.

    Attributes:
        rows: by name, arrays (N, ...) of one entry a row.
        shared: by name, arrays that belong to no row, such as the doses at which curves are given.
    """

    rows: Mapping[str, NDArray[Any]]
    shared: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def take(self, rows: NDArray[np.int64]) -> "Truth":
        """The truth of some rows, in the order asked."""
        return Truth({name: values[rows] for name, values in self.rows.items()}, self.shared)


@dataclass(frozen=True, slots=True)
class Tables:
    """A data set before it is tied to a declaration. Ids are text, times float64 seconds, labels float64 or null.

    Attributes:
        name: of the data set.
        rows: one exposure a row, in file order.
        items: one item a row, or None where the rows hold the item columns themselves.
        users: one user a row, or None where the rows hold them.
        events: the log of all behaviours with EVENT_COLUMNS (type and value may be absent), or None.
        lists: the row columns that hold histories, or None.
        split: of the rows, or None to split them as [data.split] says.
        truth: of the rows, where the data set tells it.
        files: table to the name that messages use.
        notes: what was left out or filled in, as counts.
    """

    name: str
    rows: pl.DataFrame
    items: pl.DataFrame | None = None
    users: pl.DataFrame | None = None
    events: pl.DataFrame | None = None
    lists: RowLists | None = None
    split: SplitCodes | None = None
    truth: Truth | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)

    def file(self, table: str) -> str:
        """What messages call a table."""
        return self.files.get(table, f"{self.name} {table}")


def declared_columns(features: FeatureSchema) -> dict[str, dict[str, Kind]]:
    """Feature columns by where they belong: `user` and `item` columns may live in a table of their own.

    The id columns of [ids] are left out: every table has them anyway.
    """
    wanted: dict[str, dict[str, Kind]] = {"user": {}, "item": {}, "row": {}}
    for feature in features.feature:
        if not isinstance(feature, (IdFeature, NumberFeature)) or feature.name in (
            features.ids.item,
            features.ids.user,
        ):
            continue
        kind: Kind = "number" if isinstance(feature, NumberFeature) else "ids" if feature.max_values > 1 else "id"
        place = "item" if features.is_item_column(feature) else "user" if feature.side == "user" else "row"
        wanted[place][feature.name] = kind
    return wanted


def separators(features: FeatureSchema) -> dict[str, str]:
    """What splits the text of each multi-valued column."""
    return {
        feature.name: feature.sep
        for feature in features.feature
        if isinstance(feature, IdFeature) and feature.sep is not None
    }

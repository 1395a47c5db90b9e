"""History features of the rows of a batch, before scaling."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bundle.columns import Rows
from bundle.histories import Filtered, Histories
from bundle.history_stats import Agreement, Tally, row_stats, tally
from bundle.ids import MISSING_ID
from bundle.items import MatchColumn
from bundle.schema import FeatureSchema, HistoryFeature, IdFeature, Where
from bundle.schema_checks import history_features

Float = NDArray[np.float64]


@dataclass(slots=True)
class HistoryNumbers:
    """All history features of U rows x C candidates; what several features need is computed once.

    Attributes:
        item_rows: (U, C) row of each candidate in the item table, -1 if unknown.
        matches: the compared columns of the item table.
    """

    schema: FeatureSchema
    rows: Rows
    histories: Histories
    item_rows: NDArray[np.int64]
    matches: Mapping[str, MatchColumn]
    _of_rows: dict[str, Float] | None = None
    _tallies: dict[tuple[Where | None, str], Tally] = field(default_factory=dict)

    def of(self, feature: HistoryFeature) -> Float:
        """One feature: (U,), with `match` (U, C); NaN where it is missing."""
        if feature.match is None:
            if self._of_rows is None:
                self._of_rows = row_stats(history_features(self.schema, per_candidate=False), self.histories)
            return self._of_rows[feature.name]
        source = self.schema.source_of(feature.match)
        key = (feature.where, source)
        known = self._tallies.get(key)
        if known is None:
            log = self.histories.of(feature.where)
            known = self._tallies[key] = tally(log, self._agreement(source, log))
        return known.stat(feature.stat)

    def _agreement(self, source: str, log: Filtered) -> Agreement:
        """The compared column of candidates and events; a value the rows give goes before the item table's."""
        if source == "item":
            return Agreement(self.rows.items[..., None], log.behaviours.events["item"][:, None])
        column = self.matches[source]
        as_bits = column.bits is not None
        stored = column.values if column.bits is None else column.bits
        wanted = stored[self.item_rows]
        given = self.rows.candidate.get(source)
        if given is not None:
            feature = self.schema.named(source)
            own = candidate_ids(given, feature.max_values if isinstance(feature, IdFeature) else 1)
            keep = own[..., 0] != MISSING_ID
            wanted = np.where(keep, column.bit_sets(own), wanted) if as_bits else np.where(keep[..., None], own, wanted)
        return Agreement(wanted, stored[log.item_rows])


def candidate_ids(column: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """Raw candidate ids (U, C) or (U, C, W) as (U, C, width): the first values are kept, empty slots added."""
    if column.ndim == 2:
        column = column[..., None]
    if column.shape[-1] == width:
        return column
    out = np.full((*column.shape[:-1], width), MISSING_ID, dtype=np.uint64)
    kept = min(width, column.shape[-1])
    out[..., :kept] = column[..., :kept]
    return out

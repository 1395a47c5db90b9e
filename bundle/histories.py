"""The behaviours a batch of rows may see, cut to their time and filtered, each filter computed once."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundle.behaviours import MAX_EVENTS, Behaviours, Events, type_code
from bundle.items import ItemTable, RawItems
from bundle.schema import Where


def passes(where: Where, events: Events) -> NDArray[np.bool_]:
    """Which events (N,) a filter keeps, (N,). An event without a value fails every bound on the value."""
    keep = np.ones(len(events), dtype=np.bool_)
    value = events["value"]
    if where.min_value is not None:
        keep &= value >= where.min_value
    if where.max_value is not None:
        keep &= value <= where.max_value
    if where.types is not None:
        keep &= np.isin(events["type"], np.array([type_code(kind) for kind in where.types], dtype=np.uint32))
    return keep


class Filtered(NamedTuple):
    """Behaviours that pass a filter.

    Attributes:
        behaviours: slices into the filtered log of M events.
        item_rows: (M,) row in the item table of each event, -1 if unknown.
        places: (M,) index of each event in the log before filtering.
    """

    behaviours: Behaviours
    item_rows: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass(slots=True)
class Histories:
    """The behaviours of U rows at their own times.

    Attributes:
        time: (U,) float64 whole seconds.
        visible: strictly before the time and at most the newest `MAX_EVENTS`; what every feature starts from.
    """

    time: NDArray[np.float64]
    visible: Filtered
    _filtered: dict[tuple[Where | None, bool], Filtered] = field(default_factory=dict)

    @classmethod
    def cut(cls, behaviours: Behaviours, time: NDArray[np.float64], items: ItemTable | RawItems) -> "Histories":
        """Cut histories to their rows' times (U,): the point-in-time rule, applied in this one place."""
        visible = behaviours.before(time).newest(MAX_EVENTS)
        return cls(
            np.floor(time), Filtered(visible, items.rows(visible.events["item"]), np.arange(len(visible.events)))
        )

    def of(self, where: Where | None, *, valued: bool = False) -> Filtered:
        """The behaviours that pass `where`; with `valued` only those that have a value."""
        key = (where, valued)
        known = self._filtered.get(key)
        if known is None:
            known = self._filtered[key] = self._filter(where, valued)
        return known

    def _filter(self, where: Where | None, valued: bool) -> Filtered:
        if where is None and not valued:
            return self.visible
        source = self.of(where) if valued else self.visible
        events = source.behaviours.events
        keep = ~np.isnan(events["value"]) if valued else passes(where, events)  # type: ignore[arg-type]  # see above
        if keep.all():
            return source
        return Filtered(source.behaviours.where(keep), source.item_rows[keep], source.places[keep])

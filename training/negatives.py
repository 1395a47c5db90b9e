"""Drawn negatives for the auxiliary loss of DIEN: items that the user has not met before the row's time.

Source: Zhou et al. 2019, arXiv:1809.03672, section 4.2. Differs from it: a hit is drawn again until it is none, and
"met" covers everything stored before the row, not only the newest steps that the network sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

# A user who has met all but one of 1,000 items is still served within about this many draws; beyond it the table has
# nothing left to draw from and the last draw stands.
MAX_DRAWS: Final = 64


@dataclass(frozen=True, slots=True)
class History:
    """Which item rows each training row has behind it.

    Attributes:
        keys: (N,) int64 sorted, ``item row * number of events + place in the log`` of every event of a known item.
        start: (B,) int64, first event of each training row in the log.
        stop: (B,) int64, one past its last.
        events: how long the log is.
    """

    keys: Int64
    start: Int64
    stop: Int64
    events: int

    @classmethod
    def from_log(cls, item_rows: Int64, start: Int64, stop: Int64) -> History:
        """Sort the log once.

        Args:
            item_rows: (N,) item row of each event, -1 where the item is not in the table.
            start: (B,) first event of each row.
            stop: (B,) one past the last.
        """
        places = np.arange(len(item_rows), dtype=np.int64)
        known = item_rows >= 0
        keys = item_rows[known].astype(np.int64) * max(len(item_rows), 1) + places[known]
        keys.sort()
        return cls(keys=keys, start=start.astype(np.int64), stop=stop.astype(np.int64), events=max(len(item_rows), 1))

    def holds(self, rows: Int64, items: Int64) -> NDArray[np.bool_]:
        """Whether each row has met each item, (M,) rows and (M,) item rows to (M,) bool.

        An item's events are neighbours in ``keys`` in the order of the log, so the first one at or after the row's
        start decides: the row has met the item exactly when it lies before the row's stop. What the user did later
        does not count, or the negatives would tell the future.
        """
        if len(self.keys) == 0:
            return np.zeros(len(items), dtype=np.bool_)
        base = items * self.events
        found = np.searchsorted(self.keys, base + self.start[rows])
        inside = found < len(self.keys)
        hit: NDArray[np.bool_] = inside & (self.keys[np.minimum(found, len(self.keys) - 1)] < base + self.stop[rows])
        return hit


@dataclass(frozen=True, slots=True)
class NegativeSampler:
    """Draws item rows uniformly and turns them into the columns that a behaviour of that item would have.

    Attributes:
        history: what each training row has behind it.
        population: (P,) int64 item rows to draw from; those that the vocabulary knows.
        columns: (I, Fb) int64, behaviour id columns of every item row; only ``derived`` ones are read.
        derived: (Fb,) bool, True where a behaviour id column follows from the item.
        streams: (Fb,) int64, the mask column that each behaviour id column goes by.
    """

    history: History
    population: Int64
    columns: Int64
    derived: NDArray[np.bool_]
    streams: Int64

    def __post_init__(self) -> None:
        if len(self.population) == 0:
            raise ValueError("there is no item to draw negatives from: the item table is empty")

    def draw(self, rows: Int64, steps: int, generator: np.random.Generator) -> Int64:
        """Item rows that the rows have not met, (B,) and T to (B, T) int64."""
        owners = np.repeat(rows, steps)
        drawn = self.population[generator.integers(len(self.population), size=len(owners))]
        pending = np.arange(len(owners))
        for _ in range(MAX_DRAWS):
            pending = pending[self.history.holds(owners[pending], drawn[pending])]
            if len(pending) == 0:
                break
            drawn[pending] = self.population[generator.integers(len(self.population), size=len(pending))]
        return drawn.reshape(len(rows), steps)

    def behaviour_ids(
        self,
        rows: Int64,
        behaviour_ids: Int64,
        behaviour_mask: NDArray[np.bool_],
        generator: np.random.Generator,
    ) -> Int64:
        """Negative steps beside the real ones.

        Args:
            rows: (B,) training rows of the batch.
            behaviour_ids: (B, T, Fb) the real steps; columns that do not follow from the item keep their value.
            behaviour_mask: (B, T, S) True where a step is real.
            generator: seeded for this batch.

        Returns:
            (B, T, Fb) int64, 0 where no step is.
        """
        drawn = self.draw(rows, behaviour_ids.shape[1], generator)
        negatives = np.where(self.derived, self.columns[drawn], behaviour_ids)
        return np.where(behaviour_mask[:, :, self.streams], negatives, 0)

"""What the service asks of a behaviour store, and the values that travel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np

from bundle.behaviours import RECORD, Events
from service.receiving import Receiver

Scalar = str | int | float | bool | None
Features = Mapping[str, Scalar | list[Scalar]]


class StoreError(Exception):
    """The store did not answer in time, or not at all."""


@dataclass(frozen=True, slots=True)
class Event:
    """One behaviour to be appended; ``ts`` in whole seconds, ``value`` None where there is none."""

    user_id: str
    item_id: str
    ts: int
    type: str | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """The outcome of a write: events that are new, and events that were there already."""

    accepted: int
    duplicates: int


def no_events() -> Events:
    """A history without behaviours."""
    return np.empty(0, dtype=RECORD)


class UserData(NamedTuple):
    """What the store holds for one user; ``corrupt`` counts values that could not be decoded and were left out.

    A tuple, as ``Reading`` is: one is made for every user of every request, and a frozen dataclass costs three times
    as much.
    """

    behaviours: Events = no_events()
    features: Features = MappingProxyType({})
    corrupt: int = 0


class Reading(NamedTuple):
    """One read: the users in the order asked, and the epoch marker (None: the store has none)."""

    users: tuple[UserData, ...]
    marker: int | None = None


class Packed(NamedTuple):
    """One user as it is stored, not looked at yet; None: there is no such value."""

    sequence: bytes | None
    features: bytes | None


class StoredFeatures(NamedTuple):
    """Features of users as they are stored, not looked at yet, and the epoch marker."""

    values: Sequence[bytes | None]
    marker: int | None = None


def marker_of(stored: object) -> int | None:
    """The epoch marker that a stored value says; None where it says none."""
    return int(stored) if isinstance(stored, bytes) and len(stored) < 20 and stored.isdigit() else None


class BehaviourStore(Protocol):
    """Behaviours and features by user. ``begin`` and ``close`` raise nothing, the others ``StoreError`` alone."""

    def begin(self, user_id: str, receiver: Receiver) -> bool:
        """Ask for one user without waiting.

        Args:
            user_id: Whose.
            receiver: Gets a list of the epoch marker, the behaviours and the features as they are stored, bytes or
                None, or an exception; possibly before this returns.

        Returns:
            False, and nothing was done, where only ``read`` can say: it opens connections.
        """
        ...

    async def read(self, user_ids: Sequence[str]) -> Reading:
        """Behaviours, features and the epoch marker in one round trip."""
        ...

    async def read_features(self, user_ids: Sequence[str]) -> StoredFeatures:
        """Features and the epoch marker in one round trip, for whoever has no use for behaviours."""
        ...

    async def append(self, events: Sequence[Event]) -> Appended:
        """Add behaviours: bounded, in order of time, idempotent for equal events. A failure may leave a part written;
        sending the same events again completes it.
        """
        ...

    async def put_users(self, users: Sequence[tuple[str, Features]]) -> int:
        """Replace the features of users; the number written."""
        ...

    async def delete_user(self, user_id: str) -> bool:
        """Forget a user; False if there was nothing to forget."""
        ...

    async def ensure_marker(self) -> int:
        """The epoch marker, made if the store has none; also the cheapest sign of life."""
        ...

    async def close(self) -> None:
        """Give connections and processes back."""
        ...

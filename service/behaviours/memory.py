"""A store inside the process, for tests and for trying things out; gone when the process ends."""

import time
from collections.abc import Sequence

from bundle.behaviours import Events, pack, unpack
from service.behaviours.base import Appended, Event, Features, Reading, StoredFeatures, no_events
from service.behaviours.codec import decode_users, encode_features, group_events, merge


class MemoryStore:
    """Keeps the same bytes as Redis would, so that both stores decode by the same code.

    Args:
        max_events: Newest behaviours kept for each user.
    """

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self.sequences: dict[str, bytes] = {}
        self.features: dict[str, bytes] = {}
        self._marker = time.time_ns() // 1_000_000

    def begin(self, _user_id: str, _receiver: object) -> bool:
        """See ``BehaviourStore``: everything is here, so there is nothing to wait for."""
        return False

    async def read(self, user_ids: Sequence[str]) -> Reading:
        """See ``BehaviourStore``."""
        sequences = [self.sequences.get(user_id) for user_id in user_ids]
        features = [self.features.get(user_id) for user_id in user_ids]
        return Reading(decode_users(sequences, features, self._max_events), self._marker)

    async def read_features(self, user_ids: Sequence[str]) -> StoredFeatures:
        """See ``BehaviourStore``."""
        return StoredFeatures([self.features.get(user_id) for user_id in user_ids], self._marker)

    async def append(self, events: Sequence[Event]) -> Appended:
        """See ``BehaviourStore``."""
        grouped, duplicates = group_events(events)
        accepted = 0
        for user_id, fresh in grouped.items():
            merged, present = merge(self._stored(user_id), fresh, self._max_events)
            self.sequences[user_id] = pack(merged)
            duplicates += present
            accepted += len(fresh) - present
        return Appended(accepted, duplicates)

    def _stored(self, user_id: str) -> Events:
        data = self.sequences.get(user_id)
        return no_events() if data is None else unpack(data, self._max_events)

    async def put_users(self, users: Sequence[tuple[str, Features]]) -> int:
        """See ``BehaviourStore``."""
        self.features |= {user_id: encode_features(features) for user_id, features in users}
        return len(users)

    async def delete_user(self, user_id: str) -> bool:
        """See ``BehaviourStore``."""
        sequence, features = self.sequences.pop(user_id, None), self.features.pop(user_id, None)
        return sequence is not None or features is not None

    async def ensure_marker(self) -> int:
        """See ``BehaviourStore``."""
        return self._marker

    async def close(self) -> None:
        """Nothing is held."""

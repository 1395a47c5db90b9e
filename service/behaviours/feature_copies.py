"""Features that were read a while ago, kept as they were read: a thousand users are one entry and not a thousand."""

from collections import deque
from collections.abc import Mapping, Sequence

from service.compiled.users import Texts

_Read = tuple[Sequence[str], Sequence[bytes | None]]
_Values = dict[str, bytes | None]
_BYTES_A_USER = 128


class _Copy:
    """The users of one read; by id only once somebody looks for one."""

    def __init__(self, user_ids: Sequence[str], values: Sequence[bytes | None], at: float) -> None:
        # Ids that still stand in a body would keep the whole of it.
        lean = not isinstance(user_ids, Texts) or len(user_ids.body) <= _BYTES_A_USER * len(values)
        self._read: _Read | None = (user_ids if lean else list(user_ids), values)
        self._by_id: _Values = {}
        self.users = len(values)
        self.at = at

    def by_id(self) -> _Values:
        """Values by user."""
        if self._read is not None:
            self._by_id = dict(zip(*self._read, strict=True))
            self._read = None
        return self._by_id


class FeatureCopies:
    """The newest reads, for as long as the store is away.

    Args:
        most_users: Users that are kept, counted once a read; 0: none.
    """

    def __init__(self, most_users: int) -> None:
        self._most_users = most_users
        self._copies: deque[_Copy] = deque()
        self._users = 0

    def remember(self, user_ids: Sequence[str], values: Sequence[bytes | None], now: float) -> None:
        """Keep what was read; the oldest reads make room for it."""
        most = self._most_users
        if most == 0:
            return
        self._copies.append(_Copy(user_ids[-most:], values[-most:], now))
        self._users += self._copies[-1].users
        while self._users > most:
            self._users -= self._copies.popleft().users

    def find(self, user_ids: Sequence[str], oldest: float) -> Mapping[str, bytes | None]:
        """What is kept of users since then, by id: the newest of each, None for one that the store did not know."""
        missing, found = set(user_ids), _Values()
        for copy in reversed(self._copies):
            if copy.at < oldest or not missing:
                break
            known = copy.by_id()
            found |= {user_id: known[user_id] for user_id in missing & known.keys()}
            missing -= known.keys()
        return found

    def forget(self, user_id: str) -> None:
        """Drop everything of a user whose data was deleted."""
        for values in map(_Copy.by_id, self._copies):
            values.pop(user_id, None)

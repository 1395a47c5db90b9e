"""Behaviours in Redis or Valkey: one packed value a user, one round trip a request.

Keys are ``<prefix>:seq:{<user>}`` and ``<prefix>:feat:{<user>}``; the braces keep both of a user in one Cluster slot
and spread the users. ``<prefix>:epoch`` is the marker that tells a wiped store from a new user.
"""

import hashlib
import time
from collections.abc import Sequence
from typing import Any

from bundle.behaviours import FORMAT_BYTE
from service.behaviours.base import Appended, Event, Features, Reading, StoredFeatures, StoreError, marker_of
from service.behaviours.codec import decode_users, encode_features, group_events
from service.behaviours.commands import Argument, Commands, ReplyError
from service.compiled.keys import UserKeys
from service.compiled.users import Texts
from service.receiving import Receiver
from service.settings import StoreSettings

# A merge of two runs that are both oldest first. It starts at the end of the stored one, because almost every event is
# the newest; events of one second keep the order they came in, so an equal event can only stand among its second.
_APPEND = """
local size, form, limit, expiry = 20, ARGV[1], tonumber(ARGV[2]), ARGV[3]
local fresh = ARGV[4]
local stored, damaged = redis.pcall('GET', KEYS[1]), 0
if type(stored) == 'table' then
  redis.call('DEL', KEYS[1])
  stored, damaged = false, 1
elseif stored and (string.sub(stored, 1, 1) ~= form or (#stored - 1) % size ~= 0) then
  stored, damaged = false, 1
end
local old = stored and string.sub(stored, 2) or ''
local function record(data, i) return string.sub(data, i * size + 1, (i + 1) * size) end
local function second(data, i)
  local a, b, c, d = string.byte(data, i * size + 9, i * size + 12)
  return a + b * 256 + c * 65536 + d * 16777216
end
local olds, news = #old / size, #fresh / size
local at, first = olds, second(fresh, 0)
while at > 0 and second(old, at - 1) >= first do at = at - 1 end
local parts = { string.sub(old, 1, at * size) }
local same, now, present = at, -1, 0
for j = 0, news - 1 do
  local ts, row = second(fresh, j), record(fresh, j)
  if ts ~= now then
    local from = at
    while at < olds and second(old, at) < ts do at = at + 1 end
    same, now = at, ts
    while at < olds and second(old, at) == ts do at = at + 1 end
    parts[#parts + 1] = string.sub(old, from * size + 1, at * size)
  end
  local found = false
  for k = same, at - 1 do
    if record(old, k) == row then found = true break end
  end
  if found then present = present + 1 else parts[#parts + 1] = row end
end
if present == news then
  redis.call('EXPIRE', KEYS[1], expiry)
else
  parts[#parts + 1] = string.sub(old, at * size + 1)
  local all = table.concat(parts)
  if #all > limit * size then all = string.sub(all, #all - limit * size + 1) end
  redis.call('SET', KEYS[1], form .. all, 'EX', expiry)
end
return { news - present, present, damaged }
"""
_TEXTS = frozenset({bytes, type(None)})
_APPEND_SHA = hashlib.sha1(_APPEND.encode(), usedforsecurity=False).hexdigest()


class RedisStore:
    """See ``BehaviourStore``.

    Args:
        settings: Prefix, sizes and expiry.
        commands: The connection, single server or Cluster.
    """

    def __init__(self, settings: StoreSettings, commands: Commands) -> None:
        self._settings = settings
        self._commands = commands
        self._expiry = max(1, round(settings.expire_days * 86_400))
        self._marker_key = f"{settings.prefix}:epoch"
        self._sequences, self._features = f"{settings.prefix}:seq:{{", f"{settings.prefix}:feat:{{"
        self.corrupt_on_write = 0

    def sequence_key(self, user_id: str) -> str:
        """The key of a user's behaviours."""
        return f"{self._sequences}{user_id}}}"

    def features_key(self, user_id: str) -> str:
        """The key of a user's features."""
        return f"{self._features}{user_id}}}"

    async def read(self, user_ids: Sequence[str]) -> Reading:
        """See ``BehaviourStore``."""
        keys = [self._marker_key]
        for user_id in user_ids:
            keys += (self.sequence_key(user_id), self.features_key(user_id))
        values = [_bytes(value) for value in await self._commands.mget(keys)]
        users = decode_users(values[1::2], values[2::2], self._settings.max_events)
        return Reading(users, marker_of(values[0]))

    def begin(self, user_id: str, receiver: Receiver) -> bool:
        """See ``BehaviourStore``."""
        keys = (self._marker_key, f"{self._sequences}{user_id}}}", f"{self._features}{user_id}}}")
        return self._commands.begin_mget(receiver, keys)

    async def read_features(self, user_ids: Sequence[str]) -> StoredFeatures:
        """See ``BehaviourStore``."""
        keys: Sequence[str]
        if isinstance(user_ids, Texts):
            keys = UserKeys(self._marker_key, self._features, user_ids)
        else:
            keys = [self._marker_key, *map(self.features_key, user_ids)]
        marker, *values = await self._commands.mget(keys)
        if not _TEXTS.issuperset(map(type, values)):
            values = [_bytes(value) for value in values]
        return StoredFeatures(values, marker_of(marker))

    async def append(self, events: Sequence[Event]) -> Appended:
        """See ``BehaviourStore``."""
        grouped, duplicates = group_events(events)
        form, limit = bytes([FORMAT_BYTE]), self._settings.max_events
        calls: list[tuple[Argument, ...]] = [
            (self.sequence_key(user_id), form, limit, self._expiry, fresh.tobytes())
            for user_id, fresh in grouped.items()
        ]
        accepted = 0
        for reply in await self._evaluate(calls):
            new, present, damaged = (int(number) for number in reply)
            accepted += new
            duplicates += present
            self.corrupt_on_write += damaged
        return Appended(accepted, duplicates)

    async def _evaluate(self, calls: Sequence[tuple[Argument, ...]]) -> list[Any]:
        replies = await self._commands.many([("EVALSHA", _APPEND_SHA, 1, *call) for call in calls])
        # A server forgets scripts when it restarts; appending twice is harmless, equal events are ignored.
        if any(isinstance(reply, ReplyError) and reply.code == "NOSCRIPT" for reply in replies):
            replies = await self._commands.many([("EVAL", _APPEND, 1, *call) for call in calls])
        _raise_errors(replies)
        return replies

    async def put_users(self, users: Sequence[tuple[str, Features]]) -> int:
        """See ``BehaviourStore``."""
        writes: list[tuple[Argument, ...]] = [
            ("SET", self.features_key(user_id), encode_features(features), "EX", self._expiry)
            for user_id, features in users
        ]
        _raise_errors(await self._commands.many(writes))
        return len(users)

    async def delete_user(self, user_id: str) -> bool:
        """See ``BehaviourStore``."""
        replies = await self._commands.many([("DEL", self.sequence_key(user_id), self.features_key(user_id))])
        _raise_errors(replies)
        return int(replies[0]) > 0

    async def ensure_marker(self) -> int:
        """See ``BehaviourStore``."""
        await self._commands.warm()
        now = time.time_ns() // 1_000_000
        replies = await self._commands.many([("SET", self._marker_key, str(now), "NX"), ("GET", self._marker_key)])
        _raise_errors(replies)
        marker = marker_of(replies[1])
        if marker is None:
            raise StoreError("the epoch marker could not be written")
        return marker

    async def close(self) -> None:
        """See ``BehaviourStore``."""
        await self._commands.close()


def _bytes(value: object) -> bytes | None:
    """A reply of another type than text counts as damage, so it becomes a value that no decoder accepts."""
    return value if value is None or isinstance(value, bytes) else b""


def _raise_errors(replies: Sequence[Any]) -> None:
    for reply in replies:
        if isinstance(reply, ReplyError):  # READONLY, OOM, LOADING, NOAUTH, ...
            raise StoreError(f"the store refused a command: {reply.code}") from reply

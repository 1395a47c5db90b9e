"""A user's history for one request: from the store if it answers, else a recent copy, else empty; always said so."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import structlog

from service.behaviours.base import BehaviourStore, Packed, Reading, StoreError, UserData, marker_of
from service.behaviours.breaker import Breaker, State
from service.behaviours.codec import decode_user
from service.behaviours.commands import ReplyError
from service.behaviours.feature_copies import FeatureCopies
from service.metrics import Metrics
from service.receiving import Receiver
from service.settings import StoreSettings

log = structlog.get_logger(__name__)

Source = Literal["request", "store", "cache", "empty"]

STALE_HISTORY = "stale_history"
NO_HISTORY = "no_history"
STORE_WIPED = "store_wiped"
CORRUPT_HISTORY = "corrupt_history"

_WATCH_S = 0.1
_CLOSED: Final = State.CLOSED  # looking a member up takes an enumeration a while


class History(NamedTuple):
    """What a request is scored with, and how it was come by.

    Attributes:
        source: Where it comes from.
        user: Behaviours and stored features; None where nothing was looked up or could be.
        degraded: Reasons why this is less than the store could give.
        lost: The history is unknown rather than empty: the correction for missing histories applies.
        age_ms: Age of a cached copy.
    """

    source: Source
    user: UserData | None = None
    degraded: tuple[str, ...] = ()
    lost: bool = False
    age_ms: int | None = None


class FeatureBlock(NamedTuple):
    """Features of users, not looked at yet.

    Attributes:
        source: Where they come from.
        values: JSON as it is stored; None for a user that nothing is known of.
        degraded: Reasons why this is less than the store could give.
        lost: Of each user, whether the store could give more; None: of nobody.
    """

    source: Source
    values: Sequence[bytes | None]
    degraded: tuple[str, ...] = ()
    lost: Sequence[bool] | None = None


@dataclass(slots=True)
class _Epoch:
    """Remembers the store's marker; another one, or none, means that the data behind it is gone."""

    hold_s: float
    marker: int | None = None
    wiped_at: float | None = field(default=None)
    # As it is stored, and what it says: nearly every reply brings the same.
    stored: tuple[bytes | None, int | None] = (None, None)

    def see_stored(self, text: bytes | None, clock: Callable[[], float]) -> None:
        known, marker = self.stored
        if text != known or marker != self.marker:
            self.stored = text, marker_of(text)
            self.see(self.stored[1], clock())

    def calm(self, clock: Callable[[], float]) -> bool:
        """Whether nothing was wiped a short time ago."""
        if self.wiped_at is None:
            return True
        if self.wiped(clock()):
            return False
        self.wiped_at = None
        return True

    def see(self, marker: int | None, now: float) -> None:
        if self.marker is not None and marker != self.marker:
            self.wiped_at = now
        if marker is not None:
            self.marker = marker

    def wiped(self, now: float) -> bool:
        return self.wiped_at is not None and now - self.wiped_at < self.hold_s


def _failure(reply: Any) -> Exception:
    """What the log says of a reply that is no list of values."""
    if isinstance(reply, StoreError):
        return reply
    if isinstance(reply, ReplyError):
        return StoreError(f"the store refused MGET: {reply.code}")
    return StoreError("the store's reply to MGET is not a list of three values")


class Histories:
    """Reads behind a breaker, with a small memory of what was read.

    Args:
        store: Where behaviours live.
        settings: Breaker, cache and marker settings.
        metrics: Counts latency, errors and the breaker's state.
        clock: Seconds that never go back; a test brings its own.
    """

    def __init__(
        self,
        store: BehaviourStore,
        settings: StoreSettings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._breaker = Breaker(settings.breaker, clock)
        self._epoch = _Epoch(settings.wiped_hold_s)
        self._most_copies = settings.cache_users if settings.cache_ttl_s > 0 else 0
        self._copies: OrderedDict[str, tuple[float, UserData | Packed]] = OrderedDict()
        self._feature_copies = FeatureCopies(self._most_copies)
        self._watcher: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """One word for /readyz: ok, degraded (the breaker is not closed) or wiped."""
        if self._breaker.state is not State.CLOSED:
            return "degraded"
        return "wiped" if self._epoch.wiped(self._clock()) else "ok"

    def begin(self, user_id: str, receiver: Receiver) -> bool:
        """Ask for one user without waiting, where nothing keeps the store from answering.

        Args:
            user_id: Whose history.
            receiver: Gets what ``came`` understands, possibly before this returns.

        Returns:
            False, and nothing was done, where ``read`` is needed.
        """
        epoch = self._epoch
        if self._breaker.state is not _CLOSED or not (epoch.wiped_at is None or epoch.calm(self._clock)):
            return False
        return self.store.begin(user_id, receiver)

    def came(self, reply: Any, seconds: float) -> Packed | None:
        """What the store's reply to ``begin`` holds, None where only ``read`` can say more.

        Args:
            reply: As it was received, an exception included.
            seconds: That it took.
        """
        if type(reply) is not list or len(reply) != 3:
            self._failed(_failure(reply))
            return None
        self._succeeded(seconds)
        marker, sequence, features = reply
        epoch = self._epoch
        epoch.see_stored(marker, self._clock)
        calm = epoch.wiped_at is None or epoch.calm(self._clock)
        return Packed(sequence, features) if calm else None

    def keep(self, user_id: str, found: Packed) -> None:
        """Remember what ``begin`` brought, once it is known to be whole."""
        self._remember(user_id, found, self._clock())

    async def read(self, user_id: str) -> History:
        """The history of one user; never raises for a store that is away."""
        reading = await self._reading((user_id,))
        if reading is None:
            return self._without_store(user_id)
        now = self._clock()
        return self._from_store(user_id, reading.users[0], now, self._epoch.wiped(now))

    async def read_many(self, user_ids: Sequence[str]) -> list[History]:
        """The histories of users, in one round trip; never raises for a store that is away."""
        reading = await self._reading(user_ids)
        if reading is None:
            return [self._without_store(user_id) for user_id in user_ids]
        now = self._clock()
        wiped = self._epoch.wiped(now)
        found = zip(user_ids, reading.users, strict=True)
        return [self._from_store(user_id, user, now, wiped) for user_id, user in found]

    async def read_features(self, user_ids: Sequence[str]) -> FeatureBlock:
        """The features of users as they are stored, in one round trip; never raises for a store that is away."""
        started = time.perf_counter()
        try:
            found = await self.store.read_features(user_ids) if self._may_read() else None
        except StoreError as error:
            self._failed(error)
            found = None
        now = self._clock()
        if found is None:
            return self._kept_features(user_ids, now)
        self._succeeded(time.perf_counter() - started)
        self._epoch.see(found.marker, now)
        self._feature_copies.remember(user_ids, found.values, now)
        if not self._epoch.wiped(now) or None not in found.values:
            return FeatureBlock("store", found.values)
        return FeatureBlock("store", found.values, (STORE_WIPED,), [value is None for value in found.values])

    def _kept_features(self, user_ids: Sequence[str], now: float) -> FeatureBlock:
        kept = self._feature_copies.find(user_ids, now - self._settings.cache_ttl_s)
        known = sum(user_id in kept for user_id in user_ids)
        reasons = [NO_HISTORY] * (known < len(user_ids)) + [STALE_HISTORY] * (known > 0)
        values = [kept.get(user_id) for user_id in user_ids]
        return FeatureBlock("cache" if known else "empty", values, tuple(reasons), [True] * len(user_ids))

    async def _reading(self, user_ids: Sequence[str]) -> Reading | None:
        if not self._may_read():
            return None
        started = time.perf_counter()
        try:
            reading = await self.store.read(user_ids)
        except StoreError as error:
            self._failed(error)
            return None
        self._succeeded(time.perf_counter() - started)
        self._epoch.see(reading.marker, self._clock())
        return reading

    def _may_read(self) -> bool:
        # The probe of an open breaker is the watcher's, which has more patience than a request; requests probe only
        # where nobody watches.
        if self._watcher is None:
            return self._breaker.allow()
        return self._breaker.state is State.CLOSED

    def _from_store(self, user_id: str, user: UserData, now: float, wiped: bool) -> History:
        if not user.corrupt and not wiped:
            self._remember(user_id, user, now)
            return History("store", user)
        reasons: list[str] = []
        if user.corrupt:
            self._metrics.corrupt.inc(user.corrupt)
            reasons.append(CORRUPT_HISTORY)
        else:
            self._remember(user_id, user, now)
        empty = len(user.behaviours) == 0
        if empty and wiped:
            reasons.append(STORE_WIPED)
        return History("store", user, tuple(reasons), lost=bool(reasons) and empty)

    def _without_store(self, user_id: str) -> History:
        copy = self._copies.get(user_id)
        if copy is not None:
            age = self._clock() - copy[0]
            if age <= self._settings.cache_ttl_s:
                return History("cache", self._unpacked(copy[1]), (STALE_HISTORY,), age_ms=round(age * 1e3))
            del self._copies[user_id]
        return History("empty", None, (NO_HISTORY,), lost=True)

    def _unpacked(self, copy: UserData | Packed) -> UserData:
        if isinstance(copy, UserData):
            return copy
        return decode_user(copy.sequence, copy.features, self._settings.max_events)

    def _remember(self, user_id: str, user: UserData | Packed, now: float) -> None:
        if self._most_copies == 0:
            return
        copies = self._copies
        if user_id in copies:
            copies.move_to_end(user_id)
        copies[user_id] = (now, user)
        if len(copies) > self._most_copies:
            copies.popitem(last=False)

    def forget(self, user_id: str) -> None:
        """Drop the copy of a user whose data was deleted."""
        self._copies.pop(user_id, None)
        self._feature_copies.forget(user_id)

    async def watch(self) -> None:
        """Find out for ourselves when the store comes back, so that no request has to be the probe."""
        while True:
            try:
                await self.probe()
            except Exception as error:
                log.exception("store_watch_failed")
                self._failed(error)
            await asyncio.sleep(_WATCH_S)

    async def probe(self) -> None:
        """One look at the epoch marker, if the breaker allows a call."""
        if not self._breaker.allow():
            return
        try:
            marker = await self.store.ensure_marker()
        except StoreError as error:
            self._failed(error)
        else:
            self._succeeded(None)
            self._epoch.see(marker, self._clock())

    def start(self) -> None:
        """Begin to watch; needs a running event loop."""
        self._watcher = asyncio.get_running_loop().create_task(self.watch(), name="store-watch")

    async def close(self) -> None:
        """Stop watching and close the store."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
        await self.store.close()

    def _succeeded(self, seconds: float | None) -> None:
        away = self._breaker.state is not _CLOSED
        self._breaker.success()
        if seconds is not None:
            self._metrics.store_seconds.observe(seconds)
        if away:
            log.info("store_back")
            self._metrics.breaker.set(self._breaker.state.value)

    def _failed(self, error: Exception) -> None:
        before = self._breaker.state
        self._breaker.failure()
        if self._breaker.state is State.OPEN and before is not State.OPEN:
            log.warning("store_away", cause=str(error), probe=before is State.HALF_OPEN)
        self._metrics.store_errors.inc()
        self._metrics.breaker.set(self._breaker.state.value)

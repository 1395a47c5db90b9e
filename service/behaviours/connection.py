"""One connection to a Redis or Valkey server that all requests share.

Commands are written as they come and their replies come back in the same order, so each command takes a place in a
queue and each reply goes to the first place. A command that ran out of time gives up its caller but keeps its place: a
reply that comes later ends there and reaches nobody else.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from service.behaviours.address import Address
from service.behaviours.base import StoreError
from service.behaviours.commands import CLIENT_NAME, PATIENT_S, Argument, ReplyError
from service.behaviours.patience import LATE, TURNS
from service.receiving import Receiver

_MOST_PLACES = 1024
_EARLY_S = 1e-3  # uvloop's timers count whole milliseconds and round
_INCOMPLETE = object()


def pack(words: Sequence[Argument]) -> bytes:
    """One command as it goes over the wire."""
    # hiredis' own type names a tuple of one word
    packed: bytes = hiredis.pack_command(cast(Any, tuple(words)))
    return packed


class _Place:
    """Where the reply of one command, or of several sent together, goes; times in seconds of ``time.monotonic``."""

    __slots__ = ("budget_s", "deadline", "extended", "receiver", "replies", "wanted")

    def __init__(self, receiver: Receiver, budget_s: float, wanted: int | None) -> None:
        self.receiver = receiver
        self.budget_s = budget_s
        self.deadline = time.monotonic() + budget_s
        self.extended = False
        self.wanted = wanted
        self.replies: list[Any] = []


class Connection(asyncio.Protocol):
    """A pipelined connection; ``open_connection`` makes one. Every failure reaches the callers as a ``StoreError``.

    Args:
        retired: Called once, when new commands must go to another connection.
    """

    def __init__(self, retired: Callable[["Connection"], object]) -> None:
        self.usable = False
        self._retired = retired
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader(replyError=ReplyError, notEnoughData=_INCOMPLETE)
        self._places: deque[_Place] = deque()
        self._timer: asyncio.Handle | None = None
        self._wakes_at = 0.0
        self._heard = False

    def send(self, packed: bytes, seconds: float) -> asyncio.Future[Any]:
        """Write one command; the future brings its reply, a ``ReplyError`` if that is an error.

        Raises:
            StoreError: The connection is gone, or too many commands wait for their replies.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send_for(future, packed, seconds)
        return future

    def send_together(self, packed: Sequence[bytes], seconds: float) -> asyncio.Future[list[Any]]:
        """Write several commands at once; the future brings all their replies. Raises as ``send``."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self.send_for(future, b"".join(packed), seconds, len(packed))
        return future

    def send_for(self, receiver: Receiver, packed: bytes, seconds: float, wanted: int | None = None) -> None:
        """Write one command, or ``wanted`` of them, for somebody who waits; it may fail before this returns.

        Raises:
            StoreError: See ``send``.
        """
        if not self.usable or self._transport is None:
            raise StoreError("the connection to the store is gone")
        if len(self._places) >= _MOST_PLACES:
            raise StoreError(f"{_MOST_PLACES} commands wait for the store already")
        place = _Place(receiver, seconds, wanted)
        self._places.append(place)
        if self._timer is None or place.deadline < self._wakes_at:
            self._wake_at(place.deadline)
        try:
            self._transport.write(packed)
        except RuntimeError:  # uvloop's word for a connection that was reset a moment ago
            self.abort("the store's connection was reset")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        # uvloop's transports do not inherit from asyncio.Transport
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._heard = True
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _INCOMPLETE:
                self._deliver(reply)
        except hiredis.HiredisError:
            self.abort("the store's reply is not in its protocol")

    def _deliver(self, reply: Any) -> None:
        if not self._places:
            self.abort("the store sent a reply that nobody asked for")
            return
        place = self._places[0]
        if place.wanted is not None:
            place.replies.append(reply)
            if len(place.replies) < place.wanted:
                return
            reply = place.replies
        self._places.popleft()
        if not place.receiver.done():  # it is where the caller was cancelled or ran out of time
            place.receiver.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self.abort("the store closed the connection" if exc is None else f"the store failed: {type(exc).__name__}")

    def abort(self, why: str) -> None:
        """Close at once; whoever waits is told why."""
        self._retire()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        while self._places:
            receiver = self._places.popleft().receiver
            if not receiver.done():
                receiver.set_exception(StoreError(why))

    def _retire(self) -> None:
        if self.usable:
            self.usable = False
            self._retired(self)

    def _wake_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._wake)

    def _wake(self) -> None:
        self._heard = False
        self._look(TURNS)

    def _look(self, turns: int) -> None:
        """A deadline has come. A busy loop sees the timer before a reply that is in the socket already: as long as
        something is read, and a few turns more, nobody is given up.
        """
        if self._heard:
            self._heard, turns = False, TURNS
        overdue = self._overdue() if self._places else False
        if overdue and turns:
            self._timer = self._loop.call_soon(self._look, turns - 1)
            return
        self._timer = None
        if overdue:
            self._give_up()
        waiting = [place.deadline for place in self._places if not place.receiver.done()]
        if waiting:
            self._wake_at(min(waiting))
        elif not self.usable:
            self.abort("the store did not answer in time")

    def _overdue(self) -> bool:
        now = time.monotonic()
        found = False
        for place in self._places:
            if place.receiver.done() or place.deadline > now + _EARLY_S:
                continue
            if not place.extended and now > place.deadline + (LATE - 1) * place.budget_s:
                # The process got no core for a while: that is not the store's fault.
                place.extended, place.deadline = True, now + place.budget_s
            else:
                found = True
        return found

    def _give_up(self) -> None:
        """Tell the callers whose time is over. New commands go to another connection: this one may be dead or dumb,
        and only waits for the replies that others are still owed.
        """
        self._retire()
        now = time.monotonic()
        for place in self._places:
            if not place.receiver.done() and place.deadline <= now + _EARLY_S:
                sentence = f"the store's reply took longer than {place.budget_s * 1e3:.1f} ms"
                place.receiver.set_exception(StoreError(sentence))


async def open_connection(address: Address, retired: Callable[[Connection], object]) -> Connection:
    """Connect and introduce ourselves: AUTH, SELECT, CLIENT SETNAME.

    The older protocol (RESP2) is spoken on purpose: nothing we ask for is told apart better by the newer one, and it
    has no messages that nobody asked for.

    Raises:
        StoreError: The server refuses the password or the database, or does not answer.
        OSError: It cannot be reached.
    """
    loop = asyncio.get_running_loop()
    if address.path is not None:
        _, connection = await loop.create_unix_connection(lambda: Connection(retired), address.path)
    else:
        _, connection = await loop.create_connection(lambda: Connection(retired), address.host, address.port)
    greeting = _greeting(address)
    try:
        replies = await connection.send_together([pack(words) for words in greeting], PATIENT_S)
        # A server that does not let us set a name serves us all the same.
        for words, reply in zip(greeting[:-1], replies[:-1], strict=True):
            if isinstance(reply, ReplyError):
                raise StoreError(f"the store refused {words[0]!s}: {reply.code}")
    except BaseException:
        connection.abort("the connection was not finished")
        raise
    return connection


def _greeting(address: Address) -> list[tuple[Argument, ...]]:
    commands: list[tuple[Argument, ...]] = []
    if address.password is not None:
        user = () if address.username is None else (address.username,)
        commands.append(("AUTH", *user, address.password))
    if address.db:
        commands.append(("SELECT", address.db))
    commands.append(("CLIENT", "SETNAME", CLIENT_NAME))
    return commands

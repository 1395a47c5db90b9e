"""Commands over pipelined connections of our own: one for requests' reads, one for large reads, one for writes.

A service process asks its store for one user a request, thousands of times a second. A connection for each of those
costs more than the command (docs/adr/0015), so they share one; what takes long has a connection of its own, so that no
request waits behind it.
"""

import asyncio
import math
import time
import weakref
from collections.abc import Sequence
from typing import Any

from service.behaviours.address import Address
from service.behaviours.base import StoreError
from service.behaviours.commands import PATIENT_S, Argument, ReplyError
from service.behaviours.connection import Connection, open_connection, pack
from service.behaviours.patience import settle
from service.compiled.keys import UserKeys
from service.receiving import Receiver
from service.settings import StoreSettings

_SMALL_KEYS = 64  # a read of up to this many keys does not hold up another one
_LASTED_S = 1.0
# UnicodeError: a host name that cannot be one. RuntimeError: see Connection._write.
_UNREACHABLE = (OSError, RuntimeError, UnicodeError)


class Line:
    """A connection that is opened when it is needed, and again when it is gone.

    Args:
        address: The server.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        # Also those that only wait for their last replies, which nothing else keeps.
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._opened_at = -math.inf
        self._closing = False
        self._opening: asyncio.Task[Connection] | None = None
        self.connection: Connection | None = None

    async def open(self, seconds: float) -> Connection:
        """The connection; all who wait for it wait for the same one, and it is finished although nobody waits.

        Raises:
            StoreError: The server cannot be reached, or not in this time.
        """
        if self.connection is not None and self.connection.usable:
            return self.connection
        opening = self._begin()
        await settle(opening, seconds)
        if not opening.done():
            raise StoreError(f"connecting to the store takes longer than {seconds * 1e3:.1f} ms")
        if opening.cancelled():
            raise StoreError("the store is being closed")
        try:
            return opening.result()
        except _UNREACHABLE as error:
            raise StoreError(f"no connection to the store: {type(error).__name__}") from error

    def _begin(self) -> asyncio.Task[Connection]:
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        return self._opening

    async def _connect(self) -> Connection:
        async with asyncio.timeout(PATIENT_S):
            return await open_connection(self._address, self._retired)

    def _opened(self, opening: asyncio.Task[Connection]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self.connection = opening.result()
            self._connections.add(self.connection)
            self._opened_at = time.monotonic()

    def _retired(self, connection: Connection) -> None:
        """Begin to open the next one before a request needs it, unless this one did not last either."""
        lasted = time.monotonic() - self._opened_at > _LASTED_S
        if connection is self.connection and lasted and not self._closing:
            self._begin()

    async def close(self) -> None:
        """Close the connection, also one that is being opened."""
        self._closing = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        for connection in list(self._connections):
            connection.abort("the store is being closed")
        await asyncio.sleep(0)  # the transports say goodbye in the next turn


class PipelinedCommands:
    """See ``Commands``.

    Args:
        settings: Time-outs.
        address: The server.
    """

    def __init__(self, settings: StoreSettings, address: Address) -> None:
        self._connect_s = settings.connect_timeout_ms / 1e3
        self._read_s = settings.timeout_ms / 1e3
        self._write_s = settings.write_timeout_ms / 1e3
        self._key_s = settings.timeout_us_per_key / 1e6
        self._reads, self._large_reads, self._writes = Line(address), Line(address), Line(address)

    async def mget(self, keys: Sequence[str]) -> list[Any]:
        """See ``Commands``."""
        line = self._reads if len(keys) <= _SMALL_KEYS else self._large_reads
        connection = line.connection
        if connection is None or not connection.usable:
            connection = await line.open(self._connect_s)
        packed = keys.command("MGET") if isinstance(keys, UserKeys) else pack(("MGET", *keys))
        values = await connection.send(packed, self._read_s + len(keys) * self._key_s)
        if isinstance(values, list) and len(values) == len(keys):
            return values
        if isinstance(values, ReplyError):
            raise StoreError(f"the store refused MGET: {values.code}") from values
        raise StoreError("the store's reply to MGET is not a list of as many values as keys")

    def begin_mget(self, receiver: Receiver, keys: Sequence[str]) -> bool:
        """See ``Commands``."""
        connection = self._reads.connection
        if connection is None or not connection.usable:
            return False
        try:
            connection.send_for(receiver, pack(("MGET", *keys)), self._read_s + len(keys) * self._key_s)
        except StoreError:
            return False
        return True

    async def many(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """See ``Commands``."""
        if not commands:
            return []
        connection = await self._writes.open(self._connect_s)
        packed = [pack(command) for command in commands]
        return await connection.send_together(packed, self._write_s + len(commands) * self._key_s)

    async def warm(self) -> None:
        """See ``Commands``."""
        # Nobody waits for these: a busy event loop may need longer for a new connection than a request has.
        await asyncio.gather(self._reads.open(PATIENT_S), self._writes.open(PATIENT_S))

    async def close(self) -> None:
        """See ``Commands``."""
        for line in (self._reads, self._large_reads, self._writes):
            await line.close()

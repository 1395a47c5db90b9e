"""Commands through redis-py's pool, for what it alone speaks: TLS, Sentinel, and options of its own in the address.

redis-py's retries and time-outs are switched off: its defaults keep a request waiting for seconds on a refused port.
Connections are taken from its pool and used directly, because only so connecting and a command get separate budgets.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import (
    AbstractConnection,
    BlockingConnectionPool,
    ConnectionPool,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from service.behaviours.base import StoreError
from service.behaviours.commands import CLIENT_NAME, PATIENT_S, Argument, ReplyError
from service.behaviours.patience import finish_within, settle
from service.errors import SettingsError
from service.receiving import Receiver
from service.settings import StoreSettings

# RuntimeError: uvloop raises it for a connection that was reset a moment ago.
FAILURES = (RedisError, OSError, EOFError, RuntimeError)
_WARM = 8  # connections opened before requests come back to a store that was away


def reply_error(error: ResponseError) -> ReplyError:
    """The server's sentence as it came: redis-py takes the code off it."""
    code = getattr(error, "status_code", None)
    return ReplyError(f"{code} {error}" if code else str(error))


class PoolCommands:
    """Commands over a bounded pool of connections to one server (or to a Sentinel's current primary).

    Args:
        settings: URL, time-outs and the size of the pool.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._pool = _make_pool(settings)
        hops = 2 if isinstance(self._pool, SentinelConnectionPool) else 1  # a Sentinel is asked before the primary
        self._cold = False
        self._opening: set[asyncio.Future[Any]] = set()
        self._connect_s = (settings.pool_wait_ms + hops * settings.connect_timeout_ms) / 1e3

    async def mget(self, keys: Sequence[str]) -> list[Any]:
        """See ``Commands``."""
        settings = self._settings
        seconds = settings.timeout_ms / 1e3 + len(keys) * settings.timeout_us_per_key / 1e6
        (values,) = await self._run([("MGET", *keys)], seconds)
        if not isinstance(values, list) or len(values) != len(keys):
            raise StoreError("the store's reply to MGET is not a list of as many values as keys")
        return values

    def begin_mget(self, _receiver: Receiver, _keys: Sequence[str]) -> bool:
        """See ``Commands``: the library has coroutines alone."""
        return False

    async def many(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """See ``Commands``."""
        settings = self._settings
        return await self._run(
            commands, settings.write_timeout_ms / 1e3 + len(commands) * settings.timeout_us_per_key / 1e6
        )

    async def warm(self) -> None:
        """See ``Commands``."""
        if not self._cold:
            return
        # Idle connections from before the failure are most likely dead too, and each would cost a probe to find out.
        await self._pool.disconnect(inuse_connections=False)
        # Nobody waits for these: a busy event loop may need longer for a new connection than a request has.
        wanted = min(_WARM, self._settings.pool_size)
        opened = await asyncio.gather(*(self._acquire(PATIENT_S) for _ in range(wanted)), return_exceptions=True)
        for connection in opened:
            if not isinstance(connection, BaseException):
                await self._pool.release(connection)
        failed = [error for error in opened if isinstance(error, BaseException)]
        if len(failed) == wanted:
            raise failed[0]
        self._cold = False

    async def _acquire(self, seconds: float) -> AbstractConnection:
        """A connection from the pool; one that takes longer is still finished, and waits in the pool for the next."""
        opening = asyncio.ensure_future(self._pool.get_connection())
        try:
            await settle(opening, seconds)
            if opening.done():
                connection: AbstractConnection = opening.result()
                return connection
        except FAILURES as error:
            self._cold = True
            raise StoreError(f"no connection to the store: {type(error).__name__}") from error
        finally:
            if not opening.done():
                self._opening.add(opening)
                opening.add_done_callback(self._opened_late)
        self._cold = True
        raise StoreError(f"connecting to the store takes longer than {seconds * 1e3:.1f} ms")

    def _opened_late(self, opening: asyncio.Future[AbstractConnection]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and opening.exception() is None:
            giving = asyncio.ensure_future(self._pool.release(opening.result()))
            self._opening.add(giving)
            giving.add_done_callback(self._opening.discard)

    async def _run(self, commands: Sequence[tuple[Argument, ...]], seconds: float) -> list[Any]:
        connection = await self._acquire(self._connect_s)
        complete = False
        try:
            replies = await finish_within(_exchange(connection, commands), seconds, "the store's reply")
            complete = True
        except StoreError:
            self._cold = True
            raise
        except FAILURES as error:
            self._cold = True
            raise StoreError(f"the store failed: {type(error).__name__}") from error
        finally:
            if not complete:  # a reply may still be under way: the connection must not be used again
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)
        return replies

    async def close(self) -> None:
        """See ``Commands``."""
        for opening in list(self._opening):
            opening.cancel()
        if self._opening:
            await asyncio.wait(self._opening)
        await self._pool.disconnect()
        if isinstance(self._pool, SentinelConnectionPool):
            for sentinel in self._pool.sentinel_manager.sentinels:
                await sentinel.aclose()


async def _exchange(connection: AbstractConnection, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(reply_error(error))
    return replies


def _make_pool(settings: StoreSettings) -> ConnectionPool:
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        # What a request waits is bounded by _acquire and finish_within; these two end what nobody waits for any more.
        "socket_connect_timeout": PATIENT_S,
        "socket_timeout": max(PATIENT_S, 2 * settings.write_timeout_ms / 1e3),
        "client_name": CLIENT_NAME,
        "protocol": 3,
        "driver_info": None,
    }
    if settings.url.startswith("redis+sentinel://"):
        return _sentinel_pool(settings, options)
    try:
        parsed: dict[str, Any] = dict(parse_url(settings.url))
    except ValueError as error:
        raise SettingsError(f"store.url cannot be used: {error}") from error
    return BlockingConnectionPool(
        max_connections=settings.pool_size, timeout=settings.pool_wait_ms / 1e3, **(options | parsed)
    )


def _sentinel_pool(settings: StoreSettings, options: dict[str, Any]) -> ConnectionPool:
    """``redis+sentinel://user:password@host:port,host:port/service/db``."""
    parts = urlsplit(settings.url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    path = [part for part in parts.path.split("/") if part]
    addresses = [_address(host) for host in hosts.split(",") if host]
    if not addresses or not path:
        raise SettingsError("store.url needs the form redis+sentinel://host:port,host:port/service")
    username, _, password = credentials.partition(":")
    if password:
        options |= {"username": unquote(username) or None, "password": unquote(password)}
    options["db"] = int(path[1]) if len(path) > 1 else 0
    connect_s = settings.connect_timeout_ms / 1e3
    sentinel = Sentinel(
        addresses,
        sentinel_kwargs={
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": connect_s,
            "socket_timeout": connect_s,
        },
    )
    return SentinelConnectionPool(path[0], sentinel, max_connections=settings.pool_size, **options)


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":")
    if not name or not port.isdigit():
        raise SettingsError(f"store.url: {host!r} is not host:port")
    return name.strip("[]"), int(port)

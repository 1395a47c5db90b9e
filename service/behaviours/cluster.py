"""The same commands on a Redis Cluster: one MGET for each slot, every write to its own node."""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from service.behaviours.base import StoreError
from service.behaviours.commands import CLIENT_NAME, Argument
from service.behaviours.patience import finish_within
from service.behaviours.pooled import FAILURES, reply_error
from service.receiving import Receiver
from service.settings import StoreSettings


class ClusterCommands:
    """See ``Commands``.

    Args:
        settings: ``redis+cluster://host:port`` (``rediss+cluster`` for TLS), time-outs and the pool's size.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        parts = urlsplit(settings.url)
        self._client = RedisCluster.from_url(
            urlunsplit(parts._replace(scheme=parts.scheme.removesuffix("+cluster"))),
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=settings.connect_timeout_ms / 1e3,
            socket_timeout=10.0,
            max_connections=settings.pool_size,
            client_name=CLIENT_NAME,
            protocol=3,
        )

    async def mget(self, keys: Sequence[str]) -> list[Any]:
        """See ``Commands``."""
        settings = self._settings
        seconds = (settings.connect_timeout_ms + settings.timeout_ms) / 1e3
        seconds += len(keys) * settings.timeout_us_per_key / 1e6
        values = await self._guarded(self._client.mget_nonatomic(list(keys)), seconds)
        return list(values)

    def begin_mget(self, _receiver: Receiver, _keys: Sequence[str]) -> bool:
        """See ``Commands``: the library has coroutines alone."""
        return False

    async def many(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """See ``Commands``."""
        seconds = (self._settings.connect_timeout_ms + self._settings.write_timeout_ms) / 1e3
        return list(await self._guarded(asyncio.gather(*(self._one(command) for command in commands)), seconds))

    async def _one(self, command: tuple[Argument, ...]) -> Any:
        try:
            return await self._client.execute_command(*command)
        except ResponseError as error:
            return reply_error(error)

    async def _guarded(self, work: Any, seconds: float) -> Any:
        try:
            return await finish_within(work, seconds, "the cluster's reply")
        except FAILURES as error:
            raise StoreError(f"the cluster failed: {type(error).__name__}") from error

    async def warm(self) -> None:
        """The Cluster client keeps its own pools for each node."""

    async def close(self) -> None:
        """See ``Commands``."""
        await self._client.aclose()

"""Behaviours and user features by user: in Redis or Valkey, in a private server, or in memory."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.behaviours.address import Address, plain_address
from service.behaviours.base import Appended, BehaviourStore, Event, StoreError, UserData
from service.behaviours.commands import Commands
from service.behaviours.embedded import EmbeddedServer
from service.behaviours.memory import MemoryStore
from service.behaviours.pipelined import PipelinedCommands
from service.behaviours.redis import RedisStore
from service.settings import StoreSettings

__all__ = [
    "Appended",
    "BehaviourStore",
    "EmbeddedServer",
    "Event",
    "StoreError",
    "UserData",
    "embedded_server",
    "open_store",
]


def open_store(settings: StoreSettings) -> BehaviourStore:
    """The store that ``store.url`` names. Connections are made when they are needed; embedded:// starts its server.

    Raises:
        SettingsError: The address cannot be used, or the embedded server does not start.
    """
    scheme = urlsplit(settings.url).scheme
    if scheme == "memory":
        return MemoryStore(settings.max_events)
    if scheme == "embedded":
        return _EmbeddedStore(settings, embedded_server(settings))
    return RedisStore(settings, _commands(settings, scheme))


def _commands(settings: StoreSettings, scheme: str) -> Commands:
    address = plain_address(settings.url)
    if address is not None:
        return PipelinedCommands(settings, address)
    # Imported here: the library takes longer to load than the rest of the package, and few addresses need it.
    if scheme.endswith("+cluster"):
        from service.behaviours.cluster import ClusterCommands

        return ClusterCommands(settings)
    from service.behaviours.pooled import PoolCommands

    return PoolCommands(settings)


def embedded_server(settings: StoreSettings) -> EmbeddedServer:
    """Start the server of an ``embedded://`` URL; ``embedded:///folder`` keeps its data in that folder."""
    parts = urlsplit(settings.url)
    path = unquote(parts.netloc + parts.path)
    return EmbeddedServer(Path(path) if path else None, settings.maxmemory_mb)


class _EmbeddedStore(RedisStore):
    """A store that owns its server."""

    def __init__(self, settings: StoreSettings, server: EmbeddedServer) -> None:
        self.server = server
        super().__init__(settings, PipelinedCommands(settings, Address(path=str(server.socket_path))))

    async def close(self) -> None:
        """Close the connections, then end the server."""
        await super().close()
        self.server.stop()

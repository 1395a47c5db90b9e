"""What the store needs from a client of Redis, whichever one it is."""

from collections.abc import Sequence
from typing import Any, Protocol

from service.receiving import Receiver

Argument = str | bytes | int
CLIENT_NAME = "ctrlift"
PATIENT_S = 0.5  # for connections that no request waits for


class ReplyError(Exception):
    """The server answered a command with an error; the sentence begins with its code (NOSCRIPT, READONLY, OOM, ...)."""

    @property
    def code(self) -> str:
        """The error's first word."""
        return str(self).partition(" ")[0]


class Commands(Protocol):
    """The few commands the store needs; every failure is a ``StoreError``."""

    async def mget(self, keys: Sequence[str]) -> list[Any]:
        """Values of all keys in one round trip (in Cluster one for each slot)."""
        ...

    def begin_mget(self, receiver: Receiver, keys: Sequence[str]) -> bool:
        """Ask for a few values and let the receiver have them; False, and nothing done, where ``mget`` is needed.

        The receiver gets the list of values or a ``StoreError``, the latter possibly before this returns.
        """
        ...

    async def many(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Several commands sent together; a reply that is an error stands in the list as a ``ReplyError``."""
        ...

    async def warm(self) -> None:
        """After a failure, open connections again before requests need them."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...

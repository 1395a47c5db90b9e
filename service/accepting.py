"""Taking connections from a listening socket that several processes share, so that each gets its part.

A listening socket for each process (SO_REUSEPORT) lets the kernel choose by a hash of the addresses: of eight clients
one worker of two may get all. Clients keep connections open for hours, so what is uneven stays uneven.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

# How long a connection is left to the worker whose turn it is; a busy or hung one must not make it wait for longer.
PATIENCE_S: Final = 0.01
_OUT_OF_DESCRIPTORS_S: Final = 0.1


class Acceptor:
    """Accepts one connection at a time, where it is this worker's turn, and gives it a protocol.

    Args:
        listening: The shared socket.
        is_next: Whether this worker should take the next connection; told whether the connection has waited.
        protocol: Makes the protocol of a connection.
    """

    def __init__(
        self, listening: socket.socket, is_next: Callable[[bool], bool], protocol: Callable[[], asyncio.Protocol]
    ) -> None:
        self._listening = listening
        self._is_next = is_next
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.TimerHandle | None = None
        self.opening: set[asyncio.Task[object]] = set()
        listening.setblocking(False)
        self._loop.add_reader(listening.fileno(), self._on_connection)

    def close(self) -> None:
        """Take no more connections. Once all processes have closed the socket, new ones are refused."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()

    def _on_connection(self, waited: bool = False) -> None:
        if self._is_next(waited):
            self._accept()
        else:
            self._pause(PATIENCE_S)

    def _pause(self, seconds: float) -> None:
        # The socket stays readable until somebody accepts: watching it meanwhile would spin.
        self._loop.remove_reader(self._listening.fileno())
        self._waiting = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._waiting = None
        self._loop.add_reader(self._listening.fileno(), self._on_connection)
        self._on_connection(waited=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client has gone
        except OSError as error:
            log.warning("accept_failed", error=error.strerror)
            self._pause(_OUT_OF_DESCRIPTORS_S)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._open(connection))
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()

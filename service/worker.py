"""One of several worker processes: the application on the connections that it takes from the shared socket."""

import asyncio
import signal
import socket
from collections.abc import Callable
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI

from service import logs
from service.accepting import Acceptor
from service.app import create_app
from service.board import Phase, Place
from service.metrics import share_between_processes
from service.serving import Server, server_config
from service.settings import Settings

log = structlog.get_logger(__name__)


def run_worker(settings: Settings, listening: socket.socket, metrics: str, place: Place, parent: int) -> int:
    """Serve until SIGTERM or the parent's end; requests in flight are finished first.

    Args:
        settings: All settings.
        listening: The socket that all workers share.
        metrics: Folder of the numbers that all workers add up.
        place: Among the workers.
        parent: Descriptor that becomes readable when the parent is gone.

    Returns:
        The exit code.
    """
    share_between_processes(metrics, str(place.number))
    app = create_app(settings)
    logs.configure(settings.log, worker=place.number)
    app.state.place = place
    server = WorkerServer(app, server_config(settings, app), listening, place, parent)
    server.run()
    return 0 if server.started else 1


class WorkerServer(Server):
    """A server that takes its turn at a shared socket, gives signs of life, and ends with its parent.

    Args:
        app: The application.
        config: uvicorn's.
        listening: The shared socket.
        place: Among the workers.
        parent: Descriptor that becomes readable when the parent is gone.
    """

    def __init__(
        self, app: FastAPI, config: uvicorn.Config, listening: socket.socket, place: Place, parent: int
    ) -> None:
        super().__init__(config)
        self._app = app
        self._listening = listening
        self._place = place
        self._parent = parent
        self._acceptor: Acceptor | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then take connections."""
        await super().startup(sockets=[])
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = partial(make, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        self._acceptor = Acceptor(self._listening, self._is_next, protocol)
        asyncio.get_running_loop().add_reader(self._parent, self._orphaned)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        self._place.beat(self._phase, self._connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections and let the others finish."""
        if self._acceptor is not None:
            self._acceptor.close()
        await super().shutdown(sockets=sockets)

    @property
    def _phase(self) -> Phase:
        return Phase.READY if self._app.state.container.registry.scanned else Phase.SERVING

    @property
    def _connections(self) -> int:
        opening = len(self._acceptor.opening) if self._acceptor is not None else 0
        return len(self.server_state.connections) + opening

    def _is_next(self, waited: bool) -> bool:
        return self._place.is_next(self._phase, self._connections, waited=waited)

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent)
        log.error("parent_gone")
        self.handle_exit(signal.SIGTERM, None)

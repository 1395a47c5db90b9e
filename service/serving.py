"""uvicorn with our settings, for one process."""

import asyncio
import signal
from types import FrameType
from typing import Final, Literal

import uvicorn
from fastapi import FastAPI

from service.settings import Settings

INTERRUPTED: Final = 130


class Server(uvicorn.Server):
    """Tells the app that it is draining, and ends with an exit code instead of raising the signal again."""

    code = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop accepting; a second Ctrl-C does not wait for requests in flight."""
        if sig == signal.SIGINT:
            self.force_exit = self.should_exit
            self.code = INTERRUPTED
        self.should_exit = True
        app = self.config.loaded_app
        while not isinstance(app, FastAPI) and hasattr(app, "app"):
            app = app.app  # uvicorn wraps the app in middleware of its own
        if isinstance(app, FastAPI) and hasattr(app.state, "container"):
            app.state.container.admission.draining = True


def _http() -> type[asyncio.Protocol] | Literal["auto"]:
    """The connection with the shorter way for hot routes, where httptools is installed."""
    try:
        from service.hot_protocol import HotProtocol
    except ImportError:
        return "auto"
    return HotProtocol


def server_config(settings: Settings, app: FastAPI) -> uvicorn.Config:
    """What uvicorn is told."""
    server = settings.server
    return uvicorn.Config(
        app,
        http=_http(),
        loop="auto",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=server.keep_alive_s,
        timeout_graceful_shutdown=server.drain_s,
    )

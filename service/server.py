"""uvicorn with our settings: what ``ctrlift serve`` runs.

The parent process owns the listening socket and the embedded store; with several workers it only supervises them.
"""

import json
import os
import signal
import socket
import sys
import tempfile
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from service import logs
from service.app import create_app
from service.behaviours import EmbeddedServer, embedded_server
from service.errors import SettingsError
from service.metrics import MULTIPROC_VARIABLE
from service.settings import Settings

log = structlog.get_logger(__name__)

_SETTINGS_VARIABLE = "CTRLIFT_RESOLVED"
_KEYS_VARIABLE = "CTRLIFT_AUTH__KEYS"
_BACKLOG = 2048
# The event loop asks the engine's threads for the interpreter lock; Python's 5 ms would be most of the store's budget.
_SWITCH_S = 0.0005
INTERRUPTED = 130


def run(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C; requests in flight are finished first.

    Args:
        settings: All settings.

    Returns:
        The exit code: 0, or 130 after Ctrl-C.

    Raises:
        SettingsError: The address is taken, the store does not start, or a setting cannot be used.
    """
    logs.configure(settings.log)
    sys.setswitchinterval(_SWITCH_S)
    listening = _listen(settings)
    store: EmbeddedServer | None = None
    try:
        if settings.store.url.startswith("embedded:"):
            # Once, here: workers that each start their own would not see each other's users.
            store = embedded_server(settings.store)
            settings = _with_store(settings, store.url)
        log.info("listening", host=settings.server.host, port=listening.getsockname()[1])
        if settings.server.workers > 1:
            return _run_many(settings, listening)
        return _run_one(settings, listening)
    finally:
        listening.close()
        if store is not None:
            store.stop()


def worker_app() -> FastAPI:
    """The factory for each worker of several; its settings were resolved by the parent."""
    sys.setswitchinterval(_SWITCH_S)
    return create_app(Settings(**json.loads(os.environ[_SETTINGS_VARIABLE])))


class _Server(uvicorn.Server):
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


def _run_one(settings: Settings, listening: socket.socket) -> int:
    server = _Server(_config(settings, create_app(settings)))
    server.run(sockets=[listening])
    if not server.started:
        raise SettingsError("the service did not start; its log says why")
    return server.code


def _run_many(settings: Settings, listening: socket.socket) -> int:
    with tempfile.TemporaryDirectory(prefix="ctrlift-metrics-") as folder:
        os.environ[MULTIPROC_VARIABLE] = folder
        os.environ[_SETTINGS_VARIABLE] = _resolved(settings)
        if settings.auth.keys is not None:
            os.environ[_KEYS_VARIABLE] = settings.auth.keys.get_secret_value()
        config = _config(settings, "service.server:worker_app")
        Multiprocess(config, sockets=[listening]).run()
    return 0


def _resolved(settings: Settings) -> str:
    """The settings as JSON for the workers, without the keys: those travel as the variable they are read from."""
    values = settings.model_dump(mode="json")
    del values["auth"]["keys"]
    return json.dumps(values)


def _config(settings: Settings, app: FastAPI | str) -> uvicorn.Config:
    server = settings.server
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=server.workers,
        http="auto",  # httptools where it is installed, and uvloop below
        loop="auto",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=server.keep_alive_s,
        timeout_graceful_shutdown=server.drain_s,
        timeout_worker_healthcheck=30,
    )


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    listening.set_inheritable(True)
    return listening


def _with_store(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"store": settings.store.model_copy(update={"url": url})})

"""What ``ctrlift serve`` runs: the service in this process, or several worker processes under it.

This process owns the listening socket and the embedded store; with several workers it only supervises them.
"""

import importlib
import socket
import sys
import tempfile
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from service import logs
from service.app import create_app
from service.behaviours import EmbeddedServer, embedded_server
from service.errors import SettingsError
from service.freed_memory import keep_freed_memory, spare_modules
from service.metrics import forget_process
from service.serving import Server, server_config
from service.settings import Settings
from service.supervisor import Supervisor, Work
from service.timer_slack import ring_in_time
from service.worker import run_worker

log = structlog.get_logger(__name__)

_BACKLOG = 2048
# How long a thread that wants the interpreter waits before it asks for it. The engine's thread asks between two runs of
# a graph that take a millisecond each, so Python's 5 ms would leave it idle most of the time; 0.5 ms cost a fifth of
# the throughput at eight clients.
_SWITCH_S = 0.00005
# Imported only when they are first needed; a worker that finds them imported shares them with the others.
_LATE_MODULES: Final = (
    "uvicorn.protocols.http.auto",
    "service.hot_protocol",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
)
_ENGINE_MODULES: Final = {
    "onnx": ("service.engines.onnx", "service.engines.kernel.choosing"),
    "torchscript": ("service.engines.torchscript",),
}


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
    ring_in_time()
    keep_freed_memory()
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


def _run_one(settings: Settings, listening: socket.socket) -> int:
    server = Server(server_config(settings, create_app(settings)))
    spare_modules()
    server.run(sockets=[listening])
    if not server.started:
        raise SettingsError("the service did not start; its log says why")
    return server.code


def _run_many(settings: Settings, listening: socket.socket) -> int:
    settings = _with_engine_threads(settings)
    for module in (*_LATE_MODULES, *_ENGINE_MODULES[settings.models.engine]):
        with suppress(ImportError):  # whoever needs it will say so
            importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix="ctrlift-metrics-") as folder:
        work = Work(
            main=partial(run_worker, settings, listening, folder),
            ended=partial(forget_process, folder),
            ending=listening.close,  # as the workers do: new connections are refused and go elsewhere
            workers=settings.server.workers,
            silent_s=settings.server.worker_silent_s,
            drain_s=settings.server.drain_s,
        )
        return Supervisor(work).run()


def _with_engine_threads(settings: Settings) -> Settings:
    """One engine thread a worker, unless somebody asked for more: the workers themselves are what runs side by side."""
    if "engine" in settings.threads.model_fields_set:
        return settings
    return settings.model_copy(update={"threads": settings.threads.model_copy(update={"engine": 1})})


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _with_store(settings: Settings, url: str) -> Settings:
    return settings.model_copy(update={"store": settings.store.model_copy(update={"url": url})})

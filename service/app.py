"""The HTTP application: ``create_app(settings)``, or ``uvicorn --factory service.app:app`` (settings from outside)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from service import container, logs
from service.api import openapi, operating, problems, scoring, storing, uplift
from service.api.accounts import Accounts
from service.api.context import RequestContext
from service.api.fast_path import FastPath
from service.api.hot import HotRoutes
from service.api.hot_routes import HOT_ROUTES
from service.api.keys import Keys
from service.metrics import Metrics
from service.settings import Settings, load_settings

_DESCRIPTION = (
    "Calibrated click and conversion probabilities, and treatment effects, from bundles that ctrlift trained."
)
# FastAPI would record the bodies of requests that fail validation; they hold features.
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


def create_app(settings: Settings) -> FastAPI:
    """Build the application; nothing is started before its lifespan begins.

    Args:
        settings: All settings; see ``load_settings``.

    Raises:
        SettingsError: A setting cannot be used (the API keys, for one).
    """
    logs.configure(settings.log)
    keys = Keys(settings.auth)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        parts = container.build(settings, metrics, keys)
        app.state.container = hot.container = parts
        hot.fast = FastPath.where_compiled(parts, accounts)
        await parts.start()
        try:
            yield
        finally:
            await parts.stop()

    app = FastAPI(
        title="ctrlift",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        telemetry=_NO_TELEMETRY,
        redirect_slashes=False,
        redoc_url=None,
    )
    for router in (scoring.router, uplift.router, storing.router, operating.router):
        app.include_router(router)
        app.include_router(router, prefix="/v1", include_in_schema=False)
    problems.install(app)
    metrics = Metrics()
    accounts = Accounts(settings.limits, metrics, log_requests=settings.log.requests)
    app.state.hot = hot = HotRoutes(HOT_ROUTES, accounts)
    app.add_middleware(RequestContext, hot=hot, accounts=accounts)
    openapi.install(app, settings.limits)
    return app


def app() -> FastAPI:
    """The factory for uvicorn; settings come from the environment and the file that CTRLIFT_CONFIG names."""
    return create_app(load_settings())


def _version() -> str:
    try:
        return version("ctrlift")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"

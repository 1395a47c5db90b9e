"""The service inside this process, for drills that need to reach around it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from service.app import create_app
from service.settings import Settings, load_settings

_READY_S = 20.0


def quiet_settings(models: Path, store_url: str, /, **sections: Mapping[str, Any]) -> Settings:
    """Settings for a drill: no request log, everything else as given."""
    overrides: dict[str, dict[str, Any]] = {
        "models": {"dir": str(models)},
        "store": {"url": store_url},
        "log": {"level": "error", "requests": False},
    }
    for section, values in sections.items():
        overrides[section] = overrides.get(section, {}) | dict(values)
    return load_settings(overrides=overrides)


@asynccontextmanager
async def running(settings: Settings, *, wait: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a started app; waits until a model is warm."""
    app = create_app(settings)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write a line for each request of the drill
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://drill") as client:
            client.app = app  # type: ignore[attr-defined]  # for drills that look inside
            if wait:
                await ready(client)
            yield client


async def ready(client: httpx.AsyncClient) -> None:
    """Wait until /readyz says 200."""
    async with asyncio.timeout(_READY_S):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)

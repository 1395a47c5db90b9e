"""`ctrlift serve`: the HTTP service on the settings' address."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    host: Annotated[str | None, typer.Option(help="server.host")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="server.port")] = None,
    models: Annotated[Path | None, typer.Option(help="models.dir: the model store's folder")] = None,
    engine: Annotated[str | None, typer.Option(help="models.engine: onnx or torchscript")] = None,
    store: Annotated[str | None, typer.Option(help="store.url: embedded://, redis://host:6379, memory://, ...")] = None,
    auth: Annotated[str | None, typer.Option(help="auth.mode: keys or off")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="server.workers: processes")] = None,
) -> None:
    """Serve the bundles of a model store until Ctrl-C or SIGTERM; requests in flight are finished first.

    Flags win over CTRLIFT_<SECTION>__<KEY> in the environment, that over the TOML file, that over the default.
    """
    from service.server import run
    from service.settings import load_settings

    given: dict[str, dict[str, object]] = {
        "server": {"host": host, "port": port, "workers": workers},
        "models": {"dir": str(models) if models else None, "engine": engine},
        "store": {"url": store},
        "auth": {"mode": auth},
    }
    code = run(load_settings(config, overrides_of(given)))
    if code:
        raise typer.Exit(code)


def overrides_of(given: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Only the flags that were typed, so that the others leave environment and file alone."""
    typed = {section: {key: v for key, v in keys.items() if v is not None} for section, keys in given.items()}
    return {section: keys for section, keys in typed.items() if keys}

"""`ctrlift verify BUNDLE`: everything the service checks before a bundle takes traffic, without a service."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from cli.exits import InputProblem
from cli.output import AsJson, print_json, print_table


def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder: <model store>/<name>/<version>.")],
    as_json: AsJson = False,
) -> None:
    """Check names, sizes and digests, then load every graph and reproduce the golden rows. Refused: exit code 4."""
    from bundle.loading import open_bundle
    from service.core.opening import open_version
    from service.engines.opening import EngineName, EngineOptions

    if not bundle.is_dir():
        raise InputProblem(f"{bundle}: no such folder.")
    opened = open_bundle(bundle)
    engines: tuple[tuple[EngineName, str], ...] = (("onnx", "model.onnx"), ("torchscript", "model.ts"))
    rows: list[tuple[str, str, str]] = [("digests", "ok", f"{len(opened.manifest.files)} files")]
    for engine, file in engines:
        if file not in opened.manifest.files:
            rows.append((engine, "absent", f"{file} is not in this bundle"))
        elif engine == "torchscript" and find_spec("torch") is None:
            rows.append((engine, "not checked", "torch is not installed: pip install 'ctrlift[torchscript]'"))
        else:
            open_version(bundle, EngineOptions(engine)).close()
            golden = len(opened.golden) + len(opened.uplift_golden)
            rows.append((engine, "ok", f"{golden} golden requests reproduced"))
    name, version = opened.manifest.name, opened.manifest.version
    if as_json:
        keys = ("check", "result", "detail")
        print_json({"name": name, "version": version, "checks": [dict(zip(keys, row, strict=True)) for row in rows]})
    else:
        print_table(f"{name} {version}", ["check", "result", "detail"], rows)

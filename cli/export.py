"""`ctrlift export RUN...`: write finished runs into a model store as bundles."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.exits import CheckFailed, UsageProblem
from cli.output import AsJson, Quiet, print_json, print_table, progress

Row = tuple[str, str | None, str | None, str | None, str | None]  # run, name, version, path, error


class GraphFormat(StrEnum):
    """Formats of the exported graph."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"


def export(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; each becomes one bundle.")],
    to: Annotated[Path, typer.Option("--to", help="Model store: <to>/<name>/<version>/.")],
    formats: Annotated[
        list[GraphFormat] | None, typer.Option("--format", help="Repeat for several; default onnx.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="SemVer of a single run; default the next minor.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Export runs as bundles. A run that fails is reported and does not stop the others (exit code 1 at the end)."""
    if version is not None and len(runs) > 1:
        raise UsageProblem("--version names one bundle: export runs one by one, or leave it out.")
    from training.export import export_many, export_run

    wanted = tuple(str(name) for name in formats or [GraphFormat.ONNX])
    if version is not None:
        path = export_run(runs[0], to, wanted, version=version)
        rows: list[Row] = [(str(runs[0]), path.parent.name, path.name, str(path), None)]
    else:
        with progress(quiet=quiet) as bar:
            task = bar.add_task("export", total=len(runs), note="")
            results = export_many(runs, to, wanted, progress=lambda *_: bar.advance(task))
        rows = [(str(r.run), r.name, r.version, str(r.path) if r.path else None, r.error) for r in results]
    headers = ["run", "name", "version", "path", "error"]
    if as_json:
        print_json({"bundles": [dict(zip(headers, row, strict=True)) for row in rows]})
    else:
        print_table("bundles", headers, rows)
    failed = [row[0] for row in rows if row[4] is not None]
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(rows)} runs were not exported: {', '.join(failed)}.")

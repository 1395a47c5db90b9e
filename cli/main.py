"""`ctrlift`: every command in one table."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from cli import behaviours, bench, data, demo, doctor, evaluate, export, score, serve, train, uplift, users, verify
from cli.exits import Commands

app = typer.Typer(
    cls=Commands,
    help="Train click, conversion and uplift networks, export them as bundles, serve probabilities and effects.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("verify")(verify.verify)
app.command("serve")(serve.serve)
app.command("score")(score.score)
app.command("uplift")(uplift.uplift)
app.command("bench")(bench.bench)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.add_typer(behaviours.app, name="behaviours")
app.add_typer(users.app, name="users")
app.add_typer(data.app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ctrlift {version('ctrlift')}")
        raise typer.Exit


@app.callback()
def ctrlift(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Train click, conversion and uplift networks, export them as bundles, serve probabilities and effects."""


if __name__ == "__main__":
    app()

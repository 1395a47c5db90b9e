"""`ctrlift train CONFIG`: fit the network that a TOML file describes into a run folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli.exits import UsageProblem
from cli.output import AsJson, Quiet, print_json, print_table, say


def train(
    config: Annotated[Path, typer.Argument(help="TOML file with the data, the features and the network.")],
    run: Annotated[Path | None, typer.Option(help="Run folder; default runs/<config's name>-<time>.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the file, such as train.epochs=3; repeat.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a network. Ctrl-C saves a checkpoint; `--run FOLDER --resume` goes on from it."""
    if resume and run is None:
        raise UsageProblem("--resume needs --run: say which run folder to go on with.")
    from training.config import load_config

    # Before torch is loaded: a wrong key is said in a moment.
    loaded = load_config(config, changes or ())
    from training.fit import train as fit

    folder = run or Path("runs") / f"{config.stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    finished = fit(
        loaded,
        folder,
        resume=resume,
        progress=False if quiet else None,
        config_text=config.read_text(encoding="utf-8"),
    )
    metrics = finished.metrics()
    if as_json:
        print_json({"run": folder, "state": finished.index().state, "metrics": metrics})
        return
    best = {name: value for name, value in metrics.get("best", {}).items() if name in {"epoch", "loss", "valid"}}
    rows = _leaves({"best": best, **{name: metrics.get(name) for name in ("epochs", "seconds", "rows_per_second")}})
    print_table(f"{folder}", ["metric", "value"], rows)
    say(f"next: ctrlift evaluate {folder}   or   ctrlift export {folder} --to bundles")


def _leaves(metrics: object, prefix: str = "") -> list[tuple[str, object]]:
    """Nested metrics as rows `valid.ctr.auc`."""
    if not isinstance(metrics, dict):
        return [(prefix, metrics)]
    rows: list[tuple[str, object]] = []
    for name, value in metrics.items():
        rows += _leaves(value, f"{prefix}.{name}" if prefix else str(name))
    return rows

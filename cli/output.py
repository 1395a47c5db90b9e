"""What commands show: tables and JSON on standard output, progress and remarks on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

LOG_WIDTH: Final = 160

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


def console() -> Console:
    """Standard output; colours only on a terminal and without NO_COLOR."""
    return _console(sys.stdout)


def remarks() -> Console:
    """Standard error, where progress and remarks go so that standard output can be piped."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    # Without a terminal rich assumes 80 columns, which folds every table in a log.
    width = None if stream.isatty() or "COLUMNS" in os.environ else LOG_WIDTH
    return Console(file=stream, highlight=False, width=width)


def print_json(document: Any) -> None:
    """Write one JSON document to standard output; NaN and infinities become null."""
    typer.echo(json.dumps(_plain(document), ensure_ascii=False, indent=2, allow_nan=False))


def print_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; numbers stand right, floats with four digits."""
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    rows = [list(row) for row in rows]
    for position, header in enumerate(headers):
        numeric = bool(rows) and all(isinstance(row[position], Real) for row in rows)
        table.add_column(escape(header), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_text(value)) for value in row))
    console().print(table)


def say(text: str) -> None:
    """One remark on standard error."""
    remarks().print(escape(text))


def progress(*, quiet: bool = False) -> Progress:
    """A progress bar with count, elapsed and remaining time, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=remarks(),
        disable=quiet,
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value)


def _plain(value: Any) -> Any:
    """Arrays and NumPy scalars (anything with ``tolist``) as Python values, paths as text, NaN as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value

"""`ctrlift behaviours load FILE`: events of many users into the behaviour store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.loading import Bookmark, Config, Loaded, StoreUrl, load_in_batches, open_patiently, store_settings
from cli.output import AsJson, Quiet, print_json, print_table

if TYPE_CHECKING:
    from service.behaviours import Event
    from service.settings import Settings

app = typer.Typer(help="The behaviours of users in the store.", no_args_is_help=True)


@app.callback()
def behaviours() -> None:
    """The behaviours of users in the store."""


@app.command("load")
def load(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV: user_id, item_id, ts, and optional type and value.")],
    config: Config = None,
    store: StoreUrl = None,
    batch: Annotated[int, typer.Option(min=1, max=100_000, help="Events sent at once.")] = 2000,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Append events to the store. Known events are counted, not doubled; an interrupted load goes on where it was."""
    settings = store_settings(config, store)
    events = read_events(file)
    loaded = asyncio.run(load_events(events, file, settings, batch=batch, quiet=quiet))
    if as_json:
        print_json(asdict(loaded))
    else:
        print_table(str(file), ["rows", "accepted", "duplicates"], [[loaded.rows, loaded.accepted, loaded.duplicates]])


def read_events(file: Path) -> list[Event]:
    """Events of a file in its own order.

    Raises:
        InputProblem: naming file, column and row.
    """
    from cli.tables import optional_numbers, read_table, require_columns, seconds, text_ids
    from service.behaviours import Event

    frame = read_table(file, text=("user_id", "item_id", "type"))
    require_columns(frame.columns, ("user_id", "item_id", "ts"), file)
    count = len(frame)
    kinds: Sequence[str | None] = text_ids(frame, "type", file).to_list() if "type" in frame.columns else [None] * count
    values = optional_numbers(frame, "value", file) if "value" in frame.columns else [None] * count
    users, items = text_ids(frame, "user_id", file).to_list(), text_ids(frame, "item_id", file).to_list()
    columns = (users, items, seconds(frame, "ts", file).to_list())
    return [
        Event(user_id=user, item_id=item, ts=int(ts), type=kind, value=value)
        for user, item, ts, kind, value in zip(*columns, kinds, values, strict=True)
    ]


async def load_events(events: list[Event], file: Path, settings: Settings, *, batch: int, quiet: bool) -> Loaded:
    """Append all events of a file to the settings' store.

    Raises:
        service.behaviours.StoreError: if the store does not answer.
    """
    store = open_patiently(settings)

    async def write(start: int, stop: int) -> tuple[int, int]:
        done = await store.append(events[start:stop])
        return done.accepted, done.duplicates

    try:
        bookmark = Bookmark(file, settings.store.url, settings.store.prefix)
        return await load_in_batches(len(events), bookmark, batch, write, quiet=quiet)
    finally:
        await store.close()

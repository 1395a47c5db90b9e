"""`ctrlift users load FILE` and `ctrlift users delete ID`: stored user features, and forgetting a user."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.exits import InputProblem
from cli.loading import Bookmark, Config, Loaded, StoreUrl, load_in_batches, open_patiently, store_settings
from cli.output import AsJson, Quiet, print_json, print_table

if TYPE_CHECKING:
    from service.settings import Settings

app = typer.Typer(help="The users' features in the store.", no_args_is_help=True)


@app.callback()
def users() -> None:
    """The users' features in the store."""


@app.command("load")
def load(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV: user_id and one column a feature.")],
    config: Config = None,
    store: StoreUrl = None,
    batch: Annotated[int, typer.Option(min=1, max=100_000, help="Users sent at once.")] = 1000,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Store user features; a user's earlier features are replaced. An interrupted load goes on where it was."""
    settings = store_settings(config, store)
    rows = read_users(file)
    loaded = asyncio.run(load_users(rows, file, settings, batch=batch, quiet=quiet))
    if as_json:
        print_json(asdict(loaded))
    else:
        print_table(str(file), ["rows", "accepted"], [[loaded.rows, loaded.accepted]])


@app.command("delete")
def delete(
    user_id: Annotated[str, typer.Argument(help="The user's id.")],
    config: Config = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete a user's behaviours and features from the store."""
    settings = store_settings(config, store)
    deleted = asyncio.run(_delete(user_id, settings))
    if as_json:
        print_json({"user_id": user_id, "deleted": deleted})
    else:
        typer.echo(f"user {user_id}: {'deleted' if deleted else 'nothing was stored'}")


def read_users(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Users with their features; empty cells are left out, so they count as missing.

    Raises:
        InputProblem: naming file, column and row.
    """
    from cli.tables import read_table, require_columns, text_ids

    frame = read_table(file, text=("user_id",))
    require_columns(frame.columns, ("user_id",), file)
    ids = text_ids(frame, "user_id", file).to_list()
    seen: dict[str, int] = {}
    for row, user in enumerate(ids, start=1):
        if user in seen:
            raise InputProblem(f"{file}: column user_id, row {row}: the same id stands in row {seen[user]}.")
        seen[user] = row
    features = frame.drop("user_id").iter_rows(named=True)
    return [
        (user, {name: value for name, value in row.items() if value is not None})
        for user, row in zip(ids, features, strict=True)
    ]


async def load_users(
    rows: list[tuple[str, dict[str, Any]]], file: Path, settings: Settings, *, batch: int, quiet: bool
) -> Loaded:
    """Write all users of a file to the settings' store.

    Raises:
        service.behaviours.StoreError: if the store does not answer.
    """
    store = open_patiently(settings)

    async def write(start: int, stop: int) -> tuple[int, int]:
        return await store.put_users(rows[start:stop]), 0

    try:
        bookmark = Bookmark(file, settings.store.url, settings.store.prefix)
        return await load_in_batches(len(rows), bookmark, batch, write, quiet=quiet)
    finally:
        await store.close()


async def _delete(user_id: str, settings: Settings) -> bool:
    store = open_patiently(settings)
    try:
        return await store.delete_user(user_id)
    finally:
        await store.close()

"""Filling the behaviour store from files: batched, counted, and resumed after an interruption.

Beside FILE stands FILE.loading.json while a load runs: how many rows are in the store. The next run of the same
command goes on from there. Appending is idempotent, so a batch that is sent twice does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
import xxhash

from cli.exits import UsageProblem
from cli.output import progress, say

if TYPE_CHECKING:
    from service.behaviours import BehaviourStore
    from service.settings import Settings

Config = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
PATIENCE_MS: Final = 5000.0
PATIENT: Final = ("connect_timeout_ms", "timeout_ms", "write_timeout_ms", "pool_wait_ms")
StoreUrl = Annotated[str | None, typer.Option("--store", help="store.url, such as redis://127.0.0.1:6379.")]


@dataclass(frozen=True)
class Loaded:
    """What a load did: rows read now, rows that a run before had written, and of the rows the new and the known."""

    rows: int
    resumed_at: int
    accepted: int
    duplicates: int


def store_settings(config: Path | None, url: str | None) -> Settings:
    """The settings, with a store that outlives this command.

    Raises:
        UsageProblem: if the store would vanish with the command.
    """
    from service.settings import load_settings

    settings = load_settings(config, {"store": {"url": url}} if url else None)
    if settings.store.url in {"embedded://", "memory://"}:
        raise UsageProblem(
            f"store.url is {settings.store.url}, which ends with this command: "
            "give --store redis://HOST:PORT, or embedded:///FOLDER to keep the data in a folder."
        )
    return settings


def open_patiently(settings: Settings) -> BehaviourStore:
    """The store with time-outs of seconds: those of the settings are for requests that somebody waits for.

    Raises:
        service.errors.SettingsError: if the URL cannot be used or the embedded server does not start.
    """
    from service.behaviours import open_store

    waits = {name: max(PATIENCE_MS, getattr(settings.store, name)) for name in PATIENT}
    return open_store(settings.store.model_copy(update=waits))


class Bookmark:
    """How far a file has been loaded into a store, kept beside the file."""

    def __init__(self, file: Path, store_url: str, prefix: str) -> None:
        stat = file.stat()
        self._path = file.with_name(f"{file.name}.loading.json")
        # A store's URL may hold a password, so only its hash is written.
        target = xxhash.xxh3_64_hexdigest(f"{store_url} {prefix}".encode())
        self._identity = {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, "target": target}

    def read(self) -> int:
        """Rows that are already in the store; 0 where the note is absent or about another file or store."""
        try:
            note = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0
        rows = note.pop("rows", 0) if isinstance(note, dict) else 0
        return int(rows) if note == self._identity else 0

    def write(self, rows: int) -> None:
        """Note the rows, atomically."""
        draft = self._path.with_name(f".{self._path.name}.tmp")
        draft.write_text(json.dumps({**self._identity, "rows": rows}), encoding="utf-8")
        draft.replace(self._path)

    def remove(self) -> None:
        """The load is complete."""
        self._path.unlink(missing_ok=True)


async def load_in_batches(
    total: int,
    bookmark: Bookmark,
    batch: int,
    write: Callable[[int, int], Awaitable[tuple[int, int]]],
    *,
    quiet: bool,
) -> Loaded:
    """Write rows [start, stop) batch by batch; `write` returns how many were new and how many known."""
    start = resumed_at = min(bookmark.read(), total)
    accepted = duplicates = 0
    if resumed_at:
        say(f"going on after row {resumed_at}, where the load before this one stopped")
    with progress(quiet=quiet) as bar:
        task = bar.add_task("rows", total=total, completed=start, note="")
        while start < total:
            stop = min(start + batch, total)
            new, known = await write(start, stop)
            accepted, duplicates = accepted + new, duplicates + known
            bookmark.write(stop)
            bar.update(task, completed=stop)
            start = stop
    bookmark.remove()
    return Loaded(total - resumed_at, resumed_at, accepted, duplicates)

"""`ctrlift score FILE`: a file of user and item pairs, scored by the code that answers `/score`.

Columns: user_id, item_id, optional ts (default now), features by their names in the schema, and optional list columns
behaviour_item_id, behaviour_ts, behaviour_type, behaviour_value (oldest first; then no store is read). Consecutive rows
with one user, time, user and context features and history share the history's work, as in one request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.exits import InputProblem, UsageProblem
from cli.loading import Config, StoreUrl
from cli.output import AsJson, Quiet, print_json, print_table, progress, say

if TYPE_CHECKING:
    from cli.batch.reading import RowFile
    from cli.batch.scoring import Opening
    from cli.batch.slates import Chunk
    from cli.batch.stored import StoredUsers
    from service.core.version import ServedVersion
    from service.settings import Settings

Workers = Annotated[int | None, typer.Option(min=1, help="Processes that score; default one for each core.")]


def score(
    file: Annotated[Path, typer.Argument(help="Parquet, CSV or NDJSON with user_id, item_id and optional columns.")],
    out: Annotated[Path, typer.Option(help="Where the rows go with their p<task>, model and version columns.")],
    model: Annotated[str | None, typer.Option(help="name, name@version or name@alias; default the route.")] = None,
    models: Annotated[Path | None, typer.Option(help="models.dir: the model store's folder")] = None,
    workers: Workers = None,
    config: Config = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score a file: the same rows in the same order, with probabilities."""
    from cli.batch.scoring import Opening
    from service.settings import load_settings

    given = {"models": {"dir": str(models)} if models else {}, "store": {"url": store} if store else {}}
    settings = load_settings(config, {section: keys for section, keys in given.items() if keys})
    chosen = settings.models
    opening = Opening(bundle_path(settings, model), chosen.engine, settings.threads.intra, chosen.kernel)
    version = opening.open()
    try:
        rows = _open_rows(file, version)
        count = workers or len(os.sched_getaffinity(0))
        total, blocks = _score_rows(rows, out, version, opening, settings, workers=count, quiet=quiet)
    finally:
        version.close()
    summary = {"rows": total, "blocks": blocks, "model": version.name, "version": version.version, "out": out}
    if as_json:
        print_json(summary)
    else:
        print_table(str(file), list(summary), [list(summary.values())])


def bundle_path(settings: Settings, model: str | None, kind: Literal["ctr", "uplift"] = "ctr") -> Path:
    """The bundle that `model`, or else the default route of a kind of bundle, names.

    Raises:
        UsageProblem: if nothing is named and the model store holds not exactly one name of that kind.
        bundle.errors.UnknownModel: if the store has no such bundle.
    """
    from bundle.loading import read_manifest
    from bundle.store import ModelStore

    store = ModelStore(settings.models.dir)
    spec = model or (settings.routes.score if kind == "ctr" else settings.routes.uplift)
    if spec is None:
        names = store.names() if settings.models.dir.is_dir() else []
        if len(names) > 1:
            names = [name for name in names if read_manifest(store.resolve(name)).kind == kind]
        if len(names) != 1:
            held = ", ".join(names) or "no bundle"
            raise UsageProblem(f"{settings.models.dir} holds {held}: say which one with --model NAME.")
        spec = names[0]
    return store.resolve(spec)


def _open_rows(file: Path, version: ServedVersion) -> RowFile:
    """The file, if it has the columns that are needed and none that is written.

    Raises:
        InputProblem: naming the file.
    """
    from cli.batch import past
    from cli.batch.reading import RowFile
    from cli.batch.scoring import tasks_of
    from cli.tables import require_columns

    ids = [feature.name for feature in version.bundle.fitted.schema.feature if feature.kind == "id"]
    rows = RowFile(file, text=("user_id", "item_id", *past.COLUMNS, *ids))
    require_columns(rows.schema, ("user_id", "item_id"), file)
    for name in (*(f"p{task}" for task in tasks_of(version)), "model", "version"):
        if name in rows.schema:
            raise InputProblem(f"{file}: column {name} is one that this command writes; rename it.")
    return rows


def _score_rows(
    rows: RowFile,
    out: Path,
    version: ServedVersion,
    opening: Opening,
    settings: Settings,
    *,
    workers: int,
    quiet: bool,
) -> tuple[int, int]:
    """Write the rows with their scores, chunk by chunk; the number of rows and of blocks."""
    import polars as pl

    from cli.batch import past
    from cli.batch.scoring import scored
    from cli.batch.stored import StoredUsers
    from cli.batch.writing import TableWriter

    total = blocks = 0
    lost = past.ITEM not in rows.schema and settings.store.url in {"embedded://", "memory://"}
    if lost:
        say("no store and no history columns: every row is scored as a user without history (--store names a store)")
    with ExitStack() as stack:
        writer = stack.enter_context(TableWriter(out))
        store = None if lost or past.ITEM in rows.schema else stack.enter_context(StoredUsers(settings))
        bar = stack.enter_context(progress(quiet=quiet))
        task = bar.add_task("score", total=rows.rows, note="")
        chunks = _chunks(rows, store)
        # A lost history is scored as by the service that cannot reach its store: with the calibrator for that case.
        for chunk, scores in scored(chunks, version, opening, lost=lost, workers=workers):
            columns = {name: pl.Series(values) for name, values in scores.columns.items()}
            writer.add(chunk.frame.with_columns(**columns, model=pl.lit(version.name), version=pl.lit(version.version)))
            total, blocks = total + len(chunk.frame), blocks + scores.slates
            bar.update(task, completed=total)
    return total, blocks


def _chunks(rows: RowFile, store: StoredUsers | None) -> Iterator[Chunk]:
    """The file's chunks with what the store holds of their users."""
    from cli.batch.slates import Chunk
    from cli.tables import text_ids

    offset, now = 0, time.time()
    for frame in rows.chunks():
        stored = {}
        if store is not None:
            stored = store.read(text_ids(frame, "user_id", rows.path, offset).unique().to_list())
        yield Chunk(frame, rows.path, offset, now, stored)
        offset += len(frame)

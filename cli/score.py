"""`ctrlift score FILE`: a file of user and item pairs, scored by the code that answers `/score`.

Columns: user_id, item_id, optional ts (default now), features by their names in the schema, and optional list columns
behaviour_item_id, behaviour_ts, behaviour_type, behaviour_value (oldest first; then no store is read). Consecutive rows
with one user, time, user and context features and history are scored together, as one request would be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from cli.exits import InputProblem, UsageProblem
from cli.loading import Config, StoreUrl, open_patiently
from cli.output import AsJson, Quiet, print_json, print_table, progress, say

if TYPE_CHECKING:
    import polars as pl

    from bundle.request import ScoreQuery, StoredUser
    from bundle.schema import FeatureSchema
    from service.core.version import ServedVersion
    from service.settings import Settings

BEHAVIOUR_COLUMNS: Final = ("behaviour_item_id", "behaviour_ts", "behaviour_type", "behaviour_value")
USERS_A_READ: Final = 500


@dataclass(frozen=True)
class Block:
    """Rows [start, stop) of the file that make one query."""

    start: int
    stop: int
    query: ScoreQuery


def score(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV with user_id, item_id and optional columns.")],
    out: Annotated[Path, typer.Option(help="Where the rows go with their p<task>, model and version columns.")],
    model: Annotated[str | None, typer.Option(help="name, name@version or name@alias; default the route.")] = None,
    models: Annotated[Path | None, typer.Option(help="models.dir: the model store's folder")] = None,
    config: Config = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score a file: the same rows in the same order, with probabilities."""
    from cli.tables import read_table, require_columns, write_table
    from service.core.version import load_version
    from service.settings import load_settings

    given = {"models": {"dir": str(models)} if models else {}, "store": {"url": store} if store else {}}
    settings = load_settings(config, {section: keys for section, keys in given.items() if keys})
    frame = read_table(file, text=("user_id", "item_id"))
    require_columns(frame, ("user_id", "item_id"), file)
    version = load_version(bundle_path(settings, model), engine=settings.models.engine, threads=settings.threads.intra)
    try:
        _refuse_own_columns(frame, version, file)
        blocks = list(blocks_of(frame, version.bundle.fitted.schema, file))
        scored = frame.with_columns(**_scores(blocks, len(frame), version, settings, file, quiet=quiet))
        write_table(scored, out)
    finally:
        version.close()
    summary = {"rows": len(frame), "blocks": len(blocks), "model": version.name, "version": version.version, "out": out}
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


def blocks_of(frame: pl.DataFrame, schema: FeatureSchema, file: Path) -> Iterator[Block]:
    """Cut the rows into queries, in their order.

    Raises:
        InputProblem: naming file, column and row.
    """
    from bundle.request import ScoreQuery
    from cli.tables import seconds, text_ids

    users, items = text_ids(frame, "user_id", file), text_ids(frame, "item_id", file)
    times = seconds(frame, "ts", file) if "ts" in frame.columns else [time.time()] * len(frame)
    sides = {side: _columns(frame, schema, side) for side in ("user", "context", "candidate")}
    present = [name for name in BEHAVIOUR_COLUMNS if name in frame.columns]
    histories: dict[str, list[Any]] = {name: frame[name].to_list() for name in present}
    shared = [*sides["user"].values(), *sides["context"].values(), *histories.values()]
    keys = list(zip(users, times, *shared, strict=True))
    start = 0
    for stop in range(1, len(keys) + 1):
        if stop < len(keys) and keys[stop] == keys[start]:
            continue
        yield Block(
            start,
            stop,
            ScoreQuery(
                user_id=users[start],
                candidates=items[start:stop],
                context=_present({name: column[start] for name, column in sides["context"].items()}),
                user_features=_present({name: column[start] for name, column in sides["user"].items()}),
                candidate_features={name: column[start:stop] for name, column in sides["candidate"].items()},
                behaviours=_behaviours(histories, start, file) if histories else None,
                ts=times[start],
            ),
        )
        start = stop


def _columns(frame: pl.DataFrame, schema: FeatureSchema, side: str) -> dict[str, list[Any]]:
    """Feature columns of one side that the file has; the item and user ids travel as ids."""
    names = [
        feature.name
        for feature in schema.feature
        if feature.kind in {"id", "number"} and feature.side == side and feature.name in frame.columns
    ]
    return {name: frame[name].to_list() for name in names if name not in {"user_id", "item_id"}}


def _present(features: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in features.items() if value is not None}


def _behaviours(histories: dict[str, list[Any]], row: int, file: Path) -> list[Any]:
    """One row's history from its list columns.

    Raises:
        InputProblem: if the lists differ in length or hold no numbers where numbers belong.
    """
    from bundle.request import Behaviour
    from cli.tables import as_list

    cells = {name: as_list(column[row]) for name, column in histories.items()}
    items, times = cells.get("behaviour_item_id"), cells.get("behaviour_ts")
    if items is None or times is None:
        raise InputProblem(f"{file}: histories need both columns, behaviour_item_id and behaviour_ts.")
    for name, cell in cells.items():
        if len(cell) not in {0, len(items)} or (not cell and name == "behaviour_ts" and items):
            raise InputProblem(
                f"{file}: column {name}, row {row + 1}: {len(cell)} entries, but behaviour_item_id has {len(items)}."
            )
    kinds = cells.get("behaviour_type") or [None] * len(items)
    values = cells.get("behaviour_value") or [None] * len(items)
    try:
        return [
            Behaviour(item_id=str(item), ts=float(ts), type=kind, value=None if value is None else float(value))
            for item, ts, kind, value in zip(items, times, kinds, values, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise InputProblem(f"{file}: histories, row {row + 1}: times and values must be numbers.") from error


def _refuse_own_columns(frame: pl.DataFrame, version: ServedVersion, file: Path) -> None:
    made = [*(f"p{task}" for task in version.tasks), "pctcvr", "model", "version"]
    for name in made:
        if name in frame.columns:
            raise InputProblem(f"{file}: column {name} is one that this command writes; rename it.")


def _scores(
    blocks: Sequence[Block], rows: int, version: ServedVersion, settings: Settings, file: Path, *, quiet: bool
) -> dict[str, Any]:
    """The columns to add: p<task> float64 (rows,), model and version."""
    import numpy as np
    import polars as pl

    from bundle.errors import FeatureError

    stored = _stored_users(blocks, settings)
    lost = stored is None  # as when the service cannot reach its store: the calibrator for that case applies
    columns: dict[str, Any] = {}
    with progress(quiet=quiet) as bar:
        task_id = bar.add_task("score", total=rows, note="")
        for block in blocks:
            try:
                answer = version.score(
                    block.query,
                    None if stored is None else stored.get(block.query.user_id or ""),
                    without_history=lost and block.query.behaviours is None,
                )
            except FeatureError as error:
                raise InputProblem(_first_problem(error, block, file)) from error
            for task, probabilities in answer.probabilities.items():
                columns.setdefault(f"p{task}", np.empty(rows))[block.start : block.stop] = probabilities[0]
            bar.update(task_id, completed=block.stop)
    return {**columns, "model": pl.lit(version.name), "version": pl.lit(version.version)}


def _stored_users(blocks: Sequence[Block], settings: Settings) -> dict[str, StoredUser] | None:
    """What the store holds of the users whose rows bring no history of their own; None where there is no store."""
    from bundle.request import StoredUser

    users = sorted({block.query.user_id for block in blocks if block.query.behaviours is None and block.query.user_id})
    if not users:
        return {}
    if settings.store.url in {"embedded://", "memory://"}:
        say("no store and no history columns: every row is scored as a user without history (--store names a store)")
        return None
    read = asyncio.run(read_stored(users, settings))
    return {user: StoredUser(data.behaviours, dict(data.features)) for user, data in zip(users, read, strict=True)}


async def read_stored(users: Sequence[str], settings: Settings) -> list[Any]:
    """What the store holds of users, in their order.

    Raises:
        service.behaviours.StoreError: if the store does not answer.
    """
    store = open_patiently(settings)
    try:
        found: list[Any] = []
        for start in range(0, len(users), USERS_A_READ):
            found += (await store.read(users[start : start + USERS_A_READ])).users
        return found
    finally:
        await store.close()


def _first_problem(error: Any, block: Block, file: Path) -> str:
    """A request's JSON pointer as the file's column and row."""
    problem = error.problems[0]
    parts = problem.pointer.strip("/").split("/")
    column, row = parts[0], block.start
    if parts[0] == "candidates":
        column = "item_id"
    elif parts[0] in {"candidate_features", "user_features", "context"} and len(parts) > 1:
        column = parts[1]
    elif parts[0] == "behaviours":
        column = f"behaviour_{parts[2]}" if len(parts) > 2 else "behaviour_item_id"
    if parts[0].startswith("candidate") and parts[-1].isdigit():
        row += int(parts[-1])
    return f"{file}: column {column}, row {row + 1}: {problem.message}"

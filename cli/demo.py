"""`ctrlift demo`: the whole way on MovieLens-100k and on a randomised trial, from files to answers over HTTP."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli import incentive_demo
from cli.evaluate import tables
from cli.exits import CheckFailed, InputProblem
from cli.output import print_table, remarks, say
from cli.service_process import ServiceProcess

if TYPE_CHECKING:
    import polars as pl

    from training.config import TrainingConfig
    from training.datasets.movielens import MovieLens

CONFIG: Final = Path(__file__).parents[1] / "configs" / "movielens-100k-rated.toml"
# Fewer passes than the configuration's: the demo is watched, and the last ones gain little.
SHORTER: Final = ("train.epochs=4",)
USERS_SHOWN: Final = 3
FILMS_SHOWN: Final = 8
UNKNOWN_USER: Final = "somebody-new"


@dataclass(frozen=True)
class DemoFolder:
    """What the demo makes, by name."""

    root: Path

    @property
    def run(self) -> Path:
        """The run folder of the training."""
        return self.root / "run"

    @property
    def incentive_run(self) -> Path:
        """The run folder of the training on the trial."""
        return self.root / "incentive-run"

    @property
    def bundles(self) -> Path:
        """The model store."""
        return self.root / "bundles"

    @property
    def store(self) -> Path:
        """The data folder of the embedded store."""
        return self.root / "store"

    @property
    def settings(self) -> Path:
        """The settings that the demo and `make serve` start the service with."""
        return self.root / "service.toml"

    def write_settings(self, models: Sequence[str]) -> None:
        """Write the settings; the store keeps its data in the folder, so users stay loaded.

        Args:
            models: without all of which the service is not ready.
        """
        lines = ["[models]", f"dir = {json.dumps(str(self.bundles))}", f"required = {json.dumps(list(models))}"]
        lines += ["", "[store]"]
        lines += [f"url = {json.dumps(f'embedded://{self.store}')}", ""]
        self.settings.write_text("\n".join(lines), encoding="utf-8")


def demo(
    folder: Annotated[Path, typer.Option(help="Where runs, bundles, store and settings go.")] = Path("demo"),
    config: Annotated[Path, typer.Option(help="The training configuration of the films.")] = CONFIG,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the file, such as train.epochs=1; repeat.")
    ] = None,
    incentive: Annotated[Path, typer.Option(help="The training configuration of the trial.")] = incentive_demo.CONFIG,
) -> None:
    """Train a DIEN on MovieLens-100k and a dose response on a randomised trial, export them, serve them, ask about
    real people. Takes minutes, needs two cores.
    """
    from training.config import load_config

    started = time.monotonic()
    places = DemoFolder(folder.resolve())
    places.root.mkdir(parents=True, exist_ok=True)
    loaded = load_config(config, (*SHORTER, *(changes or ())))
    trial_config = load_config(incentive)

    say("1/7 data: MovieLens-100k, and Thornton's trial of money for fetching a test result")
    films, trial = _fetch(loaded), incentive_demo.fetch_trial(trial_config)
    say(f"    {len(films.ratings):,} ratings, {len(films.users):,} users, {len(films.items):,} films")
    say(f"    {len(trial.rows):,} people of the trial")
    say(f"2/7 training on the ratings, {loaded.train.epochs} passes")
    _train(loaded, config, places)
    say("3/7 test rows, never looked at before")
    _evaluate(places)
    say("4/7 export to ONNX and TorchScript")
    _export(places)
    say("5/7 the same for the trial: who fetches the result, and for how much money")
    incentive_demo.make_bundle(trial_config, incentive, places.incentive_run, places.bundles)
    say("6/7 behaviours and features of all users into the embedded store")
    places.write_settings([loaded.features.bundle.name, trial_config.features.bundle.name])
    _load(films, loaded, places)
    incentive_demo.load_people(trial, places.root / "people.parquet", places.settings)
    say("7/7 the service, asked over HTTP")
    with ServiceProcess(places.settings, places.root / "service.log") as service:
        service.wait_until_ready()
        _ask(films, service)
        incentive_demo.ask(trial, trial_config.features.bundle.name, service)
    say(f"done in {time.monotonic() - started:.0f} s; all of it is in {folder}")
    say("next: make serve   (then the curl examples of the README)")


def _fetch(config: TrainingConfig) -> MovieLens:
    from training.datasets import fetch
    from training.datasets.movielens import read_folder

    given = config.file(config.data.path) if config.data.path else None
    return read_folder(fetch("movielens-100k", given, progress=lambda text: say(f"    {text}")))


def _train(config: TrainingConfig, source: Path, places: DemoFolder) -> None:
    from training.fit import train

    if (places.run / "run.json").is_file():
        shutil.rmtree(places.run)  # only what an earlier demo made; every demo trains anew
    train(config, places.run, config_text=source.read_text(encoding="utf-8"))


def _evaluate(places: DemoFolder) -> None:
    from training.evaluate import evaluate

    with remarks().status("scoring them, and the references beside"):
        document = evaluate(places.run).to_dict()
    for title, headers, rows in tables(document):
        print_table(title, headers, rows)


def _export(places: DemoFolder) -> None:
    from training.export import export_run

    with remarks().status("exporting, and comparing every graph with the network"):
        path = export_run(places.run, places.bundles, ("onnx", "torchscript"))
    sizes = sorted((file.name, f"{file.stat().st_size / 1024:,.0f} KiB") for file in path.iterdir())
    print_table(f"{path.parent.name} {path.name}", ["file", "size"], sizes)


def _load(films: MovieLens, config: TrainingConfig, places: DemoFolder) -> None:
    """Through the same functions as `ctrlift behaviours load` and `ctrlift users load`."""
    from cli.behaviours import load_events, read_events
    from cli.loading import store_settings
    from cli.users import load_users, read_users

    settings = store_settings(places.settings, None)
    events_file, users_file = places.root / "behaviours.parquet", places.root / "users.parquet"
    _events(films).write_parquet(events_file)
    _users(films, config).write_parquet(users_file)
    events = read_events(events_file)
    done = asyncio.run(load_events(events, events_file, settings, batch=2000, quiet=False))
    users = read_users(users_file)
    written = asyncio.run(load_users(users, users_file, settings, batch=1000, quiet=False))
    say(f"    {done.accepted:,} new events, {done.duplicates:,} known; features of {written.accepted:,} users")


def _events(films: MovieLens) -> pl.DataFrame:
    """Every rating as a behaviour whose value is the rating."""
    return films.ratings.rename({"timestamp": "ts", "rating": "value"}).select("user_id", "item_id", "ts", "value")


def _users(films: MovieLens, config: TrainingConfig) -> pl.DataFrame:
    """The user features that the schema declares."""
    declared = {feature.name for feature in config.features.feature if feature.side == "user"}
    return films.users.select("user_id", *(name for name in films.users.columns if name in declared - {"user_id"}))


def _ask(films: MovieLens, service: ServiceProcess) -> None:
    """Score films that each user has not rated, at the moment after the user's last rating."""
    titles = dict(zip(films.items["item_id"], films.items["title"], strict=True))
    for body in _requests(films):
        _print_answer(body, service.post("/score", body), titles)


def _requests(films: MovieLens) -> list[dict[str, Any]]:
    """One request for each of the newest users with some history, and one for a user nobody knows."""
    import polars as pl

    by_user = films.ratings.group_by("user_id").agg(pl.len().alias("events"), pl.col("timestamp").max())
    shown = by_user.filter(pl.col("events") >= 20).sort("timestamp", "user_id").tail(USERS_SHOWN)
    popular = films.ratings.group_by("item_id").len().sort("len", "item_id", descending=[True, False])["item_id"]
    requests: list[dict[str, Any]] = []
    for user, last in shown.select("user_id", "timestamp").iter_rows():
        rated = set(films.ratings.filter(pl.col("user_id") == user)["item_id"])
        unseen = [film for film in popular if film not in rated][:FILMS_SHOWN]
        requests.append({"user_id": user, "candidates": unseen, "ts": last + 1})
    if not requests:
        raise InputProblem("the ratings hold no user with 20 of them, so there is nobody to score.")
    requests.append({**requests[-1], "user_id": UNKNOWN_USER})
    return requests


def _print_answer(body: dict[str, Any], answer: dict[str, Any], titles: dict[str, str]) -> None:
    """A table of the films, best first, headed by the reply's field names.

    Raises:
        CheckFailed: if the answer came without the stored behaviours of a user who has some.
    """
    behaviours = answer["behaviours"]
    if answer["degraded"] or (body["user_id"] != UNKNOWN_USER and not behaviours["length"]):
        raise CheckFailed(f"the answer for user {body['user_id']} was made without the store: {answer}")
    names = list(answer["scores"])
    columns = [body["candidates"], [titles[film] for film in body["candidates"]], *answer["scores"].values()]
    rows = sorted(zip(*columns, strict=True), key=lambda row: -row[2])
    title = f"user {body['user_id']}: {behaviours['length']} behaviours, source {behaviours['source']}"
    print_table(title, ["item_id", "film", *names], rows)

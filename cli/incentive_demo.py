"""The second half of the demo: a randomised trial of money, from its rows to effects and curves over HTTP.

Thornton paid people in Malawi between 0 and 3 dollars, drawn by lot, for fetching the result of their HIV test.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cli.evaluate import tables
from cli.exits import CheckFailed
from cli.output import print_table, remarks, say
from cli.service_process import ServiceProcess

if TYPE_CHECKING:
    import polars as pl

    from training.config import TrainingConfig
    from training.datasets import Dataset

CONFIG: Final = Path(__file__).parents[1] / "configs" / "thornton-incentive.toml"
PEOPLE_SHOWN: Final = 3
GRID: Final = 9
LEVEL: Final = 0.9
# People of the trial are numbered as MovieLens numbers its users, and one store holds both.
PREFIX: Final = "thornton-"
UNKNOWN: Final = "somebody-new"


def fetch_trial(config: TrainingConfig) -> Dataset:
    """The trial's rows, fetched where they are not on this machine."""
    from training.datasets import load_dataset

    return load_dataset(config, progress=lambda text: say(f"    {text}"))


def make_bundle(config: TrainingConfig, source: Path, run: Path, bundles: Path) -> None:
    """Train on the trial, show what the test rows say, and export."""
    from training.evaluate import evaluate
    from training.export import export_run
    from training.fit import train

    if (run / "run.json").is_file():
        shutil.rmtree(run)  # only what an earlier demo made; every demo trains anew
    train(config, run, config_text=source.read_text(encoding="utf-8"))
    with remarks().status("scoring the test rows"):
        document = evaluate(run).to_dict()
    for title, headers, rows in tables(document):
        print_table(title, headers, rows)
    with remarks().status("exporting, and comparing every graph with the network"):
        path = export_run(run, bundles, ("onnx", "torchscript"))
    say(f"    {path.parent.name} {path.name} is in {bundles}")


def load_people(trial: Dataset, file: Path, settings_file: Path) -> None:
    """The people's features into the store, through the same functions as `ctrlift users load`."""
    from cli.loading import store_settings
    from cli.users import load_users, read_users

    people_of(trial).write_parquet(file)
    users = read_users(file)
    written = asyncio.run(load_users(users, file, store_settings(settings_file, None), batch=1000, quiet=False))
    say(f"    features of {written.accepted:,} people of the trial")


def people_of(trial: Dataset) -> pl.DataFrame:
    """Everybody in the trial: an id that no other data set uses, and the features that the schema declares."""
    import polars as pl

    key = trial.features.ids.user
    names = [feature.name for feature in trial.features.feature if feature.name in trial.rows.columns]
    ids = (pl.lit(PREFIX) + pl.col(key)).alias("user_id")
    return trial.rows.select(ids, *(name for name in names if name != key))


def ask(trial: Dataset, bundle: str, service: ServiceProcess) -> None:
    """Ask for test people of the trial, from the nearest to the farthest from the clinic, and for somebody new.

    Raises:
        CheckFailed: if the answer came without the stored features.
    """
    test = trial.frame("test").sort("distvct", trial.features.ids.user)
    places = [round(number * (len(test) - 1) / (PEOPLE_SHOWN - 1)) for number in range(PEOPLE_SHOWN)]
    people = [f"{PREFIX}{test[trial.features.ids.user][place]}" for place in places]
    body: dict[str, Any] = {
        "users": [{"user_id": user} for user in [*people, UNKNOWN]],
        "model": bundle,
        "dose_grid": GRID,
        "interval": LEVEL,
        # What the result is worth to whoever pays, and what paying costs: a decision of theirs, not of the model.
        "budget": {"total": 3.0, "costs": {"incentive": {"per_dose": 1.0}}, "value_per_outcome": 10.0},
    }
    answer = service.post("/uplift", body)
    if answer["degraded"] or any("missing" in text for user in answer["users"][:-1] for text in user["warnings"]):
        raise CheckFailed(f"the answer was made without the stored features: {answer}")
    print_answer(answer)


def print_answer(answer: dict[str, Any]) -> None:
    """Tables headed by the reply's field names: effects, recommendations, the curves, the budget."""
    users = answer["users"]
    control, *treatments = users[0]["outcomes"]
    headers = ["user_id", *(f"outcomes.{arm}" for arm in (control, *treatments))]
    for arm in treatments:
        headers += [f"effects.{arm}", f"intervals.{arm}", f"overlap.{arm}"]
    print_table("POST /uplift", headers, [_answer(user, control, treatments) for user in users])
    fields = ("treatment", "dose", "expected_gain")
    headers = ["user_id", *(f"recommended.{field}" for field in fields), "warnings"]
    print_table("recommended within the budget", headers, [_recommended(user, fields) for user in users])
    for arm in treatments:
        curves = [(user["user_id"], user["dose_response"][arm]) for user in users if arm in user["dose_response"]]
        if not curves:
            continue
        supported = [all(values) for values in zip(*(curve["supported"] for _, curve in curves), strict=True)]
        columns = [curves[0][1]["dose"], *(curve["outcome"] for _, curve in curves), supported]
        names = ["dose", *(f"outcome of {user}" for user, _ in curves), "supported"]
        print_table(f"dose_response.{arm}", names, zip(*columns, strict=True))
    budget = answer["budget"]
    print_table("budget", list(budget), [list(budget.values())])


def _answer(user: dict[str, Any], control: str, treatments: list[str]) -> list[Any]:
    row: list[Any] = [user["user_id"], *(user["outcomes"][arm] for arm in (control, *treatments))]
    for arm in treatments:
        interval = (user["intervals"] or {}).get(arm)
        shown = None if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
        row += [user["effects"][arm], shown, user["overlap"][arm]]
    return row


def _recommended(user: dict[str, Any], fields: tuple[str, ...]) -> list[Any]:
    chosen = user["recommended"] or {}
    return [user["user_id"], *(chosen.get(field) for field in fields), "; ".join(user["warnings"])]

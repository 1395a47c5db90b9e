"""`ctrlift uplift FILE`: a file of users, answered by the code that answers `/uplift`.

Columns: user_id and features by their names in the schema. Out come the same rows in the same order with
outcome_<arm>, effect_<arm>, overlap_<arm>, with --interval lower_<arm> and upper_<arm>, then recommended_treatment,
recommended_dose, expected_gain, model and version. A budget is allocated over the whole file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.exits import InputProblem, UsageProblem
from cli.loading import Config, StoreUrl
from cli.output import AsJson, Quiet, print_json, print_table, progress, say
from cli.score import bundle_path

if TYPE_CHECKING:
    import polars as pl

    from bundle.population import Person
    from bundle.request import StoredUser
    from service.core.question import Asked, Question
    from service.core.treated import Treated
    from service.core.uplift_version import UpliftVersion
    from service.settings import Settings

BLOCK: Final = 5000

Treatments = Annotated[list[str] | None, typer.Option("--treatment", help="One to ask for; default all.")]
Doses = Annotated[list[str] | None, typer.Option("--dose", help="TREATMENT=DOSE in its own unit.")]
Costs = Annotated[list[str] | None, typer.Option("--cost", help="TREATMENT=BASE or TREATMENT=BASE+PER_DOSE.")]


def uplift(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV with user_id and feature columns.")],
    out: Annotated[Path, typer.Option(help="Where the rows go with their outcomes, effects and recommendations.")],
    model: Annotated[str | None, typer.Option(help="name, name@version or name@alias; default the route.")] = None,
    models: Annotated[Path | None, typer.Option(help="models.dir: the model store's folder")] = None,
    treatment: Treatments = None,
    dose: Doses = None,
    interval: Annotated[float | None, typer.Option(help="Level of the effects' intervals, such as 0.9.")] = None,
    budget: Annotated[float | None, typer.Option(min=0, help="What all users together may cost.")] = None,
    cost: Costs = None,
    value: Annotated[float, typer.Option(help="What one unit of the outcome is worth.")] = 1.0,
    allow_extrapolation: Annotated[bool, typer.Option(help="Recommend also what hardly anybody was given.")] = False,
    config: Config = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Treatment effects for a file of users: the same rows in the same order, with who should get what."""
    from cli.tables import read_table, require_columns, write_table
    from service.core.uplift_version import load_uplift
    from service.settings import load_settings

    asked = _question(treatment, dose, interval, _budget(budget, cost, value), allow_extrapolation)
    given = {"models": {"dir": str(models)} if models else {}, "store": {"url": store} if store else {}}
    settings = load_settings(config, {section: keys for section, keys in given.items() if keys})
    frame = read_table(file, text=("user_id",))
    require_columns(frame.columns, ("user_id",), file)
    version = load_uplift(
        bundle_path(settings, model, "uplift"), engine=settings.models.engine, threads=settings.threads.intra
    )
    try:
        answered = _answers(frame, version, asked, settings, file, quiet=quiet)
    finally:
        version.close()
    for name in answered.columns:
        if name in frame.columns:
            raise InputProblem(f"{file}: column {name} is one that this command writes; rename it.")
    write_table(frame.hstack(list(answered.columns.values())), out)
    summary = {"rows": len(frame), "model": version.name, "version": version.version, **answered.totals, "out": out}
    if as_json:
        print_json({**summary, "warnings": answered.warnings, "remarks": dict(answered.remarks)})
        return
    for warning in answered.warnings:
        say(f"warning: {warning}")
    for remark, count in answered.remarks.most_common():
        say(f"{remark}: {count} users")
    print_table(str(file), list(summary), [list(summary.values())])


class Answers:
    """Columns to add, and what there is to say about them."""

    def __init__(self) -> None:
        self.columns: dict[str, pl.Series] = {}
        self.totals: dict[str, float] = {}
        self.warnings: list[str] = []
        self.remarks: Counter[str] = Counter()


def _question(
    treatments: list[str] | None, doses: list[str] | None, interval: float | None, budget: Any, extrapolate: bool
) -> Question:
    from service.core.question import Interval, Question

    if interval is not None and not 0 < interval < 1:
        raise UsageProblem(f"--interval must be between 0 and 1, got {interval:g}.")
    return Question(
        treatments=tuple(treatments) if treatments else None,
        doses={name: _number(text, f"--dose {name}") for name, text in _pairs(doses, "--dose")},
        interval=None if interval is None else Interval(interval),
        budget=budget,
        allow_extrapolation=extrapolate,
    )


def _budget(total: float | None, costs: list[str] | None, value: float) -> Any:
    from service.core.question import Budget, Cost

    found = {}
    for name, text in _pairs(costs, "--cost"):
        base, _, per_dose = text.partition("+")
        found[name] = Cost(_number(base, f"--cost {name}"), _number(per_dose or "0", f"--cost {name}"))
        if min(found[name].base, found[name].per_dose) < 0:
            raise UsageProblem(f"--cost {name}: a cost must not be negative.")
    if total is None and (found or value != 1.0):
        raise UsageProblem("--cost and --value need --budget; without limit it is --budget inf.")
    return None if total is None else Budget(total, found, value)


def _pairs(texts: list[str] | None, option: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts or ():
        name, equals, rest = text.rpartition("=")
        if not equals or not name:
            raise UsageProblem(f"{option}: expected TREATMENT=NUMBER, got {text!r}.")
        pairs.append((name, rest))
    return pairs


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageProblem(f"{option}: expected a number, got {text!r}.") from None


def _answers(
    frame: pl.DataFrame, version: UpliftVersion, asked: Question, settings: Settings, file: Path, *, quiet: bool
) -> Answers:
    """All rows, block by block; with a budget in one, since money is given out over all of them."""
    import polars as pl

    from bundle.errors import FeatureError
    from bundle.population import UpliftQuery
    from service.core import question
    from service.core.treated import Users
    from service.core.treating import treat
    from service.errors import InvalidFeatures

    try:
        fitting = question.check(asked, version.part)
    except InvalidFeatures as error:
        raise UsageProblem(f"{error.detail}.") from error
    people = _people(frame, version, file)
    stored = _stored(people, version, settings)
    size = BLOCK if asked.budget is None else max(1, len(people))
    found, parts = Answers(), []
    with progress(quiet=quiet) as bar:
        task = bar.add_task("uplift", total=len(people), note="")
        for start in range(0, len(people), size):
            block = people[start : start + size]
            kept = None if stored is None else stored[start : start + size]
            try:
                treated = treat(version, Users(UpliftQuery(block, _now()), kept), fitting)
            except FeatureError as error:
                raise InputProblem(_first_problem(error, start, file)) from error
            parts.append(pl.DataFrame(_columns(treated, version)))
            found.remarks.update({text: int(flags.sum()) for text, flags in treated.notes.items()})
            found.warnings = treated.warnings
            found.totals = _totals(treated)
            bar.update(task, completed=start + len(block))
    found.columns = {series.name: series for series in pl.concat(parts).get_columns()}
    return found


def _now() -> float:
    import time

    return time.time()


def _people(frame: pl.DataFrame, version: UpliftVersion, file: Path) -> list[Person]:
    from bundle.population import Person
    from cli.tables import text_ids

    ids = text_ids(frame, "user_id", file).to_list()
    if not ids:
        raise InputProblem(f"{file}: there are no rows.")
    names = [name for name in frame.columns if name in version.given_names and name != "user_id"]
    columns = [frame[name].to_list() for name in names]
    # An empty cell says nothing, so that the store may; in a request null would say that there is no value.
    rows = zip(*columns, strict=True) if columns else (() for _ in ids)
    return [
        Person(user, {name: value for name, value in zip(names, row, strict=True) if value is not None})
        for user, row in zip(ids, rows, strict=True)
    ]


def _stored(people: Sequence[Person], version: UpliftVersion, settings: Settings) -> list[StoredUser | None] | None:
    """What the store holds of the users who need it; None where there is no store or nobody does."""
    from cli.batch.stored import StoredUsers

    count = len(version.given_names)
    needed = [n for n, one in enumerate(people) if version.reads_behaviours or len(one.features) < count]
    if not needed:
        return None
    if settings.store.url in {"embedded://", "memory://"}:
        say(f"no store: {len(needed)} users are answered for by the file's columns alone (--store names a store)")
        return None
    found: list[StoredUser | None] = [None] * len(people)
    with StoredUsers(settings) as store:
        read = store.read(list({people[n].user_id or "" for n in needed}))
    for n in needed:
        found[n] = read[people[n].user_id or ""]
    return found


def _columns(treated: Treated, version: UpliftVersion) -> dict[str, Any]:
    import numpy as np
    import polars as pl

    from bundle.effects import OVERLAP

    asked: Asked = treated.asked
    out: dict[str, Any] = {}
    for place, name in enumerate((version.part.control, *asked.names)):
        out[f"outcome_{name}"] = treated.outcomes[:, place]
    for place, name in enumerate(asked.names):
        out[f"effect_{name}"] = treated.effects[:, place]
        if treated.intervals is not None:
            out[f"lower_{name}"], out[f"upper_{name}"] = (ends[:, place] for ends in treated.intervals)
        out[f"overlap_{name}"] = [OVERLAP[flag] for flag in treated.overlap[:, place]]
    names = {-1: None, 0: version.part.control} | dict(enumerate(asked.names, start=1))
    arms = treated.recommended.arm
    out["recommended_treatment"] = pl.Series([names[arm] for arm in arms.tolist()], dtype=pl.String)
    out["recommended_dose"] = np.where(arms < 0, np.nan, treated.recommended.dose)
    out["expected_gain"] = treated.recommended.gain
    out = {
        name: pl.Series(column, nan_to_null=True) if isinstance(column, np.ndarray) else column
        for name, column in out.items()
    }
    rows = len(arms)
    return out | {"model": [version.name] * rows, "version": [version.version] * rows}


def _totals(treated: Treated) -> dict[str, float]:
    budget = treated.recommended.budget
    if budget is None:
        return {}
    return {
        "spent": budget.spent,
        "expected_gain": budget.gain,
        "shadow_price": budget.shadow_price,
        "treated": int((treated.recommended.arm > 0).sum()),
    }


def _first_problem(error: Any, start: int, file: Path) -> str:
    """A request's JSON pointer as the file's column and row."""
    problem = error.problems[0]
    parts = problem.pointer.strip("/").split("/")
    row = start + int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else start
    column = parts[3] if len(parts) > 3 else "user_id"
    return f"{file}: column {column}, row {row + 1}: {problem.message}"

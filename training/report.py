"""The model card and the plots of a run: one HTML file each that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.card.figures import auc_figure, calibration_figure, loss_figure, plotly_script
from training.run import RunFolder, RunIndex, write_bytes

CARD_METRICS: Final = ("auc", "gauc", "logloss", "pcoc", "ece")


@dataclass(frozen=True, slots=True)
class CardFile:
    """One file that the card lists."""

    name: str
    size: int
    sha256: str


def environment() -> Environment:
    """Templates with escaping always on, and an error for a value that is missing."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "card"), autoescape=True, undefined=StrictUndefined
    )


def write_run_plots(run: RunFolder) -> Path:
    """Loss and AUC of a run as ``plots/training.html``; returns the file."""
    index, history = run.index(), run.history()
    page = (
        environment()
        .get_template("plots.html.j2")
        .render(
            heading=f"{index.bundle_name}: {index.network}",
            index=index,
            plotly=plotly_script(),
            loss=loss_figure(history),
            auc=auc_figure(history),
        )
    )
    run.plots_dir.mkdir(exist_ok=True)
    target = run.plots_dir / "training.html"
    write_bytes(target, page.encode())
    return target


def card_html(
    run: RunFolder,
    version: str,
    evaluation: Mapping[str, Any],
    calibrators: Mapping[str, str],
    files: Sequence[CardFile],
) -> str:
    """The card of one bundle.

    Args:
        run: the run that the bundle was exported from.
        version: of the bundle.
        evaluation: ``Evaluation.to_dict()`` of rows that took no part in training.
        calibrators: kind of calibrator by task.
        files: what the bundle holds besides card and manifest.
    """
    index, history = run.index(), run.history()
    return (
        environment()
        .get_template("card.html.j2")
        .render(
            name=index.bundle_name,
            version=version,
            index=index,
            splits=splits(index, evaluation),
            evaluation=evaluation,
            metrics=CARD_METRICS,
            calibration=[
                {
                    "html": calibration_figure(task, number, found["curve_raw"], found["curve_calibrated"]),
                    "before": found["raw"]["ece"],
                    "after": found["calibrated"]["ece"],
                    "kind": calibrators.get(task, "product of the tasks"),
                }
                for number, (task, found) in enumerate(evaluation["tasks"].items())
            ],
            plotly=plotly_script(),
            loss=loss_figure(history),
            auc=auc_figure(history),
            features=[feature_row(feature) for feature in run.config().get("feature", [])],
            limits=limits_of_use(index, evaluation),
            files=files,
        )
    )


def splits(index: RunIndex, evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows and time window of each split."""
    rows = {**index.rows, evaluation["split"]: evaluation["rows"]}
    shown = []
    for name, count in rows.items():
        first, last = index.window.get(name, (None, None))
        shown.append({"name": name, "rows": count, "first": day(first), "last": day(last)})
    return shown


def day(seconds: float | None) -> str:
    """A time as a date in UTC, or a dash where the data have none."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def feature_row(feature: Mapping[str, Any]) -> dict[str, str]:
    """One declared feature as the card shows it."""
    known = ("name", "side", "kind")
    detail = ", ".join(f"{key} = {value}" for key, value in feature.items() if key not in known and value is not None)
    return {
        "name": str(feature["name"]),
        "side": str(feature.get("side", "user")),
        "kind": str(feature["kind"]),
        "detail": detail,
    }


def limits_of_use(index: RunIndex, evaluation: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting the scores, from what was measured."""
    last = max((stop for _, stop in index.window.values()), default=None)
    limits = [
        f"Trained on {index.dataset}: scores for another catalogue, audience or exposure policy are unmeasured.",
        "Items and values that training never saw share one vector each; the service counts them in its warnings.",
    ]
    if last is not None:
        limits.append(f"The newest row is of {day(last)} UTC: what changed since then is unknown to the network.")
    limits += evaluation.get("notes", ())
    for task, found in evaluation["tasks"].items():
        lost, own = found["without_history"], found["calibrated"]
        if lost and lost["auc"]["value"] is not None and own["auc"]["value"] is not None:
            limits.append(
                f"A user without a readable history is scored from the rest alone: AUC of {task} "
                f"{lost['auc']['value']:.4f} instead of {own['auc']['value']:.4f}."
            )
        for reference in evaluation["references"]:
            gain = reference["gain"].get("auc")
            if reference["task"] == task and gain and gain["low"] is not None and gain["low"] <= 0:
                limits.append(f"On {task} the network is not clearly better than {reference['name']}.")
    return limits

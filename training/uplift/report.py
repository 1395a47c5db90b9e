"""Plots and the model card of a run of treatment effects: one HTML file each that opens without a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from training.card.figures import plotly_script
from training.card.stage_figure import stage_figure
from training.report import CardFile, environment, feature_row, splits
from training.run import RunFolder, RunIndex, write_bytes
from training.uplift.figures import evaluation_figures
from training.uplift.measures import Observed
from training.uplift.predict import Predictions

Document = dict[str, Any]


def write_uplift_plots(run: RunFolder) -> Path:
    """Losses of a run as ``plots/training.html``; returns the file."""
    return _write(run, "training", [stage_figure(run.history())], [])


def write_evaluation_plots(run: RunFolder, document: Document, observed: Observed, predictions: Predictions) -> Path:
    """Figures of one evaluation as ``plots/evaluation-<split>.html``; returns the file."""
    split = document["split"]
    figures = evaluation_figures(document, observed, predictions)
    notes = [f"{document['rows']:,} {split} rows", *document["warnings"]]
    return _write(run, f"evaluation-{split}", figures, notes)


def _write(run: RunFolder, name: str, figures: Iterable[Markup], notes: Sequence[str]) -> Path:
    index = run.index()
    page = (
        environment()
        .get_template("uplift_plots.html.j2")
        .render(
            heading=f"{index.bundle_name}: {index.network}",
            index=index,
            plotly=plotly_script(),
            figures=list(figures),
            notes=notes,
        )
    )
    run.plots_dir.mkdir(exist_ok=True)
    target = run.plots_dir / f"{name}.html"
    write_bytes(target, page.encode())
    return target


def uplift_card_html(
    run: RunFolder,
    version: str,
    evaluation: Document,
    part: Mapping[str, Any],
    figures: Sequence[Markup],
    files: Sequence[CardFile],
) -> str:
    """The card of one bundle.

    Args:
        run: the run that the bundle was exported from.
        version: of the bundle.
        evaluation: ``UpliftEvaluation.to_dict()`` of rows that took no part in training.
        part: ``UpliftPart`` as plain values.
        figures: of the evaluation.
        files: what the bundle holds besides card and manifest.
    """
    index = run.index()
    return (
        environment()
        .get_template("uplift_card.html.j2")
        .render(
            name=index.bundle_name,
            version=version,
            index=index,
            splits=splits(index, evaluation),
            evaluation=evaluation,
            part=part,
            plotly=plotly_script(),
            figures=[*figures, stage_figure(run.history())],
            features=[feature_row(feature) for feature in run.config().get("feature", [])],
            limits=limits_of_use(index, evaluation, part),
            files=files,
        )
    )


def limits_of_use(index: RunIndex, evaluation: Document, part: Mapping[str, Any]) -> list[str]:
    """What a reader must know before giving anybody a treatment because of this model, from what was measured."""
    limits = [
        f"Trained on {index.dataset}: effects on other people, or of a treatment given otherwise, are unmeasured.",
        "Effects are causal only if everything that decided who was treated, and also moves the outcome, is a feature, "
        "or treatment was given at random.",
        "The ranking metrics and the effect by decile compare means of the arms: they are fair where treatment was "
        "random, and mislead where it was not.",
        "Values that training never saw share one vector; the service counts them in its warnings.",
    ]
    limits += evaluation["warnings"]
    for arm, support in part["arms"].items():
        if support["low_support"] and not (arm == part["treatments"][0] and part["reference_dose"] is not None):
            limits.append(f"{arm}: {support['rows']} training rows, too few for intervals from residuals.")
    for arm, found in evaluation["arms"].items():
        area = found["ranking"]["qini_norm_area"]
        if area["low"] is not None and area["low"] <= 0:
            limits.append(f"{arm}: the order of users by effect is not clearly better than a random one.")
    if not part["conformal"]:
        limits.append("There are no conformal intervals.")
    return limits

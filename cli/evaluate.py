"""`ctrlift evaluate RUN`: metrics of a run on one part of its data, beside the references."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import AsJson, print_json, print_table, remarks


class Part(StrEnum):
    """Parts of the data that were held out of the fit."""

    VALID = "valid"
    TEST = "test"


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder made by `ctrlift train`.")],
    part: Annotated[Part, typer.Option(help="Rows to score; the calibrator was fitted on valid.")] = Part.TEST,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples of users for the 95 % intervals; 0 for none.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Score held-out rows of the run's data, beside item rate and logistic regression on the same rows."""
    from training.evaluate import evaluate as evaluate_run

    with remarks().status(f"scoring the {part.value} rows and the references"):
        document = evaluate_run(run, part.value, bootstrap=bootstrap).to_dict()
    if as_json:
        print_json(document)
        return
    for title, headers, rows in tables(document):
        print_table(title, headers, rows)


def tables(document: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """One table a task: a line for the network and one for every reference; each value with its interval."""
    found = []
    for task, evaluation in document["tasks"].items():
        metrics = evaluation["calibrated"]
        lines = [("network", metrics)]
        lines += [(entry["name"], entry["metrics"]) for entry in document["references"] if entry["task"] == task]
        rows = [[name, *(_with_interval(values.get(metric)) for metric in metrics)] for name, values in lines]
        title = f"{document['split']}, {task}: {document['rows']:,} rows of {document['users']:,} users"
        found.append((title, ["", *metrics], rows))
    return found


def _with_interval(value: Mapping[str, float | None] | None) -> str:
    """`.7790 (.7692, .7881)`; a dash where the metric is undefined."""
    if value is None or value["value"] is None:
        return "-"
    text = f"{value['value']:.4f}"
    low, high = value["low"], value["high"]
    return text if low is None or high is None else f"{text} ({low:.4f}, {high:.4f})"

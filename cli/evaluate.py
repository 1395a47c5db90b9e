"""`ctrlift evaluate RUN`: metrics of a run on one part of its data, beside the references."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import AsJson, print_json, print_table, remarks


class Part(StrEnum):
    """Parts of the data; train only with treatments, for in-sample errors."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder made by `ctrlift train`.")],
    part: Annotated[Part, typer.Option(help="Rows to score; the calibrator was fitted on valid.")] = Part.TEST,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples of users for the 95 % intervals; 0 for none.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Score held-out rows of the run's data, beside simple models on the same rows."""
    from training.evaluate import evaluate as evaluate_run

    with remarks().status(f"scoring the {part.value} rows and the references"):
        document = evaluate_run(run, part.value, bootstrap=bootstrap).to_dict()
    if as_json:
        print_json(document)
        return
    for title, headers, rows in tables(document):
        print_table(title, headers, rows)


def tables(document: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Tables of an evaluation, each value with its interval."""
    return _click_tables(document) if "tasks" in document else _uplift_tables(document)


def _click_tables(document: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """One table a task: a line for the network and one for every reference."""
    found = []
    for task, evaluation in document["tasks"].items():
        metrics = evaluation["calibrated"]
        lines = [("network", metrics)]
        lines += [(entry["name"], entry["metrics"]) for entry in document["references"] if entry["task"] == task]
        rows = [[name, *(_with_interval(values.get(metric)) for metric in metrics)] for name, values in lines]
        title = f"{document['split']}, {task}: {document['rows']:,} rows of {document['users']:,} users"
        found.append((title, ["", *metrics], rows))
    return found


def _uplift_tables(document: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """One table an arm: a line a metric, a column for the network and one for every reference."""
    found = []
    control = document["treatments"][0]
    names = [reference["name"] for reference in document["references"]]
    for arm, own in document["arms"].items():
        others = [reference["arms"][arm] for reference in document["references"]]
        effect = own["effect"]
        rows = [["mean predicted effect", *(_number(model["predicted"]) for model in (effect, *others))]]
        for metric in ("difference_in_means", "aipw", "tmle"):
            if metric in effect:
                rows.append([metric, _with_interval(effect[metric]), *("" for _ in others)])
        for metric in own["ranking"]:
            rows.append([metric, *(_with_interval(model["ranking"].get(metric)) for model in (own, *others))])
        for metric in ("sqrt_pehe", "ate_error"):
            if metric in own["truth"]:
                rows.append([metric, *(_number(model["truth"].get(metric)) for model in (own, *others))])
        title = f"{document['split']}, {arm} against {control}: {effect['rows']:,} and {effect['control_rows']:,} rows"
        found.append((title, ["", "network", *names], rows))
    for arm, curve in document["doses"].items():
        if "truth" in curve:
            rows = [[metric, _number(value)] for metric, value in curve["truth"].items()]
            found.append((f"{document['split']}, curve of {arm}", ["", "network"], rows))
    rows = [[metric, _number(value)] for metric, value in document["factual"].items() if not isinstance(value, Mapping)]
    found.append((f"{document['split']}, outcomes that happened: {document['rows']:,} rows", ["", "network"], rows))
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _with_interval(value: Mapping[str, float | None] | None) -> str:
    """`.7790 (.7692, .7881)`; a dash where the metric is undefined."""
    if value is None or value["value"] is None:
        return "-"
    text = f"{value['value']:.4f}"
    low, high = value["low"], value["high"]
    return text if low is None or high is None else f"{text} ({low:.4f}, {high:.4f})"

"""Figures of a run as HTML fragments; plotly's own script is inlined once by the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.io import to_html
from plotly.offline import get_plotlyjs

Lines = Sequence[Mapping[str, Any]]


def plotly_script() -> Markup:
    """The library itself; trusted text of an installed package."""
    return Markup(get_plotlyjs())


def fragment(figure: go.Figure, name: str) -> Markup:
    """One figure without the library. Plotly escapes what its JSON carries."""
    figure.update_layout(template="plotly_white", height=360, margin={"l": 56, "r": 16, "t": 40, "b": 48})
    html = to_html(
        figure, include_plotlyjs=False, full_html=False, div_id=name, config={"displaylogo": False, "responsive": True}
    )
    return Markup(html)


def loss_figure(history: Lines) -> Markup:
    """Training loss by step, with the validation logloss of every task at each validation."""
    figure = go.Figure()
    steps = [line for line in history if line["kind"] == "step"]
    figure.add_scatter(x=[s["step"] for s in steps], y=[s["loss"] for s in steps], name="training loss", mode="lines")
    if any(s["auxiliary"] for s in steps):
        figure.add_scatter(
            x=[s["step"] for s in steps], y=[s["auxiliary"] for s in steps], name="auxiliary loss", mode="lines"
        )
    for task, points in validations(history, "logloss").items():
        figure.add_scatter(**points, name=f"validation logloss {task}", mode="lines+markers")
    figure.update_layout(title="Loss", xaxis_title="step", yaxis_title="nats")
    return fragment(figure, "loss")


def auc_figure(history: Lines) -> Markup:
    """Validation AUC and GAUC at each validation."""
    figure = go.Figure()
    for metric in ("auc", "gauc"):
        for task, points in validations(history, metric).items():
            figure.add_scatter(**points, name=f"{metric.upper()} {task}", mode="lines+markers")
    best = [line for line in history if line["kind"] == "validation" and line["best"]]
    if best:
        figure.add_vline(x=best[-1]["step"], line_dash="dot", annotation_text="kept")
    figure.update_layout(title="Validation AUC", xaxis_title="step", yaxis_title="AUC")
    return fragment(figure, "auc")


def validations(history: Lines, metric: str) -> dict[str, dict[str, list[Any]]]:
    """Points of one validation metric by task."""
    points: dict[str, dict[str, list[Any]]] = {}
    for line in history:
        if line["kind"] != "validation":
            continue
        for task, found in line["valid"].items():
            at = points.setdefault(task, {"x": [], "y": []})
            at["x"].append(line["step"])
            at["y"].append(found[metric])
    return points


def calibration_figure(task: str, number: int, before: Lines, after: Lines) -> Markup:
    """Observed share against the mean prediction, before and after calibration.

    Args:
        task: shown in the title.
        number: makes the figure's id unique on its page.
        before: bins with ``predicted`` and ``observed``.
        after: the same of the calibrated probabilities.
    """
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": "#888"}, name="perfect")
    for name, bins in (("before", before), ("after", after)):
        figure.add_scatter(
            x=[b["predicted"] for b in bins], y=[b["observed"] for b in bins], mode="lines+markers", name=name
        )
    figure.update_layout(title=f"Calibration: {task}", xaxis_title="mean prediction", yaxis_title="observed share")
    return fragment(figure, f"calibration-{number}")

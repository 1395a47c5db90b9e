"""The losses of a training in stages as one HTML fragment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from training.card.figures import fragment


def stage_figure(history: Sequence[Mapping[str, Any]]) -> Markup:
    """Training loss of every phase and validation loss of every stage by step, and where each stage's best was.

    Args:
        history: lines of ``metrics.jsonl``.
    """
    figure = go.Figure()
    for (stage, phase), points in _curves(history, "epoch", "loss").items():
        named = stage if phase in (stage, "all", None) else f"{stage}, {phase}"
        figure.add_scatter(**points, name=f"training loss: {named}", mode="lines")
    for (stage, _), points in _curves(history, "validation", "valid").items():
        figure.add_scatter(**points, name=f"validation loss: {stage}", mode="lines")
    best = {line["stage"]: line for line in history if line["kind"] == "validation" and line["best"]}
    if best:
        figure.add_scatter(
            x=[line["step"] for line in best.values()],
            y=[line["valid"] for line in best.values()],
            name="kept",
            mode="markers",
            marker={"symbol": "circle-open", "size": 11, "color": "#222"},
        )
    figure.update_layout(title="Loss", xaxis_title="step", yaxis_title="loss")
    return fragment(figure, "loss")


def _curves(
    history: Sequence[Mapping[str, Any]], kind: str, value: str
) -> dict[tuple[str, str | None], dict[str, list[Any]]]:
    """Points of one kind of line by stage and phase."""
    found: dict[tuple[str, str | None], dict[str, list[Any]]] = {}
    for line in history:
        if line["kind"] == kind:
            points = found.setdefault((line["stage"], line.get("phase")), {"x": [], "y": []})
            points["x"].append(line["step"])
            points["y"].append(line[value])
    return found

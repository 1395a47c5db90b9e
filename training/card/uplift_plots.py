"""Figures of treatment-effect models as HTML fragments, drawn from numbers that are already computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from numpy.typing import ArrayLike

from training.card.figures import fragment
from training.metrics.uplift_bootstrap import CurveBand
from training.metrics.uplift_calibration import UpliftCalibration
from training.metrics.uplift_columns import Booleans, arm_codes, column, mask, probabilities
from training.metrics.uplift_propensity import OVERLAP

_GREY: Final = "#888"
_SHADE: Final = "rgba(31, 119, 180, 0.15)"
_HISTOGRAM_BINS: Final = 40
_NORMAL_95: Final = 1.96


def qini_figure(curve: CurveBand, name: str, title: str = "Qini curve") -> Markup:
    """The curve with its bootstrap band and the line of a random order.

    Args:
        curve: of `uplift_bootstrap.qini_band`.
        name: the figure's id, unique on its page.
        title: above the figure.
    """
    figure = go.Figure()
    share = curve.x.tolist()
    outline = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_scatter(x=share, y=curve.low.tolist(), showlegend=False, **outline)
    band = f"{curve.level:.0%} of {curve.replicates} bootstrap replicates"
    figure.add_scatter(x=share, y=curve.high.tolist(), fill="tonexty", fillcolor=_SHADE, name=band, **outline)
    figure.add_scatter(x=share, y=curve.y.tolist(), mode="lines", name="model")
    figure.add_scatter(
        x=share, y=curve.random.tolist(), mode="lines", line={"dash": "dot", "color": _GREY}, name="random order"
    )
    figure.update_layout(
        title=title, xaxis_title="share of rows, best scores first", yaxis_title="outcome gained per treated row"
    )
    return fragment(figure, name)


def decile_figure(calibration: UpliftCalibration, name: str, title: str = "Effect by predicted effect") -> Markup:
    """Mean predicted and observed effect of each bin, observed ones with a 95 % interval; unknown ones are left out.

    Args:
        calibration: of `uplift_calibration`, its bins from the lowest prediction to the highest.
        name: the figure's id, unique on its page.
        title: above the figure.
    """
    numbers = list(range(1, len(calibration.bins) + 1))
    errors = [part.standard_error for part in calibration.bins]
    figure = go.Figure()
    figure.add_bar(x=numbers, y=[part.predicted for part in calibration.bins], name="predicted")
    figure.add_bar(
        x=numbers,
        y=[part.observed for part in calibration.bins],
        error_y={"array": [None if error is None else _NORMAL_95 * error for error in errors]},
        name="observed",
    )
    figure.update_layout(
        title=title, xaxis_title="bin, lowest predicted effect first", yaxis_title="effect", barmode="group"
    )
    return fragment(figure, name)


def overlap_figure(
    treatment: ArrayLike, propensity: ArrayLike, arms: Sequence[str], name: str, of: int = 1, title: str = "Overlap"
) -> Markup:
    """Share of each arm's rows by their propensity of one arm; arms that do not overlap cannot be compared.

    Args:
        treatment: (B,) arm numbers.
        propensity: (B, K).
        arms: K names.
        name: the figure's id, unique on its page.
        of: the arm whose propensity is drawn.
        title: above the figure.

    Raises:
        ValueError: if an array is malformed or has a NaN, names are not K, or the arm does not exist.
    """
    rows = len(column(treatment, "treatment"))
    given = probabilities(propensity, "propensity", rows)
    if len(arms) != given.shape[1] or not 0 <= of < len(arms):
        raise ValueError(f"{given.shape[1]} arms need as many names and a number among them, got {list(arms)} and {of}")
    received = arm_codes(treatment, "treatment", len(arms))
    edges = np.linspace(0.0, 1.0, _HISTOGRAM_BINS + 1)
    figure = go.Figure()
    for number, arm in enumerate(arms):
        inside = given[received == number, of]
        count, _ = np.histogram(inside, edges)
        figure.add_bar(
            x=((edges[1:] + edges[:-1]) / 2).tolist(),
            y=(count / max(1, len(inside))).tolist(),
            width=1 / _HISTOGRAM_BINS,
            opacity=0.6,
            name=f"{arm} ({len(inside)} rows)",
        )
    for bound in OVERLAP:
        figure.add_vline(x=bound, line_dash="dot", line_color=_GREY)
    figure.update_layout(
        title=title, xaxis_title=f"propensity of {arms[of]}", yaxis_title="share of the arm's rows", barmode="overlay"
    )
    figure.update_xaxes(range=[0, 1])
    return fragment(figure, name)


def dose_figure(
    doses: ArrayLike,
    curve: ArrayLike,
    supported: ArrayLike,
    name: str,
    truth: ArrayLike | None = None,
    title: str = "Dose response",
) -> Markup:
    """Outcome by dose, the doses that training rows support shaded, and the true curve where it is known.

    Args:
        doses: (G,) increasing.
        curve: (G,) predicted outcome.
        supported: (G,) booleans.
        name: the figure's id, unique on its page.
        truth: (G,) or None.
        title: above the figure.

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    grid = column(doses, "doses")
    predicted = column(curve, "curve", len(grid))
    figure = go.Figure()
    for first, last in _stretches(mask(supported, "supported", len(grid))):
        # Half a step to each side, so that a single supported point is seen.
        low = (grid[first] + grid[max(first - 1, 0)]) / 2
        high = (grid[last] + grid[min(last + 1, len(grid) - 1)]) / 2
        figure.add_vrect(x0=float(low), x1=float(high), fillcolor=_SHADE, line_width=0, layer="below")
    figure.add_scatter(x=grid.tolist(), y=predicted.tolist(), mode="lines", name="model")
    if truth is not None:
        known = column(truth, "truth", len(grid)).tolist()
        figure.add_scatter(x=grid.tolist(), y=known, mode="lines", line={"dash": "dash", "color": _GREY}, name="truth")
    figure.update_layout(title=title, xaxis_title="dose (shaded: supported)", yaxis_title="outcome")
    return fragment(figure, name)


def _stretches(supported: Booleans) -> list[tuple[int, int]]:
    """First and last position of each run of True."""
    edges = np.diff(np.concatenate([[0], supported.astype(np.int64), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) - 1).tolist(), strict=True))

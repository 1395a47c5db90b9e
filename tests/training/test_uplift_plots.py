import json
import re
from typing import Any

import numpy as np
import pytest

from training.card.uplift_plots import decile_figure, dose_figure, overlap_figure, qini_figure
from training.metrics.uplift_bootstrap import CurveBand, qini_band
from training.metrics.uplift_calibration import UpliftBin, UpliftCalibration

CALL = re.compile(r'Plotly\.newPlot\(\s*"([^"]*)",\s*')


def drawn(html: str) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    """Id, traces and layout of a fragment."""
    call = CALL.search(html)
    assert call is not None
    read = json.JSONDecoder().raw_decode
    data, stop = read(html, call.end())
    layout, _ = read(html, html.index("{", stop))
    return call[1], data, layout


def band() -> CurveBand:
    generator = np.random.default_rng(0)
    treated = generator.random(200) < 0.5
    outcome = (generator.random(200) < 0.4).astype(float)
    return qini_band(outcome, generator.random(200), treated, points=11, replicates=20)


def test_the_qini_figure_shows_curve_band_and_random_line() -> None:
    curve = band()
    name, traces, layout = drawn(qini_figure(curve, "qini-0", "Qini of <b>w</b>"))
    low, high, model, line = traces
    assert name == "qini-0"
    assert (low["y"], high["y"]) == (curve.low.tolist(), curve.high.tolist())
    assert high["fill"] == "tonexty"
    assert high["name"] == "95% of 20 bootstrap replicates"
    assert (model["x"], model["y"]) == (curve.x.tolist(), curve.y.tolist())
    assert line["y"] == curve.random.tolist()
    assert layout["title"]["text"] == "Qini of <b>w</b>"


def test_fragments_escape_what_they_are_given() -> None:
    html = qini_figure(band(), "q", "</script><script>alert(1)</script>")
    assert "</script><script>alert" not in html


def test_the_decile_figure_leaves_unknown_effects_out() -> None:
    bins = (
        UpliftBin(0.0, 0.1, 5, 0.05, 0.2, 0.1),
        UpliftBin(0.1, 0.2, 5, 0.15, 0.3, None),
        UpliftBin(0.2, 0.9, 5, 0.6, None, None),
    )
    _, (predicted, observed), _ = drawn(decile_figure(UpliftCalibration(bins, 0.1), "deciles"))
    assert predicted["x"] == [1, 2, 3]
    assert predicted["y"] == [0.05, 0.15, 0.6]
    assert observed["y"] == [0.2, 0.3, None]
    assert observed["error_y"]["array"] == [pytest.approx(1.96 * 0.1), None, None]


def test_the_overlap_figure_has_a_histogram_of_shares_for_each_arm() -> None:
    g2 = np.array([0.1, 0.11, 0.9, 1.0])
    propensity = np.stack([(1 - g2) / 2, (1 - g2) / 2, g2], axis=1)
    html = overlap_figure([0, 0, 2, 2], propensity, ["none", "mail", "call"], "overlap", of=2)
    _, traces, layout = drawn(html)
    assert [trace["name"] for trace in traces] == ["none (2 rows)", "mail (0 rows)", "call (2 rows)"]
    assert [sum(trace["y"]) for trace in traces] == [1.0, 0.0, 1.0]
    assert traces[0]["y"][4] == 1.0
    assert traces[2]["y"][-1] == 0.5
    assert [shape["x0"] for shape in layout["shapes"]] == [0.05, 0.95]
    assert layout["xaxis"]["title"]["text"] == "propensity of call"
    with pytest.raises(ValueError, match="3 arms need as many names"):
        overlap_figure([0], propensity[:1], ["none", "mail"], "overlap")


def test_the_dose_figure_shades_every_supported_stretch() -> None:
    doses = [0.0, 0.25, 0.5, 0.75, 1.0]
    html = dose_figure(doses, [1, 2, 3, 4, 5], [1, 1, 0, 1, 0], "dose", truth=[1, 1, 1, 1, 1])
    _, (model, truth), layout = drawn(html)
    assert (model["x"], model["y"]) == (doses, [1, 2, 3, 4, 5])
    assert truth["y"] == [1] * 5
    assert [(shape["x0"], shape["x1"]) for shape in layout["shapes"]] == [(0.0, 0.375), (0.625, 0.875)]


def test_the_dose_figure_of_one_point_without_truth_or_support() -> None:
    _, traces, layout = drawn(dose_figure([0.5], [1.0], [False], "dose"))
    assert len(traces) == 1
    assert not layout.get("shapes")
    with pytest.raises(ValueError, match="curve must be finite"):
        dose_figure([0.5], [float("nan")], [True], "dose")

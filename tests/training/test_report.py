"""The card and the plots: one file each, nothing fetched, nothing unescaped, and what the numbers say."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bundle.loading import open_bundle
from training.card.figures import validations
from training.report import CardFile, card_html, day, limits_of_use, write_run_plots
from training.run import RunFolder


class Outline(HTMLParser):
    """Tags, what they would fetch, and the text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._script = tag in ("script", "style")
        self.fetched += [value or "" for name, value in attributes if name in ("src", "href", "data", "action")]

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if not self._script:
            self.text += data + " "


@pytest.fixture(scope="module")
def card(tiny_dien_bundle: Path) -> str:
    return (tiny_dien_bundle / "card.html").read_text()


def test_the_card_fetches_nothing(card: str) -> None:
    outline = Outline(card)
    assert outline.fetched == []
    assert "link" not in outline.tags
    assert "iframe" not in outline.tags
    assert card.count("plotly.js v") == 1


def test_the_card_shows_data_schema_quality_and_files(card: str, tiny_dien_bundle: Path) -> None:
    text = " ".join(Outline(card).text.split())
    manifest = open_bundle(tiny_dien_bundle).manifest
    assert "tiny-dien 1.0.0" in text
    assert manifest.data_fingerprint in text
    for split in ("train", "valid", "test"):
        assert f"rows.parquet {split} " in text
    for feature in ("hist_item", "genre_share", "position"):
        assert feature in text
    for reference in manifest.metrics["references"]:
        assert f"reference: {reference['name']}" in text
    assert f"{manifest.metrics['tasks']['ctr']['calibrated']['auc']['value']:.4f}" in text
    assert "ECE before" in text
    for name, entry in manifest.files.items():
        if name != "card.html":
            assert entry.sha256 in text
            assert name in text
    assert "AUC of ctr" in text
    assert card.count('id="calibration-0"') == 1
    assert card.count('id="loss"') == 1


def evaluation(low: float) -> dict[str, Any]:
    value = {"value": 0.7, "low": low, "high": 0.8}
    metrics = dict.fromkeys(("auc", "gauc", "logloss", "pcoc", "ece"), value)
    curve = [{"predicted": 0.1, "observed": 0.2}]
    task = {
        "calibrated": metrics,
        "raw": metrics,
        "without_history": metrics,
        "curve_raw": curve,
        "curve_calibrated": curve,
    }
    reference = {
        "name": "<b>item rate</b>",
        "task": "ctr",
        "metrics": metrics,
        "gain": {"auc": value, "logloss": value},
    }
    return {"split": "test", "rows": 5, "users": 3, "bootstrap": 2, "tasks": {"ctr": task}, "references": [reference]}


def test_names_from_data_are_escaped(tiny_dien_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_dien_run, copy)
    run = RunFolder.open(copy)
    run.write_index(run.index().model_copy(update={"dataset": "<script>alert(1)</script>"}))
    history = run.history()
    history[-1]["valid"]["</script><script>alert(2)</script>"] = history[-1]["valid"]["ctr"]
    run.history_file.write_text("".join(json.dumps(line) + "\n" for line in history))
    html = card_html(run, "1.0.0", evaluation(0.6), {"ctr": "platt"}, [CardFile("<i>.npz", 1, "0" * 64)])
    outline = Outline(html)
    assert "alert(1)" in outline.text
    assert "<script>alert" not in html
    assert "<b>item rate</b>" in outline.text
    assert "i" not in outline.tags
    assert outline.tags.count("script") == html.count("<script")


def test_limits_name_a_reference_that_is_not_clearly_beaten(tiny_dien_run: Path) -> None:
    index = RunFolder.open(tiny_dien_run).index()
    beaten = limits_of_use(index, evaluation(0.01))
    level = limits_of_use(index, evaluation(-0.01))
    assert not any("not clearly better" in limit for limit in beaten)
    assert any("On ctr the network is not clearly better than <b>item rate</b>." in limit for limit in level)
    assert any("2020-10" in limit for limit in level)


def test_the_run_s_plots_hold_losses_and_validations(tiny_dien_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_dien_run, copy)
    page = write_run_plots(RunFolder.open(copy)).read_text()
    assert Outline(page).fetched == []
    assert "auxiliary loss" in page
    assert "GAUC ctr" in page


def test_points_are_taken_from_validations_only() -> None:
    lines = [
        {"kind": "step", "step": 1},
        {"kind": "validation", "step": 2, "valid": {"ctr": {"auc": 0.5}, "cvr": {"auc": None}}},
        {"kind": "validation", "step": 4, "valid": {"ctr": {"auc": 0.6}, "cvr": {"auc": 0.7}}},
    ]
    assert validations(lines, "auc") == {
        "ctr": {"x": [2, 4], "y": [0.5, 0.6]},
        "cvr": {"x": [2, 4], "y": [None, 0.7]},
    }


def test_times_are_shown_in_utc() -> None:
    assert day(881_250_949.0) == "1997-12-04 15:55"
    assert day(None) == "-"

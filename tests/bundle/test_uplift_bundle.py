"""Bundles of treatment effects: what goes in comes out, and what is wrong with one on disk is named."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.arrays import read_npz, write_npz
from bundle.errors import BundleRefused
from bundle.loading import Bundle, open_bundle
from bundle.population import UpliftQuery
from bundle.uplift_golden import UPLIFT_GOLDEN_FILE, UpliftGoldenRow, read_uplift_golden, write_uplift_golden
from bundle.writing import write_uplift_files
from tests.bundle.campaign import (
    CONFORMAL,
    PART,
    campaign_files,
    campaign_manifest,
    fitted_campaign,
    golden,
    person,
    write_campaign,
)
from tests.bundle.test_bundle_refused import refused, rewrite, vouch


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_campaign(folder / "1.0.0", folder)
    return folder / "1.0.0"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "1.0.0"))


def test_a_whole_bundle_opens_and_gives_back_what_went_in(whole: Path) -> None:
    bundle: Bundle = open_bundle(whole)
    assert bundle.manifest.uplift == PART
    assert bundle.golden == []
    assert bundle.graph("onnx").content == b"graph"
    assert bundle.samples_graph("onnx").content == b"samples"
    assert (whole / "card.html").exists()
    assert bundle.conformal is not None
    for found, written in zip(bundle.conformal.residuals, CONFORMAL.residuals, strict=True):
        np.testing.assert_array_equal(found, written)
    for row, wrote in zip(bundle.uplift_golden, golden(), strict=True):
        assert (row.query, row.doses, row.points) == (wrote.query, wrote.doses, wrote.points)
        assert set(row.outputs) == set(wrote.outputs)
        for name, values in row.outputs.items():
            np.testing.assert_array_equal(values, wrote.outputs[name])


def test_the_samples_graph_is_checked_when_it_is_read(copy: Path) -> None:
    bundle = open_bundle(copy)
    (copy / "samples.onnx").write_bytes(b"simples")
    with pytest.raises(BundleRefused) as caught:
        bundle.samples_graph("onnx")
    assert caught.value.reason == "digest"
    with pytest.raises(BundleRefused) as caught:
        bundle.samples_graph("torchscript")
    assert caught.value.reason == "graph_missing"


@pytest.mark.parametrize("name", [UPLIFT_GOLDEN_FILE, "conformal.npz", "samples.onnx", "vocab.npz"])
def test_a_needed_file_must_be_listed_and_be_there(copy: Path, name: str) -> None:
    listed = (copy / "manifest.json").read_text()
    rewrite(copy, lambda data: data["files"].pop(name))
    assert refused(copy).reason == "file_missing"
    (copy / "manifest.json").write_text(listed)
    (copy / name).unlink()
    assert refused(copy).reason == "file_missing"


def test_what_the_manifest_does_not_promise_is_not_needed(tmp_path: Path) -> None:
    part = PART.model_copy(update={"samples": None, "conformal": False})
    files = replace(campaign_files(tmp_path), samples={}, conformal=None)
    (tmp_path / "out").mkdir()
    write_uplift_files(tmp_path / "out", campaign_manifest(part), fitted_campaign(), files)
    bundle = open_bundle(tmp_path / "out")
    assert bundle.conformal is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "card.html", "items.npz", "manifest.json", "model.onnx", "schema.json", "uplift_golden.npz", "vocab.npz",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (UPLIFT_GOLDEN_FILE, b"\x00" * 100, "golden_damaged"),
        ("conformal.npz", b"PK\x03\x04 not really", "conformal_damaged"),
        ("schema.json", b"{}", "schema_damaged"),
    ],
)
def test_a_forged_file_is_refused(copy: Path, name: str, content: bytes, reason: str) -> None:
    (copy / name).write_bytes(content)
    vouch(copy, name)
    assert refused(copy).reason == reason


def test_a_schema_of_other_treatments_is_refused(copy: Path) -> None:
    def swap(data: dict[str, Any]) -> None:
        data["uplift"]["treatments"] = ["none", "coupon", "letter"]

    rewrite(copy, swap)
    assert refused(copy).reason == "schema_differs"


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.pop(name)


def _set(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda arrays: arrays.update({name: change(arrays[name])})


@pytest.mark.parametrize(
    "change",
    [
        _without("requests"),
        _without("value.propensity_logits"),
        _set("requests", lambda rows: rows[:11]),
        _set("requests", lambda rows: np.array([b"{}"] * len(rows))),
        _set("requests", lambda rows: np.array([b'{"doses": [], "points": 1, "query": {}}'] * len(rows))),
        _set("requests", lambda rows: np.array([b"\xff"] * len(rows))),
        _set("value.propensity_logits", lambda values: values[:-1]),
        _set("value.propensity_logits", lambda values: np.append(values, 0.0)),
        _set("value.propensity_logits", lambda values: np.full_like(values, np.nan)),
        _set("value.propensity_logits", lambda values: values.astype(np.float32)),
        _set("shape.propensity_logits", lambda shapes: -shapes),
        _set("shape.propensity_logits", lambda shapes: np.full_like(shapes, 2**62)),
        _set("shape.propensity_logits", lambda shapes: shapes[:, ::-1].copy()),
        _set("shape.propensity_logits", lambda shapes: shapes[:-1]),
        _set("shape.curve_standardised", lambda shapes: shapes[:, [0, 2, 1]]),
        lambda arrays: arrays.update({"value.more": np.zeros(1)}),
    ],
)
def test_damaged_golden_requests_are_a_value_error(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = tmp_path / UPLIFT_GOLDEN_FILE
    write_uplift_golden(path, golden(), PART.outputs)
    arrays = read_npz(path)
    change(arrays)
    write_npz(path, arrays)
    with pytest.raises(ValueError):  # noqa: PT011  # the messages differ; that nothing else comes out is the point
        read_uplift_golden(path, PART.outputs)


def first(row: UpliftGoldenRow, **changes: Any) -> list[UpliftGoldenRow]:
    return [replace(row, **changes), *golden()[1:]]


def test_golden_requests_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    row, path = golden()[0], tmp_path / UPLIFT_GOLDEN_FILE
    with pytest.raises(ValueError, match="at least 12 golden requests are needed, got 11"):
        write_uplift_golden(path, golden(11), PART.outputs)
    silent = UpliftQuery([replace(person(1), behaviours=None)], 1.0)
    with pytest.raises(ValueError, match="must carry its behaviours"):
        write_uplift_golden(path, first(row, query=silent), PART.outputs)
    with pytest.raises(ValueError, match="golden row 0 has the outputs"):
        write_uplift_golden(path, first(row, outputs={}), PART.outputs)
    two = {**row.outputs, "propensity_logits": np.zeros((2, 3))}
    with pytest.raises(ValueError, match=r"propensity_logits \(2, 3\) does not fit 1 users"):
        write_uplift_golden(path, first(row, outputs=two), PART.outputs)
    with pytest.raises(ValueError, match="does not fit 7 points"):
        write_uplift_golden(path, first(row, points=7), PART.outputs)
    infinite = {**row.outputs, "propensity_logits": np.full((1, 3), np.inf)}
    with pytest.raises(ValueError, match="is not finite"):
        write_uplift_golden(path, first(row, outputs=infinite), PART.outputs)
    assert not path.exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"graphs": {}}, "graphs must be given"),
        ({"samples": {}}, r"samples must be given as \['onnx'\], got \[\]"),
        ({"conformal": None}, "conformal must be given where the manifest says so"),
    ],
)
def test_parts_that_the_manifest_does_not_name_are_refused(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    files = replace(campaign_files(tmp_path), **changes)
    with pytest.raises(ValueError, match=expected):
        write_uplift_files(tmp_path, campaign_manifest(), fitted_campaign(), files)

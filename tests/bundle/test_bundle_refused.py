"""What is wrong with a bundle on disk is found before any parser of graphs runs, and is named."""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.encode import Encoder
from bundle.errors import BundleRefused
from bundle.golden import GoldenRow, write_golden
from bundle.loading import Limits, open_bundle
from bundle.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from bundle.request import rows_from_query
from bundle.writing import write_bundle_files
from tests.bundle.samples import fitted_shop, manifest_for, small_query, write_shop

FITTED = fitted_shop()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "1.0.0"
    folder.mkdir()
    write_shop(folder, FITTED)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "1.0.0"))


def refused(folder: Path, limits: Limits | None = None) -> BundleRefused:
    with pytest.raises(BundleRefused) as caught:
        open_bundle(folder, limits)
    return caught.value


def reason_of(action: Callable[[], Any]) -> str:
    """How an attempt ended; anything but a refusal comes out and fails the test."""
    try:
        action()
    except BundleRefused as error:
        return error.reason
    return "opened"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def vouch(folder: Path, name: str) -> None:
    """Make the manifest agree with a changed file, as somebody who forges a bundle would."""
    content = (folder / name).read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    rewrite(folder, lambda data: data["files"].update({name: entry}))


def test_a_whole_bundle_opens_and_gives_back_what_went_in(whole: Path) -> None:
    bundle = open_bundle(whole)
    assert bundle.manifest.name == "shop"
    assert bundle.fitted.schema_hash == FITTED.schema_hash
    assert bundle.graph_path("onnx").read_bytes() == bundle.graph("onnx").content
    (golden,) = bundle.golden
    assert golden.query == small_query()
    np.testing.assert_array_equal(golden.logits, [[-1.0], [0.5], [2.0]])
    scores = bundle.correction.probabilities(golden.logits, bundle.manifest.tasks)
    np.testing.assert_allclose(scores["ctr"], golden.scores["ctr"], rtol=1e-15)
    expected = Encoder(FITTED).encode(rows_from_query(FITTED, small_query())).take()
    for name, array in bundle.encoder.encode(rows_from_query(bundle.fitted, golden.query)).take().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_every_truncation_of_the_manifest(copy: Path) -> None:
    path = copy / "manifest.json"
    content = path.read_bytes()
    # The last byte is the line break after the object: without it the manifest is still whole.
    for length in range(len(content) - 1):
        with pytest.raises(BundleRefused, match=r"manifest\.json"):
            parse_manifest(content[:length])
    for length in (0, 1, len(content) // 2, len(content) - 2):
        path.write_bytes(content[:length])
        assert refused(copy).reason == "manifest_damaged"


def test_two_hundred_truncations_of_the_graph(copy: Path) -> None:
    path = copy / "model.onnx"
    content = path.read_bytes()
    for length in np.linspace(0, len(content) - 1, 200).astype(int).tolist():
        path.write_bytes(content[:length])
        error = refused(copy)
        assert error.reason == "file_size"
        assert "model.onnx" in str(error)


@pytest.mark.parametrize("name", ["model.onnx", "schema.json", "vocab.npz", "items.npz", "golden.npz"])
def test_bit_flips_in_any_file(copy: Path, name: str) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for place in rng.integers(0, len(content) * 8, 20).tolist():
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        error = refused(copy)
        assert error.reason == "digest"
        assert name in str(error)
        content[place // 8] ^= 1 << place % 8


def test_bit_flips_in_the_manifest_never_raise_anything_else(whole: Path) -> None:
    content = bytearray((whole / "manifest.json").read_bytes())
    rng = np.random.default_rng(2)
    for place in rng.integers(0, len(content) * 8, 400).tolist():
        content[place // 8] ^= 1 << place % 8
        # It may stay legal: a letter of a free text, or a digit of a digest, which then fits no file.
        reason = reason_of(lambda: parse_manifest(bytes(content)))
        assert reason in ("opened", "manifest_damaged", "schema_version")
        content[place // 8] ^= 1 << place % 8


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(schema_version=2), "schema_version"),
        (lambda d: d.update(schema_version=True), "schema_version"),
        (lambda d: d.pop("schema_version"), "schema_version"),
        (lambda d: d.update(extra=1), "manifest_damaged"),
        (lambda d: d.update(name="../shop"), "manifest_damaged"),
        (lambda d: d.update(version="1.0"), "manifest_damaged"),
        (lambda d: d.update(kind="other"), "manifest_damaged"),
        (lambda d: d.update(tasks=["ctr", "ctr"]), "manifest_damaged"),
        (lambda d: d["correction"].update(mode="twice"), "manifest_damaged"),
        (lambda d: d["correction"].update(tasks={"cvr": {}}), "manifest_damaged"),
        (lambda d: d["files"].pop("schema.json"), "file_missing"),
        (lambda d: d["files"].pop("golden.npz"), "file_missing"),
        (lambda d: d["files"].pop("model.onnx"), "graph_missing"),
        (lambda d: d["files"]["model.onnx"].update(sha256="0" * 64), "digest"),
        (lambda d: d["files"]["model.onnx"].update(size=1), "file_size"),
        (lambda d: d["files"]["model.onnx"].update(size=10**15), "too_large"),
        (lambda d: d["files"].update({"gone.bin": {"sha256": "0" * 64, "size": 1}}), "file_missing"),
        (lambda d: d["files"].update({"manifest.json": {"sha256": "0" * 64, "size": 1}}), "manifest_damaged"),
    ],
)
def test_wrong_manifests(copy: Path, change: Callable[[dict[str, Any]], None], reason: str) -> None:
    rewrite(copy, change)
    assert refused(copy).reason == reason


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", "..", ".", ".hidden", "a\\b", "a\0b", "", "é"])
def test_only_plain_names_are_listed(copy: Path, name: str) -> None:
    rewrite(copy, lambda data: data["files"].update({name: {"sha256": "0" * 64, "size": 1}}))
    error = refused(copy)
    assert error.reason == "manifest_damaged"
    assert "files" in str(error)


def _link(path: Path) -> None:
    target = path.parent.parent / "outside"
    path.rename(target)
    path.symlink_to(target)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _socket(path: Path) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def _link_to_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [_link, _pipe, _folder, _socket, _link_to_device])
@pytest.mark.parametrize("name", ["model.onnx", "schema.json", "manifest.json"])
def test_only_plain_files_are_read(copy: Path, put: Callable[[Path], None], name: str) -> None:
    put(copy / name)
    error = refused(copy)
    assert error.reason == ("manifest_damaged" if name == "manifest.json" else "file_kind")
    assert name in str(error)


def test_the_folder_itself_is_no_link(copy: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(copy)
    assert refused(link).reason == "not_a_folder"
    assert refused(tmp_path / "absent").reason == "not_a_folder"
    assert refused(copy / "manifest.json").reason == "not_a_folder"


def test_undeclared_missing_and_half_copied(copy: Path) -> None:
    (copy / "extra.bin").write_bytes(b"x")
    error = refused(copy)
    assert error.reason == "file_undeclared"
    assert "extra.bin" in str(error)
    (copy / "extra.bin").unlink()
    (copy / "vocab.npz").unlink()
    error = refused(copy)
    assert error.reason == "file_missing"
    assert "vocab.npz" in str(error)
    (copy / "manifest.json").unlink()
    assert refused(copy).reason == "manifest_missing"


def test_sparse_and_oversize_files_are_not_read(copy: Path) -> None:
    with (copy / "model.onnx").open("r+b") as file:
        file.truncate(10 * 1024**3)
    rewrite(copy, lambda data: data["files"]["model.onnx"].update(size=10 * 1024**3))
    assert refused(copy).reason == "too_large"
    rewrite(copy, lambda data: data["files"]["model.onnx"].update(size=5))
    assert refused(copy).reason in ("too_large", "file_size")
    with (copy / "manifest.json").open("r+b") as file:
        file.truncate(10 * 1024**3)
    error = refused(copy)
    assert error.reason == "manifest_too_large"
    assert str(MAX_MANIFEST_BYTES) in str(error)


def test_limits_are_the_callers(copy: Path) -> None:
    assert refused(copy, Limits(files=3)).reason == "too_large"
    assert refused(copy, Limits(total_bytes=10)).reason == "too_large"
    assert refused(copy, Limits(file_bytes=10)).reason == "too_large"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("schema.json", b"{}", "schema_damaged"),
        ("schema.json", b"[" * 50_000, "schema_damaged"),
        ("vocab.npz", b"PK\x03\x04 not really", "schema_damaged"),
        ("items.npz", b"", "schema_damaged"),
        ("golden.npz", b"\x00" * 100, "golden_damaged"),
    ],
)
def test_vouched_for_nonsense_is_refused(copy: Path, name: str, content: bytes, reason: str) -> None:
    (copy / name).write_bytes(content)
    vouch(copy, name)
    error = refused(copy)
    assert error.reason == reason
    assert name in str(error) or "schema.json" in str(error)


def test_vouched_for_flips_raise_nothing_else(copy: Path) -> None:
    """A forger can make digests fit: then the parsers of our own files have to hold."""
    rng = np.random.default_rng(3)
    for name in ("schema.json", "vocab.npz", "items.npz", "golden.npz"):
        content = bytearray((copy / name).read_bytes())
        for place in rng.integers(0, len(content) * 8, 60).tolist():
            content[place // 8] ^= 1 << place % 8
            (copy / name).write_bytes(content)
            vouch(copy, name)
            assert reason_of(lambda: open_bundle(copy)) in ("opened", "schema_damaged", "golden_damaged")
            content[place // 8] ^= 1 << place % 8
        (copy / name).write_bytes(content)
        vouch(copy, name)


def test_no_graph_is_parsed_and_a_missing_format_is_named(whole: Path) -> None:
    bundle = open_bundle(whole)  # the graph is no ONNX at all
    with pytest.raises(BundleRefused, match="torchscript") as caught:
        bundle.graph_path("torchscript")
    assert caught.value.reason == "graph_missing"


def test_a_graph_exchanged_after_opening_is_noticed(copy: Path) -> None:
    bundle = open_bundle(copy)
    path = copy / "model.onnx"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(BundleRefused) as caught:
        bundle.graph("onnx")
    assert caught.value.reason == "digest"


def test_extra_files_and_the_card_are_vouched_for(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (tmp_path / "g").write_bytes(b"g")
    seen: list[set[str]] = []

    def card(files: Any) -> str:
        seen.append(set(files))
        return "<html></html>"

    manifest = write_bundle_files(
        folder, manifest_for(FITTED), FITTED, [], {"torchscript": tmp_path / "g"}, {"notes.txt": b"n"}, card
    )
    assert set(manifest.files) == seen[0] | {"card.html"}
    assert open_bundle(folder).graph("torchscript").content == b"g"
    with pytest.raises(ValueError, match="graphs"):
        write_bundle_files(tmp_path, manifest_for(FITTED), FITTED, [], {"pickle": tmp_path / "g"})
    with pytest.raises(ValueError, match="plain name"):
        write_bundle_files(folder, manifest_for(FITTED), FITTED, [], {"onnx": tmp_path / "g"}, {"../x": b""})


def test_manifest_survives_text() -> None:
    manifest: Manifest = manifest_for(FITTED)
    assert parse_manifest(manifest.to_text().encode()) == manifest


def test_golden_rows_must_stand_alone_and_fit(tmp_path: Path) -> None:
    logits = np.zeros((3, 1))
    scores = {"ctr": np.full(3, 0.5)}
    query = replace(small_query(), behaviours=None)
    with pytest.raises(ValueError, match="carry its behaviours"):
        write_golden(tmp_path / "golden.npz", [GoldenRow(query, logits, scores)], ["ctr"])
    with pytest.raises(ValueError, match="3 candidates x 2 tasks"):
        write_golden(tmp_path / "golden.npz", [GoldenRow(small_query(), logits, scores)], ["ctr", "cvr"])

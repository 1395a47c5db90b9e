"""Which engine serves a bundle: the compiled operators or ONNX Runtime, same scores, one line in the log."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle.files import sha256_of
from bundle.loading import open_bundle
from bundle.manifest import FileEntry, Manifest, parse_manifest
from bundle.request import ScoreQuery
from service.compiling import BuildFailed, source_digest
from service.core.version import ServedVersion, load_version
from service.engines.base import Engine, EngineError
from service.engines.kernel import build, library
from service.engines.kernel.build import SOURCE
from service.engines.kernel.choosing import with_kernel
from service.engines.kernel.engine import KernelEngine
from service.engines.opening import EngineOptions, open_engine
from tests.service import tiny_bundle

LOGGER = "service.engines.kernel.choosing"


@pytest.fixture(autouse=True)
def _library(kernel_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LIBRARY", kernel_library)


@pytest.fixture(params=["din", "dien"])
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(f"tiny_{request.param}_bundle")
    return found


def engine_of(version: ServedVersion) -> Engine:
    return version._engine


def scores(version: ServedVersion) -> list[NDArray[np.float64]]:
    return [version.score(row.query, None).logits for row in version.bundle.golden]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def test_a_bundle_gives_the_same_scores_with_and_without(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain, fast = load_version(path, kernel="off"), load_version(path)
    assert not isinstance(engine_of(plain), KernelEngine)
    assert isinstance(engine_of(fast), KernelEngine)
    for expected, found in zip(scores(plain), scores(fast), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert lines(caplog) == []
    assert engine_of(fast).inputs.items() <= {spec.name: spec.dtype for spec in plain.manifest.inputs}.items()


def test_many_users_get_what_each_gets_alone(path: Path) -> None:
    version = load_version(path)
    engine = engine_of(version)
    assert isinstance(engine, KernelEngine)
    rows = [dict(version.inputs_of(row.query)) for row in version.bundle.golden if len(row.query.candidates) == 1]
    steps = max(row["behaviour_mask"].shape[1] for row in rows)
    together = {name: np.concatenate([_filled(row[name], name, steps) for row in rows]) for name in rows[0]}
    alone = np.concatenate([engine.run(row) for row in rows])
    np.testing.assert_allclose(engine.run(together), alone, atol=2e-6)
    assert len(rows) >= 2


def _filled(array: NDArray[Any], name: str, steps: int) -> NDArray[Any]:
    """Histories of equal length."""
    if not name.startswith("behaviour"):
        return array
    return np.pad(array, ((0, 0), (steps - array.shape[1], 0), (0, 0)))


def test_a_closed_engine_and_wrong_inputs_are_engine_errors(tiny_dien_bundle: Path) -> None:
    version = load_version(tiny_dien_bundle)
    engine = engine_of(version)
    assert isinstance(engine, KernelEngine)
    inputs = dict(version.inputs_of(version.bundle.golden[0].query))
    with pytest.raises(EngineError, match="failed"):
        engine.run({**inputs, "behaviour_mask": inputs["behaviour_mask"][:, :0]})
    assert engine.outputs(inputs).keys() == {"logits"}
    version.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(inputs)


def test_without_a_library_one_line_and_the_same_scores(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = scores(load_version(path))
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "absent.so")
    caplog.clear()
    _falls_back(path, expected, caplog, "not built")


def test_a_file_that_is_no_library_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = scores(load_version(path, kernel="off"))
    (tmp_path / "broken.so").write_bytes(b"nothing")
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "broken.so")
    _falls_back(path, expected, caplog, "cannot be opened")


def test_a_library_of_other_source_is_not_used(
    tiny_dien_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kernel_library: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = scores(load_version(tiny_dien_bundle))
    stale = tmp_path / "stale.so"
    stale.write_bytes(kernel_library.read_bytes().replace(source_digest(SOURCE).encode(), b"0" * 64))
    monkeypatch.setattr(library, "LIBRARY", stale)
    _falls_back(tiny_dien_bundle, expected, caplog, "other source")


def test_an_old_processor_leaves_the_work_to_the_runtime(
    kernel_library: Path, monkeypatch: pytest.MonkeyPatch, tiny_dien_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = scores(load_version(tiny_dien_bundle))
    handle = library.open_library(kernel_library).handle

    class Old:
        def __getattr__(self, name: str) -> Any:
            return getattr(handle, name)

        def ctrlift_supported(self, number: int) -> int:
            return int(library._sets(handle)[number] == "plain")

    monkeypatch.setattr(library, "_handle", lambda _path, **_options: Old())
    assert library.instruction_sets() == ["plain"]
    _falls_back(tiny_dien_bundle, expected, caplog, "neither AVX-512 nor AVX2")


def test_operators_that_give_other_scores_are_not_used(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = scores(load_version(path, kernel="off"))
    right = KernelEngine.outputs

    def wrong(self: KernelEngine, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        return {name: values + np.float32(2e-4) for name, values in right(self, inputs).items()}

    monkeypatch.setattr(KernelEngine, "outputs", wrong)
    _falls_back(path, expected, caplog, "differs from the graph's by 0.0002")


def test_the_self_check_asks_more_than_the_golden_requests(tiny_dien_bundle: Path) -> None:
    """Several users, masks with holes, a user without history: an operator that is wrong there alone is found."""
    bundle = open_bundle(tiny_dien_bundle)
    seen: list[Mapping[str, NDArray[Any]]] = []

    class Listening:
        @property
        def inputs(self) -> dict[str, str]:
            return {spec.name: spec.dtype for spec in bundle.manifest.inputs}

        def outputs(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
            seen.append(inputs)
            return plain.outputs(inputs)

        def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
            return plain.run(inputs)

        def close(self) -> None:
            return None

    plain = open_engine(bundle.graph("onnx"), Listening().inputs, ["logits"], EngineOptions())
    version = ServedVersion(bundle, plain)
    golden = [version.inputs_of(row.query) for row in bundle.golden]
    assert isinstance(with_kernel(Listening(), bundle, golden), KernelEngine)
    assert len(seen) == len(golden) + 1
    mask = seen[-1]["behaviour_mask"]
    assert mask.shape[0] > 1
    assert not mask[0].any()
    assert mask[1:].any()
    assert (~mask[1:, :-1] & mask[1:, 1:]).any()  # a hole before a real step


def test_pieces_that_are_not_usable_leave_the_whole_graph(
    tiny_dien_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = scores(load_version(tiny_dien_bundle))
    for number, (file, content) in enumerate(
        (("stages.json", b"{}"), ("operators.npz", b"PK nothing"), ("stage0.onnx", b"nothing"))
    ):
        folder = Path(shutil.copytree(tiny_dien_bundle, tmp_path / str(number) / "1.0.0"))
        (folder / file).write_bytes(content)
        _sign(folder)
        caplog.clear()
        _falls_back(folder, expected, caplog, "")


def test_a_bundle_without_pieces_says_nothing(published: Path, caplog: pytest.LogCaptureFixture) -> None:
    version = load_version(published / "movies" / "1.0.0")
    assert not isinstance(engine_of(version), KernelEngine)
    assert lines(caplog) == []
    query = ScoreQuery("1", ["1", "2"], tiny_bundle.NOW, behaviours=[])
    assert version.score(query, None).logits.shape == (1, 2, 2)


def test_building_without_a_compiler_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BuildFailed, match="no C\\+\\+ compiler"):
        build.build(tmp_path / "x.so")
    for optional, code in ((["build", "--optional"], 0), (["build"], 1)):
        monkeypatch.setattr("sys.argv", optional)
        assert build.main() == code
        said = capsys.readouterr().out
        assert said.count("\n") == 1
        assert "no C++ compiler" in said
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = tmp_path / "x.so"
    target.write_bytes(b"before")
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(BuildFailed, match="false ended with 1"):
        build.build(target)
    assert [path.name for path in tmp_path.iterdir()] == ["x.so"]
    assert target.read_bytes() == b"before"


def _falls_back(path: Path, expected: list[NDArray[np.float64]], caplog: pytest.LogCaptureFixture, reason: str) -> None:
    with caplog.at_level(logging.WARNING, LOGGER):
        version = load_version(path)
    assert not isinstance(engine_of(version), KernelEngine)
    (line,) = lines(caplog)
    assert reason in line
    assert "ONNX Runtime does its work" in line
    assert "\n" not in line
    for found, wanted in zip(scores(version), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def _sign(folder: Path) -> None:
    """The manifest vouches for the files as they are."""
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    found = {
        name: FileEntry(**dict(zip(("sha256", "size"), sha256_of(folder / name), strict=True)))
        for name in manifest.files
    }
    signed = Manifest.model_validate(manifest.model_dump() | {"files": found})
    (folder / "manifest.json").write_text(signed.to_text(), encoding="utf-8")

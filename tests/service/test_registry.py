"""Versions come, go and fail; requests notice only the good ones."""

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.serving.app import quiet_settings, running
from bundle.errors import BundleRefused
from bundle.graph_tables import Graph
from bundle.store import ModelStore
from service.core.registry import Registry
from service.core.version import load_version
from service.engines.base import EngineError
from service.engines.onnx import OnnxEngine
from service.errors import InvalidFeatures, NotReady, UnknownModel, UnknownVersion
from service.metrics import Metrics
from service.settings import ModelSettings, RouteSettings, ThreadSettings
from tests.service import tiny_bundle

SWAPS = 100


def registry(models: Path, routes: RouteSettings | None = None, **options: object) -> Registry:
    settings = ModelSettings.model_validate({"dir": models, "warmup_runs": 1, **options})
    return Registry(settings, routes or RouteSettings(), ThreadSettings(), Metrics())


def serving(found: Registry, spec: str | None = None) -> str:
    with found.lease(spec, "ctr") as version:
        return f"{version.name}@{version.version}"


def test_the_newest_release_serves_and_names_lead_to_versions(models: Path) -> None:
    tiny_bundle.publish(models, "1.1.0", seed=1)
    tiny_bundle.publish(models, "1.2.0-rc.1", seed=2)
    ModelStore(models).set_alias("movies", "challenger", "1.2.0-rc.1")
    found = registry(models)
    found.scan()
    assert serving(found) == serving(found, "movies") == "movies@1.1.0"
    assert serving(found, "movies@1.0.0") == "movies@1.0.0"
    assert serving(found, "movies@challenger") == "movies@1.2.0-rc.1"
    with pytest.raises(UnknownVersion):
        serving(found, "movies@none")
    with pytest.raises(UnknownModel):
        serving(found, "books")


def test_only_the_newest_are_kept_and_what_is_preloaded(models: Path) -> None:
    for minor in range(1, 4):
        tiny_bundle.publish(models, f"1.{minor}.0")
    found = registry(models, keep=1, preload=("movies@1.1.0",))
    found.scan()
    assert sorted(found.view["movies"].slots) == ["1.1.0", "1.3.0"]
    with pytest.raises(UnknownVersion, match="not loaded"):
        serving(found, "movies@1.0.0")


def test_the_default_route(models: Path) -> None:
    empty = registry(models.parent / "nothing")
    empty.scan()
    with pytest.raises(NotReady):
        serving(empty)
    tiny_bundle.publish(models, name="books")
    found = registry(models)
    found.scan()
    with pytest.raises(InvalidFeatures, match="books, movies"):
        serving(found)
    routed = registry(models, RouteSettings(score="books"))
    routed.scan()
    assert serving(routed) == "books@1.0.0"
    missing = registry(models, RouteSettings(score="films"))
    missing.scan()
    with pytest.raises(NotReady):
        serving(missing)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def escaping(manifest: dict[str, object]) -> None:
    files = manifest["files"]
    assert isinstance(files, dict)
    files["../model.onnx"] = files.pop("model.onnx")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped bit in the graph": lambda path: flip(path / "model.onnx"),
    "flipped bit in the schema": lambda path: flip(path / "schema.json"),
    "flipped bit in the golden rows": lambda path: flip(path / "golden.npz"),
    "missing graph": lambda path: (path / "model.onnx").unlink(),
    "missing manifest": lambda path: (path / "manifest.json").unlink(),
    "leaving path": lambda path: edit(path, escaping),
    "wrong schema version": lambda path: edit(path, lambda manifest: manifest.update(schema_version=2)),
    "other name": lambda path: edit(path, lambda manifest: manifest.update(name="books")),
    "extra file": lambda path: (path / "more.bin").write_bytes(b"1"),
    "link": lambda path: ((path / "model.onnx").rename(path.parent / "m"), os.symlink("../m", path / "model.onnx")),
    "pipe": lambda path: ((path / "model.onnx").unlink(), os.mkfifo(path / "model.onnx")),
    "truncated graph": lambda path: os.truncate(path / "model.onnx", 100),
    "truncated manifest": lambda path: os.truncate(path / "manifest.json", 100),
    "sparse file": lambda path: os.truncate(path / "model.onnx", 10 * 1024**3),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_bundle_is_refused_before_its_graph_is_parsed(
    models: Path, damage: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = registry(models)
    found.scan()
    monkeypatch.setattr("service.engines.onnx.ort.InferenceSession", None)  # parsing anything would now fail loudly
    new = models / "movies" / "1.1.0"
    shutil.copytree(models / "movies" / "1.0.0", new)
    edit(new, lambda manifest: manifest.update(version="1.1.0"))
    damage(new)
    found.scan()
    assert serving(found) == "movies@1.0.0"
    (failure,) = found.failures
    assert (failure.name, failure.version) == ("movies", "1.1.0")
    assert failure.reason not in ("graph", "unreadable"), failure
    assert str(models) not in failure.detail


def test_every_flipped_bit_and_truncation_of_the_small_files_is_refused(models: Path) -> None:
    rng = np.random.default_rng(0)
    folder = models / "movies" / "1.0.0"
    intact = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    for number in range(100):
        path = list(intact)[number % len(intact)]
        data = bytearray(intact[path])
        if number % 5 == 0:
            data = data[: int(rng.integers(len(data)))]
        else:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        if path.name == "manifest.json" and number % 5:
            path.write_bytes(intact[path])  # a flipped letter in its free texts is still a manifest
            continue
        with pytest.raises(BundleRefused):
            load_version(folder)
        path.write_bytes(intact[path])
    load_version(folder).close()


def test_a_graph_that_gives_other_logits_than_in_training_is_refused(tmp_path: Path) -> None:
    other = tiny_bundle.graph(tiny_bundle.fitted(), seed=3)
    store = tmp_path / "models"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_bundle, "OnnxEngine", lambda content: OnnxEngine(Graph(other)))
        path = tiny_bundle.publish(store)
    with pytest.raises(BundleRefused) as refused:
        load_version(path)
    assert refused.value.reason == "golden_differs"


def test_a_correction_that_gives_other_scores_than_in_training_is_refused(tmp_path: Path) -> None:
    path = tiny_bundle.publish(tmp_path / "models")
    manifest = json.loads((path / "manifest.json").read_text())
    task = manifest["tasks"][0]
    manifest["correction"]["tasks"][task] = {"calibrator": {"kind": "temperature", "temperature": 3.0}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleRefused, match=f"score of {task}") as refused:
        load_version(path)
    assert refused.value.reason == "golden_differs"


def test_a_failed_version_is_tried_again_only_when_it_changed(models: Path) -> None:
    calls = Counter[str]()

    def load(path: Path) -> object:
        calls[path.name] += 1
        return load_version(path)

    found = Registry(ModelSettings(dir=models), RouteSettings(), ThreadSettings(), Metrics(), load)  # type: ignore[arg-type]
    new = models / "movies" / "1.1.0"
    new.mkdir()
    found.scan()
    found.scan()
    assert calls["1.1.0"] == 1
    shutil.rmtree(new)
    tiny_bundle.publish(models, "1.1.0")
    found.scan()
    assert calls["1.1.0"] == 2
    assert found.failures == []
    assert serving(found) == "movies@1.1.0"


def test_what_vanishes_from_the_disk_goes_on_serving(models: Path) -> None:
    found = registry(models)
    found.scan()
    flip(models / "movies" / "1.0.0" / "model.onnx")
    found.scan()
    assert found.view["movies"].slots["1.0.0"].changed_on_disk
    shutil.rmtree(models)
    found.scan()
    assert serving(found) == "movies@1.0.0"


def test_a_retired_version_is_closed_after_its_last_request(models: Path) -> None:
    found = registry(models, keep=1)
    found.scan()
    with found.lease(None, "ctr") as old:
        tiny_bundle.publish(models, "1.1.0")
        found.scan()
        assert serving(found) == "movies@1.1.0"
        old.score(tiny_bundle.queries()[0], None)  # still open
    with pytest.raises(EngineError, match="closed"):
        old.score(tiny_bundle.queries()[0], None)


def test_swaps_under_load_drop_no_request(models: Path) -> None:
    tiny_bundle.publish(models, "2.0.0", bias=1.0)
    body = {"candidates": ["1", "2"], "behaviours": [], "ts": 1000, "raw": True}

    async def drill() -> Counter[tuple[int, str, float]]:
        seen: Counter[tuple[int, str, float]] = Counter()
        async with running(quiet_settings(models, "memory://", models={"poll_s": 3600})) as client:
            found: Registry = client.app.state.container.registry  # type: ignore[attr-defined]
            swapping = True

            async def caller() -> None:
                while swapping:
                    reply = await client.post("/score", json=body)
                    told = reply.json() if reply.status_code == 200 else {}
                    version = told["model"]["version"] if told else reply.text
                    seen[reply.status_code, version, round(told["logits"]["ctr"][0], 5) if told else 0.0] += 1

            callers = [asyncio.create_task(caller()) for _ in range(3)]
            newer, aside = models / "movies" / "2.0.0", models / "aside"
            loop = asyncio.get_running_loop()
            for _ in range(SWAPS):
                (newer if newer.exists() else aside).rename(aside if newer.exists() else newer)
                await loop.run_in_executor(None, found.scan)
            swapping = False
            await asyncio.gather(*callers)
        return seen

    seen = asyncio.run(drill())
    assert {status for status, _, _ in seen} == {200}, seen
    assert {version for _, version, _ in seen} == {"1.0.0", "2.0.0"}
    assert len(seen) == 2, "an answer mixed two versions"


def test_readyz_and_models_name_the_reason(models: Path) -> None:
    broken = models / "movies" / "1.1.0"
    shutil.copytree(models / "movies" / "1.0.0", broken)

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with running(quiet_settings(models, "memory://")) as client:
            while not client.app.state.container.registry.scanned:  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
            return await client.get("/readyz"), await client.get("/models")

    readyz, listed = asyncio.run(ask())
    assert readyz.json()["refused"] == [{"model": "movies", "version": "1.1.0", "reason": "name_differs"}]
    states = {one["version"]: one["state"] for one in listed.json()["models"][0]["versions"]}
    assert states == {"1.1.0": "refused", "1.0.0": "serving"}


def test_a_required_model_decides_readiness(models: Path) -> None:
    async def ask() -> httpx.Response:
        settings = quiet_settings(models, "memory://", models={"required": ["books"]})
        async with running(settings, wait=False) as client:
            while not client.app.state.container.registry.scanned:  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
            return await client.get("/readyz")

    assert asyncio.run(ask()).status_code == 503

"""A real run at a small size: bundle, history-repeated graph, service, load, and what happens to other weights."""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving import speed_network
from benchmarks.serving.body_rows import check_forms
from benchmarks.serving.clocked import new_clock
from benchmarks.serving.direct import expected, open_direct
from benchmarks.serving.graph_rows import graph_rows
from benchmarks.serving.load import Load
from benchmarks.serving.running import ScoresDiffer, Slice, check_scores
from benchmarks.serving.service_rows import RunsNotSeen, inside, service_rows, stored_service
from benchmarks.serving.slates import SlateSizes, event_bodies, slates
from benchmarks.serving.speed_bundle import SpeedFiles, cached, fingerprint
from benchmarks.serving.variants import ONNX, variants
from benchmarks.serving.worker_rows import memory_rows
from service.behaviours import EmbeddedServer
from tests.benchmarks.conftest import TINY

SIZES = SlateSizes(candidates=7, steps=6, items=300, users=3)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="CPU time of processes is read from Linux"),
    pytest.mark.xdist_group("speed"),
]


def test_a_network_is_made_once(speed_files: SpeedFiles) -> None:
    folder = speed_files.store.parent.parent
    before = [path.stat().st_mtime_ns for path in sorted(speed_files.store.rglob("*"))]
    assert cached(folder, TINY) == speed_files
    assert [path.stat().st_mtime_ns for path in sorted(speed_files.store.rglob("*"))] == before
    assert [path.name for path in folder.iterdir()] == [speed_files.store.parent.name], "nothing half made is left"
    assert len({fingerprint(config) for config in (TINY, replace(TINY, seed=1), replace(TINY, items=301))}) == 3


def test_graph_rows(speed_files: SpeedFiles) -> None:
    found = graph_rows(speed_files, SIZES, rounds=5, slice_s=0.005)
    assert set(found["ratios"]) == {variant.name for variant in variants()}
    assert all(len(part["rounds"]) == 5 and part["median"] > 0 for part in found["ratios"].values())
    assert max(found["largest_differences"].values()) < 1e-5
    assert found["product_gflops"] > 0


def test_other_weights_are_not_timed(speed_files: SpeedFiles, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    assert speed_files.repeated is not None
    model = onnx.load(speed_files.repeated)
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.01), weights.name))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ScoresDiffer, match="nothing was timed"):
        graph_rows(replace(speed_files, repeated=tmp_path / "other.onnx"), SIZES, rounds=5, slice_s=0.005)


def test_service_rows_and_memory(speed_files: SpeedFiles) -> None:
    with EmbeddedServer(None) as store:
        found = service_rows(speed_files.bundle, store.url, variants()[-1], rounds=5, slice_s=0.02)
        assert found["largest_difference"] < 1e-5
        assert found["request_cpu_us"]["median"] > found["direct_cpu_us"]["median"] > 0
        assert found["overhead_us"]["median"] > 0
        assert 0 < found["cpu"]["median"] < 1
        threads = found["loop_us"]["median"] + found["engine_us"]["median"]
        assert threads == pytest.approx(found["request_cpu_us"]["median"], rel=0.1)
        inside = {name: part["median"] for name, part in found["inside"].items()}
        assert inside["graph_us"] + inside["around_us"] == pytest.approx(inside["request_cpu_us"], rel=0.1)
        assert inside["around_us"] > 0
        memory = memory_rows(speed_files.bundle, store.url, ONNX)
    assert len(memory["private_mb"]) == 2
    assert memory["second_worker_mb"] == max(memory["private_mb"])
    assert all(0 < private <= whole for private, whole in zip(memory["private_mb"], memory["resident_mb"], strict=True))


def test_the_service_alone_runs_one_linear_layer_on_the_same_inputs(speed_files: SpeedFiles, tmp_path: Path) -> None:
    alone = cached(tmp_path, replace(TINY, linear=True), repeated=False)
    made = slates(SIZES)
    linear, network = open_direct(alone.bundle, ONNX), open_direct(speed_files.bundle, ONNX)
    for small, large in zip(linear.feeds(made), network.feeds(made), strict=True):
        assert small.keys() == large.keys()
        for name, array in small.items():
            np.testing.assert_array_equal(array, large[name])
    scores = [linear.scores(feed) for feed in linear.feeds(made)]
    assert len({tuple(row) for row in scores}) == len(made), "it reads what it is given"
    with pytest.raises(ValueError, match="dien network, got linear"):
        speed_network.publish_repeated(tmp_path / "repeated.onnx", speed_network.build(replace(TINY, linear=True)))


def test_runs_past_the_clock_are_told(tmp_path: Path) -> None:
    class Ready:
        def slice(self) -> Slice:
            return Slice(Load(3, 0, 1.0, 0.1, 1.0, 1.0), 1.0, 1.0, 1.0, 1.0)

    clock = new_clock(tmp_path / "clock")
    with pytest.raises(RunsNotSeen, match="saw 0 runs of the graph, expected 3"):
        inside(Ready(), clock)  # type: ignore[arg-type]  # a stand-in


def test_every_kind_of_body_is_answered_with_the_same_scores(speed_files: SpeedFiles) -> None:
    made = slates(SIZES)
    wanted = expected(open_direct(speed_files.bundle, ONNX).version, made)
    with EmbeddedServer(None) as store, ExitStack() as stack:
        server = stored_service(stack, speed_files.store, store.url, made, ONNX.settings)
        check_forms(server, made, wanted)
        with pytest.raises(ScoresDiffer, match="body JSON"):
            check_forms(server, made, wanted[::-1])


def test_a_server_with_other_histories_is_not_timed(speed_files: SpeedFiles) -> None:
    made = slates(SIZES)
    others = [replace(slate, history=slate.history[::-1]) for slate in made]
    wanted = expected(open_direct(speed_files.bundle, ONNX).version, made)
    with EmbeddedServer(None) as store, ExitStack() as stack:
        server = stored_service(stack, speed_files.store, store.url, others, ONNX.settings)
        with pytest.raises(ScoresDiffer):
            check_scores(server, made, wanted)


def test_slates_are_the_same_every_time_and_differ_between_users() -> None:
    once, again = slates(SIZES), slates(SIZES)
    assert [slate.body for slate in once] == [slate.body for slate in again]
    assert len({slate.body for slate in once}) == SIZES.users
    assert sum(body.count(b'"item_id"') for body in event_bodies(once)) == SIZES.users * SIZES.steps


def test_what_was_left_half_made_is_made_again(
    tmp_path: Path, speed_files: SpeedFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / speed_files.store.parent.name
    shutil.copytree(speed_files.store.parent, place)
    (place / "complete").unlink()
    (place / "repeated.onnx").write_bytes(b"half")
    # Exporting is the slow part, and the test above has seen it.
    monkeypatch.setattr(speed_network, "publish", lambda store, speed: shutil.copytree(speed_files.store, store))
    monkeypatch.setattr(speed_network, "publish_repeated", lambda path, speed: path.write_bytes(b"whole"))
    made = cached(tmp_path, TINY)
    assert made.repeated is not None
    assert made.repeated.read_bytes() == b"whole"

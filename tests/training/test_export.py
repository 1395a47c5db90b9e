"""Publishing: the graphs are the network, golden requests cover what breaks graphs, nothing half made is seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bundle.errors import BundleRefused
from bundle.files import sha256_of
from bundle.golden import write_golden
from bundle.loading import Bundle, open_bundle
from bundle.manifest import GRAPH_FILES
from bundle.request import rows_from_query
from bundle.store import ModelStore
from models.inputs import INPUT_NAMES
from service.core.version import load_version
from service.engines.opening import EngineName
from training import export
from training.batches import to_tensors
from training.errors import ConfigError, ExportFailed, RunError
from training.evaluate import open_trained
from training.export import ExportResult, export_many, export_run
from training.golden import UNKNOWN_USER, UNSEEN_ITEM
from training.graph.signature import GraphSignature
from training.graph.writing import write_graphs
from training.parity import largest_difference, open_graph
from training.run import RunFolder

NETWORKS = ["din", "dien"]


@pytest.fixture(params=NETWORKS)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return open_bundle(request.getfixturevalue(f"tiny_{request.param}_bundle"))


def trained(bundle: Bundle, request: pytest.FixtureRequest) -> Any:
    return open_trained(request.getfixturevalue(f"tiny_{bundle.manifest.network}_run"))


def test_golden_requests_cover_what_breaks_graphs(bundle: Bundle) -> None:
    queries = [row.query for row in bundle.golden]
    assert len(queries) >= 16
    lengths = {len(query.behaviours or ()) for query in queries}
    assert {0, 1, 2} <= lengths
    assert max(lengths) > 8  # longer than the network's history
    assert {len(query.candidates) for query in queries} >= {1, 2, 7}
    assert max(len(query.candidates) for query in queries) > 20
    assert any(query.user_id == UNKNOWN_USER and not query.user_features for query in queries)
    assert any(query.user_id is None for query in queries)
    assert any(UNSEEN_ITEM in query.candidates for query in queries)
    assert any(behaviour.item_id == UNSEEN_ITEM for query in queries for behaviour in query.behaviours or ())
    assert sum(query.user_features.get("city") in ("oslo", "lima", "pune") for query in queries) >= 8
    assert all(query.behaviours is not None for query in queries)
    assert any("position" in query.candidate_features and "hour" in query.context for query in queries)


def test_golden_logits_are_the_eager_network_s(bundle: Bundle, request: pytest.FixtureRequest) -> None:
    opened = trained(bundle, request)
    for row in bundle.golden:
        arrays = bundle.encoder.encode(rows_from_query(bundle.fitted, row.query)).take()
        with torch.no_grad():
            logits = opened.network(*to_tensors(arrays))[0].double().numpy()
        np.testing.assert_array_equal(logits, row.logits)
        scores = bundle.correction.probabilities(logits, bundle.manifest.tasks)
        np.testing.assert_array_equal(scores["ctr"], row.scores["ctr"])


def test_a_golden_request_says_what_its_row_said(bundle: Bundle, request: pytest.FixtureRequest) -> None:
    """A real row asked as a request gives the logit that the row had in training's own arrays."""
    opened = trained(bundle, request)
    part = opened.dataset.part("valid")
    encoded = opened.encoder.encode(part.rows)
    users, items = part.user_ids.to_list(), part.item_ids.to_list()
    compared = 0
    for row in bundle.golden[:8]:
        query = row.query
        places = [
            place
            for place in range(len(part))
            if (users[place], items[place], part.rows.time[place]) == (query.user_id, query.candidates[0], query.ts)
        ]
        arrays = encoded.take(np.array(places))
        with torch.no_grad():
            logits = opened.network(*to_tensors(arrays))[:, 0].numpy()
        # Types of behaviours have no text in the data set any more; the tiny network reads them, so compare the rest.
        same = bundle.encoder.encode(rows_from_query(bundle.fitted, query)).take()
        np.testing.assert_allclose(same["user_numbers"], arrays["user_numbers"][:1], rtol=1e-6)
        np.testing.assert_array_equal(same["candidate_ids"], arrays["candidate_ids"][:1])
        np.testing.assert_array_equal(same["behaviour_mask"], arrays["behaviour_mask"][:1])
        np.testing.assert_allclose(same["behaviour_numbers"], arrays["behaviour_numbers"][:1], rtol=1e-6)
        assert np.isfinite(logits).all()
        compared += 1
    assert compared == 8


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
@pytest.mark.parametrize("users", [1, 5, 80])
def test_a_graph_is_the_network_for_any_block_of_users(
    kind: str, users: int, bundle: Bundle, request: pytest.FixtureRequest
) -> None:
    opened = trained(bundle, request)
    arrays = opened.encoder.encode(opened.dataset.part("test").rows).take(np.arange(users))
    with torch.no_grad():
        expected = opened.network(*to_tensors(arrays)).double().numpy()
    graph = open_graph(kind, bundle.graph(kind).content)
    assert largest_difference(graph(arrays), expected) <= 1e-5


def test_the_manifest_says_where_the_bundle_comes_from(bundle: Bundle, request: pytest.FixtureRequest) -> None:
    manifest, opened = bundle.manifest, trained(bundle, request)
    index = opened.run.index()
    assert manifest.data_fingerprint == index.data_fingerprint
    assert manifest.seed == index.seed == 0
    assert manifest.run == index.run_id
    assert manifest.libraries["torch"] == torch.__version__
    assert manifest.metrics["split"] == "test"
    assert set(manifest.metrics["tasks"]["ctr"]["calibrated"]) >= {"auc", "gauc", "logloss", "pcoc", "ece"}
    assert len(manifest.metrics["references"]) >= 2
    assert tuple(spec.name for spec in manifest.inputs) == INPUT_NAMES
    assert manifest.inputs[4].shape[:2] == ("U", "T")
    assert manifest.outputs[0].shape == ("U", "C", 1)
    assert manifest.correction.tasks["ctr"].calibrator_without_history is not None
    assert {"model.onnx", "model.ts", "card.html", "items.npz"} <= set(manifest.files)


@pytest.mark.parametrize("engine", ["onnx", "torchscript"])
def test_the_service_takes_what_was_published(engine: EngineName, bundle: Bundle) -> None:
    version = load_version(bundle.path, engine)
    assert version.version == "1.0.0"
    version.close()


def altered(bundle_path: Path, folder: Path, file: str, content: bytes) -> Path:
    """A copy with one file replaced and the manifest made to vouch for it: what a wrong export would look like."""
    target = folder / "altered"
    shutil.copytree(bundle_path, target)
    (target / file).write_bytes(content)
    manifest = json.loads((target / "manifest.json").read_text())
    digest, size = sha256_of(target / file)
    manifest["files"][file] = {"sha256": digest, "size": size}
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def test_the_service_names_the_graph_that_does_not_load(tiny_din_bundle: Path, tmp_path: Path) -> None:
    broken = altered(tiny_din_bundle, tmp_path, "model.onnx", b"not a graph")
    with pytest.raises(BundleRefused) as refused:
        load_version(broken)
    assert refused.value.reason == "graph"
    load_version(broken, "torchscript").close()


@pytest.mark.parametrize("engine", ["onnx", "torchscript"])
def test_the_service_sees_a_wrong_golden_answer(engine: EngineName, tiny_din_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_din_bundle)
    rows = list(bundle.golden)
    rows[5] = type(rows[5])(rows[5].query, rows[5].logits + 3e-4, rows[5].scores)
    write_golden(tmp_path / "golden.npz", rows, bundle.manifest.tasks)
    wrong = altered(tiny_din_bundle, tmp_path, "golden.npz", (tmp_path / "golden.npz").read_bytes())
    with pytest.raises(BundleRefused) as refused:
        load_version(wrong, engine)
    assert refused.value.reason == "golden_differs"


def test_a_graph_that_is_not_the_network_is_never_published(
    tiny_din_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = write_graphs

    def perturbed(
        network: nn.Module, signature: GraphSignature, formats: Sequence[str], folder: Path, names: Mapping[str, str]
    ) -> dict[str, Path]:
        weights = {key: value.clone() for key, value in network.state_dict().items()}
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.01)
        graphs = genuine(network, signature, formats, folder, names)
        network.load_state_dict(weights)
        return graphs

    monkeypatch.setattr(export, "write_graphs", perturbed)
    with pytest.raises(
        ExportFailed, match=r"the onnx graph of .* differs from the network by .* nothing was published"
    ):
        export_run(tiny_din_run, tmp_path, ("onnx",))
    assert not list(tmp_path.rglob("*"))


@pytest.fixture
def graphs_at_hand(tiny_din_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares an export: the graph of the very same weights lies in the shared bundle; parity is still checked."""

    def copied(
        network: nn.Module, signature: GraphSignature, formats: Sequence[str], folder: Path, names: Mapping[str, str]
    ) -> dict[str, Path]:
        return {kind: Path(shutil.copy(tiny_din_bundle / GRAPH_FILES[kind], folder)) for kind in formats}

    monkeypatch.setattr(export, "write_graphs", copied)


@pytest.mark.usefixtures("graphs_at_hand")
def test_versions_count_up_and_are_never_replaced(tiny_din_run: Path, tmp_path: Path) -> None:
    first = export_run(tiny_din_run, tmp_path, ("onnx",))
    second = export_run(tiny_din_run, tmp_path, ("onnx",))
    assert (first.name, second.name) == ("1.0.0", "1.1.0")
    before = (first / "manifest.json").read_bytes()
    with pytest.raises(BundleRefused, match="published already"):
        export_run(tiny_din_run, tmp_path, ("onnx",), version="1.0.0")
    assert (first / "manifest.json").read_bytes() == before
    assert ModelStore(tmp_path).versions("tiny-din") == ["1.0.0", "1.1.0"]


@pytest.mark.usefixtures("graphs_at_hand")
def test_one_failing_run_does_not_stop_the_others(tiny_din_run: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_din_run, broken)
    RunFolder(broken).best_checkpoint.write_bytes(b"torn")
    told: list[ExportResult] = []
    store = tmp_path / "store"
    results = export_many([tmp_path / "absent", broken, tiny_din_run], store, ("onnx",), progress=told.append)
    assert told == results
    assert [result.path is not None for result in results] == [False, False, True]
    assert results[0].error == f"{tmp_path / 'absent'} is not a run folder: no such folder"
    assert "not a readable checkpoint" in (results[1].error or "")
    assert results[2].path == store / "tiny-din" / "1.0.0"


@pytest.mark.parametrize("formats", [("onxx",), ()])
def test_an_unknown_format_is_said_before_anything_is_done(
    formats: tuple[str, ...], tiny_din_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="format must be of onnx, torchscript"):
        export_run(tiny_din_run, tmp_path, formats)
    with pytest.raises(ConfigError, match="format must be of"):
        export_many([tiny_din_run], tmp_path, formats)


def test_a_run_whose_data_have_changed_is_not_exported(tiny_din_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_din_run, copy)
    run = RunFolder.open(copy)
    run.write_index(run.index().model_copy(update={"data_fingerprint": "0" * 64}))
    with pytest.raises(RunError, match=r"trained on other data: the fingerprint of rows\.parquet differs"):
        export_run(copy, tmp_path / "store")

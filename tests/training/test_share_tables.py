"""Embedding tables move out of graphs into one file, and the graphs answer as before."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle.errors import BundleRefused
from bundle.graph_tables import TABLES_FILE, Graph, table_entries
from bundle.loading import open_bundle
from bundle.request import rows_from_query
from models.inputs import InputLayout
from service.engines.onnx import open_session
from training.graph import tables
from training.graph.tables import share_tables

ROWS, WIDTH = 8192 + 1024, 32  # whole pages of the file
ITEMS = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
OTHERS = np.random.default_rng(1).normal(size=(ROWS, WIDTH)).astype(np.float32)
WEIGHTS = np.random.default_rng(2).normal(size=(WIDTH, 4096)).astype(np.float32)
TIED = np.random.default_rng(3).normal(size=(ROWS, WIDTH)).astype(np.float32)
LOOPED = np.random.default_rng(4).normal(size=(ROWS, WIDTH)).astype(np.float32)
IDS = np.array([0, 5, ROWS - 1], dtype=np.int64)


def write(path: Path, table: np.ndarray, name: str = "table") -> Path:
    """Rows of a table, of one that a product reads as well, and of one that is read inside of a branch."""
    gather = helper.make_node("Gather", ["looped", "ids"], ["inner"])
    branch = helper.make_graph(
        [gather], "branch", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    )
    nodes = [
        helper.make_node("Gather", [name, "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["product"]),
        helper.make_node("Gather", ["tied", "ids"], ["tied rows"]),
        helper.make_node("Transpose", ["tied"], ["turned"]),
        helper.make_node("MatMul", ["tied rows", "turned"], ["likeness"]),
        helper.make_node("Gather", ["looped", "ids"], ["outer"]),
        helper.make_node("If", ["yes"], ["either"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["outer", "either"], ["both"]),
    ]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
        for name, width in (("product", WEIGHTS.shape[1]), ("likeness", ROWS), ("both", WIDTH))
    ]
    constants = {name: table, "weights": WEIGHTS, "tied": TIED, "looped": LOOPED, "yes": np.array(True)}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])],
        outputs,
        [numpy_helper.from_array(values, key) for key, values in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(made)
    onnx.save(made, path)
    return path


def answers(session: onnxruntime.InferenceSession) -> list[np.ndarray]:
    return list(session.run(None, {"ids": IDS}))


def graph_of(folder: Path, name: str) -> Graph:
    mapped = np.memmap(folder / TABLES_FILE, dtype=np.uint8, mode="r")
    return Graph((folder / name).read_bytes(), mapped, folder)


def opened(folder: Path, name: str) -> onnxruntime.InferenceSession:
    return open_session(graph_of(folder, name))


def test_equal_tables_are_written_once_and_the_graphs_answer_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"a.onnx": (ITEMS, "table"), "b.onnx": (OTHERS, "table"), "c.onnx": (ITEMS, "same")}
    paths = [write(tmp_path / name, *what) for name, what in given.items()]
    before = {path.name: answers(onnxruntime.InferenceSession(path)) for path in paths}
    target = share_tables(paths, tmp_path / TABLES_FILE)
    assert target == tmp_path / TABLES_FILE
    assert target.stat().st_size == 2 * ITEMS.nbytes
    (first,), (second,), (third,) = (table_entries(path.read_bytes()) for path in paths)
    assert (first.name, second.name, third.name) == ("table", "table", "same")
    assert (first.offset, first.length) == (third.offset, third.length) != (second.offset, second.length)
    monkeypatch.chdir(tmp_path.parent)  # the runtime looks for files there if it is not told where they are
    for path in paths:
        alone = answers(onnxruntime.InferenceSession(path))  # as any other reader of ONNX would open it
        for old, new, plain in zip(before[path.name], answers(opened(tmp_path, path.name)), alone, strict=True):
            np.testing.assert_array_equal(old, new)
            np.testing.assert_array_equal(old, plain)


def test_it_may_be_done_again_when_a_graph_joins(tmp_path: Path) -> None:
    first = write(tmp_path / "model.onnx", ITEMS)
    share_tables([first], tmp_path / TABLES_FILE)
    alone = first.read_bytes()
    second = write(tmp_path / "samples.onnx", OTHERS)
    share_tables([first, second], tmp_path / TABLES_FILE)
    assert first.read_bytes() == alone
    assert (tmp_path / TABLES_FILE).stat().st_size == 2 * ITEMS.nbytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "samples.onnx", TABLES_FILE]


def test_what_an_exporter_left_in_a_file_of_its_own_is_taken_in(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", ITEMS)
    before = answers(onnxruntime.InferenceSession(path))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx.data")
    share_tables([path], tmp_path / TABLES_FILE)
    assert not (tmp_path / "model.onnx.data").exists()
    for old, new in zip(before, answers(opened(tmp_path, "model.onnx")), strict=True):
        np.testing.assert_array_equal(old, new)


def test_small_tables_stay_inside(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", ITEMS[:20])
    before = path.read_bytes()
    assert share_tables([path], tmp_path / TABLES_FILE) is None
    assert path.read_bytes() == before
    assert not (tmp_path / TABLES_FILE).exists()


def test_the_runtime_never_sees_a_graph_that_names_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "model.onnx", ITEMS)
    share_tables([path], tmp_path / TABLES_FILE)
    changed = path.read_bytes().replace(b"tables.bin", b"../up.file")
    (tmp_path.parent / "up.file").write_bytes((tmp_path / TABLES_FILE).read_bytes())
    monkeypatch.setattr("service.engines.onnx.ort.InferenceSession", None)  # using it would fail otherwise
    with pytest.raises(BundleRefused, match=r"tables\.bin"):
        open_session(Graph(changed, graph_of(tmp_path, "model.onnx").tables, tmp_path))


def test_the_session_reads_the_mapping_that_was_verified(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", ITEMS)
    share_tables([path], tmp_path / TABLES_FILE)
    shifted = ITEMS + 1
    given = np.frombuffer(shifted.tobytes(), dtype=np.uint8)  # not what the file says now
    found = answers(open_session(Graph(path.read_bytes(), given, tmp_path)))
    np.testing.assert_allclose(found[0], shifted[IDS] @ WEIGHTS, rtol=1e-4, atol=1e-4)


def test_every_embedding_of_an_exported_network_is_found(
    tiny_dien_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LEAST_BYTES", 1)
    monkeypatch.setattr(tables, "SMALLEST_BYTES", 1)
    bundle = open_bundle(tiny_dien_bundle)
    graphs = [Path(shutil.copy(path, tmp_path)) for path in sorted(tiny_dien_bundle.glob("*.onnx"))]
    assert share_tables(graphs, tmp_path / TABLES_FILE) is not None
    entries = table_entries((tmp_path / "model.onnx").read_bytes())
    layout = InputLayout.from_dict(bundle.manifest.network_config["layout"])
    wanted = [(table.rows, table.dim) for table in layout.tables]
    assert sorted(entry.shape for entry in entries if entry.shape in wanted) == sorted(wanted)
    query = rows_from_query(bundle.fitted, bundle.golden[-1].query)
    inputs = bundle.encoder.encode(query).take()
    whole, shared = (open_session(graph) for graph in (bundle.graph("onnx"), graph_of(tmp_path, "model.onnx")))
    feed = {known.name: inputs[known.name] for known in whole.get_inputs()}
    np.testing.assert_array_equal(whole.run(None, feed)[0], shared.run(None, feed)[0])

"""Which files a graph may take its tables from, read from the wire format before any parser of graphs runs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bundle.arrays import read_npz, write_npz
from bundle.errors import BundleRefused
from bundle.graph_tables import TABLES_FILE, Graph, graph_tables, table_entries
from bundle.loading import open_bundle
from tests.bundle.samples import fitted_shop, write_shop

ROWS, WIDTH = 50, 4
FIRST = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)
SECOND = FIRST[::-1] * 2
CONTENT = np.frombuffer(FIRST.tobytes() + SECOND.tobytes(), dtype=np.uint8)


def external(name: str, **changes: str | None) -> onnx.TensorProto:
    """A table whose values lie in a file; None takes one of its statements away."""
    number = 1 if name == "second" else 0
    said = {"location": TABLES_FILE, "offset": str(number * FIRST.nbytes), "length": str(FIRST.nbytes)}
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=FIRST.shape, data_location=TensorProto.EXTERNAL)
    for key, value in (said | changes).items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    return tensor


def model(*tables: onnx.TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    gathers = [helper.make_node("Gather", [table.name, "ids"], [f"of {table.name}"]) for table in tables]
    whole = helper.make_graph(
        [*gathers, *nodes],
        "tables",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info(f"of {table.name}", TensorProto.FLOAT, ["N", WIDTH]) for table in tables],
        [*tables, numpy_helper.from_array(np.ones(3, np.float32), "inside")],
    )
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def encoded(*tables: onnx.TensorProto) -> bytes:
    return bytes(model(*tables).SerializeToString())


def reason(content: bytes, tables: np.ndarray | None = CONTENT) -> str:
    with pytest.raises(BundleRefused) as refused:
        graph_tables(Graph(content, tables))
    return refused.value.reason


def test_tables_are_views_of_the_mapping_and_not_copies() -> None:
    found = graph_tables(Graph(encoded(external("first"), external("second")), CONTENT))
    np.testing.assert_array_equal(found["first"], FIRST)
    np.testing.assert_array_equal(found["second"], SECOND)
    assert all(np.shares_memory(table, CONTENT) and not table.flags.writeable for table in found.values())


def test_a_graph_that_holds_its_values_needs_no_file() -> None:
    assert graph_tables(Graph(encoded())) == {}
    assert reason(encoded(external("first")), None) == "external_data"


@pytest.mark.parametrize(
    "location",
    [
        "../tables.bin",
        "./tables.bin",
        "tables.bin/../tables.bin",
        "/etc/passwd",
        "/tables.bin",
        "model.onnx",
        "Tables.bin",
        "tables.bin\0",
        "tables.bin ",
        "*/_ORT_MEM_ADDR_/*",
        "",
        None,
    ],
)
def test_no_other_file_can_be_named(location: str | None) -> None:
    assert reason(encoded(external("second"), external("first", location=location))) == "external_data"


WRONG = {
    "behind the end": external("first", offset=str(CONTENT.nbytes)),
    "a part behind the end": external("first", offset=str(FIRST.nbytes + 4)),
    "not at a number": external("first", offset="2"),
    "before the start": external("first", offset="-4"),
    "no offset": external("first", offset=None),
    "no length": external("first", length=None),
    "another length": external("first", length=str(FIRST.nbytes - 4)),
    "a length in words": external("first", length="all"),
    "a length of many digits": external("first", length="9" * 40),
    "a further statement": external("first", checksum="0"),
}


@pytest.mark.parametrize("tensor", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_place_is_refused(tensor: onnx.TensorProto) -> None:
    assert reason(encoded(tensor)) == "external_data"


def test_other_types_and_shapes_are_refused() -> None:
    doubles, negative, twice = external("first"), external("first"), external("first")
    doubles.data_type = TensorProto.DOUBLE
    negative.dims[:] = [-ROWS, -WIDTH]
    twice.external_data.add(key="location", value=TABLES_FILE)
    unsaid = external("first")
    unsaid.data_location = TensorProto.DEFAULT
    for tensor in (doubles, negative, twice, unsaid):
        assert reason(encoded(tensor)) == "external_data"
    assert reason(encoded(external("first"), external("first"))) == "external_data"


def _constant(made: onnx.ModelProto) -> None:
    made.graph.node.append(helper.make_node("Constant", [], ["c"], value=external("hidden")))


def _tensors(made: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.append(helper.make_attribute("many", [external("hidden")]))
    made.graph.node.append(node)


def _body(made: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [], [external("hidden")])
    made.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=body, else_branch=body))


def _bodies(made: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [], [external("hidden")])
    node = helper.make_node("If", ["c"], ["d"])
    node.attribute.append(helper.make_attribute("bodies", [body]))
    made.graph.node.append(node)


def _sparse(made: onnx.ModelProto) -> None:
    made.graph.sparse_initializer.add().values.CopyFrom(external("hidden"))


def _sparse_attribute(made: onnx.ModelProto) -> None:
    node = made.graph.node.add()
    node.attribute.add().sparse_tensor.indices.CopyFrom(external("hidden"))


def _function(made: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=external("hidden"))
    made.functions.append(
        helper.make_function("own", "F", [], ["c"], [node], opset_imports=[helper.make_opsetid("", 18)])
    )


def _function_default(made: onnx.ModelProto) -> None:
    made.functions.add().attribute_proto.append(helper.make_attribute("a", external("hidden")))


def _training(made: onnx.ModelProto) -> None:
    made.training_info.add().initialization.initializer.append(external("hidden"))


PLACES: list[Callable[[onnx.ModelProto], None]] = [
    _constant,
    _tensors,
    _body,
    _bodies,
    _sparse,
    _sparse_attribute,
    _function,
    _function_default,
    _training,
]


@pytest.mark.parametrize("hide", PLACES, ids=lambda place: place.__name__)
def test_values_outside_are_found_wherever_a_tensor_can_stand(hide: Callable[[onnx.ModelProto], None]) -> None:
    made = model(external("first"))
    hide(made)
    assert reason(made.SerializeToString()) == "external_data"


def every_tensor(message: object) -> list[onnx.TensorProto]:
    """All tensors of a parsed message, found by its descriptors and not by our list of places."""
    found = [message] if isinstance(message, TensorProto) else []
    for field, value in message.ListFields():  # type: ignore[attr-defined]  # of every message
        if field.message_type is not None:
            for below in value if field.is_repeated else [value]:
                found += every_tensor(below)
    return found


WHOLE = encoded(external("first"), external("second"))


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 8 * len(WHOLE) - 1), st.integers(0, 8 * len(WHOLE) - 1), st.integers(0, len(WHOLE)))
@example(0, 0, 0)
def test_damaged_graphs_are_read_as_a_parser_reads_them_or_refused(first: int, second: int, cut: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[first // 8] ^= 1 << first % 8
    damaged[second // 8] ^= 1 << second % 8
    content = bytes(damaged) if cut % 2 else bytes(damaged[:cut])
    try:
        found = table_entries(content)
    except BundleRefused:
        return
    try:
        parsed = onnx.ModelProto.FromString(content)
    except Exception:  # noqa: BLE001  # the parser's own error type is private; what it refuses is nobody's danger
        return
    outside = [t for t in every_tensor(parsed) if t.data_location == TensorProto.EXTERNAL]
    assert [entry.name for entry in found if entry.name in {t.name for t in outside}] == [t.name for t in outside]
    assert {pair.value for t in outside for pair in t.external_data if pair.key == "location"} <= {TABLES_FILE}


# --- in a bundle -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "1.0.0"
    folder.mkdir()
    (folder.parent / TABLES_FILE).write_bytes(CONTENT.tobytes())  # where the exporter leaves it: beside the graph
    write_shop(folder, fitted_shop())
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "1.0.0"))


def test_the_table_file_is_listed_mapped_once_and_given_with_every_graph(whole: Path) -> None:
    bundle = open_bundle(whole)
    assert bundle.manifest.files[TABLES_FILE].size == CONTENT.nbytes
    graph = bundle.graph("onnx")
    assert graph.tables is bundle.tables
    assert graph.tables is not None
    assert graph.folder == whole
    np.testing.assert_array_equal(graph.tables, CONTENT)
    assert not graph.tables.flags.writeable


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _link(path: Path) -> None:
    path.rename(path.parents[1] / "elsewhere")
    path.symlink_to(path.parents[1] / "elsewhere")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped": (_flip, "digest"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "file_size"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"0"), "file_size"),
    "missing": (lambda path: path.unlink(), "file_missing"),
    "link": (_link, "file_kind"),
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_table_file_is_refused(copy: Path, damage: Callable[[Path], object], expected: str) -> None:
    damage(copy / TABLES_FILE)
    with pytest.raises(BundleRefused, match=r"tables\.bin") as refused:
        open_bundle(copy)
    assert refused.value.reason == expected


# --- the arrays beside the graph -------------------------------------------------------------------------------------


def test_mapped_arrays_are_the_files_pages_and_equal_copies(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {
        "ids": np.arange(1000, dtype=np.uint64),
        "a rather long name": np.linspace(0, 1, 77),
        "none": np.empty((0, 3), dtype=np.int64),
        "bytes": np.arange(5, dtype=np.uint8),
        "rows": np.arange(12, dtype=np.int64).reshape(3, 4),
    }
    write_npz(tmp_path / "a.npz", arrays)
    found = read_npz(tmp_path / "a.npz", mapped=True)
    copied = read_npz(tmp_path / "a.npz")
    assert set(found) == set(arrays) == set(copied)
    for name, array in arrays.items():
        for read in (found[name], copied[name]):
            np.testing.assert_array_equal(read, array)
            assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert found[name].flags.aligned
        assert not found[name].flags.writeable, name
        assert found[name].ctypes.data % 64 == 0


def test_archives_that_are_not_aligned_are_copied(tmp_path: Path) -> None:
    values = np.arange(30, dtype=np.float64)
    np.savez(tmp_path / "b.npz", x=values, columns=np.asfortranarray(values.reshape(5, 6)))
    found = read_npz(tmp_path / "b.npz", mapped=True)
    np.testing.assert_array_equal(found["x"], values)
    np.testing.assert_array_equal(found["columns"], values.reshape(5, 6))
    assert found["x"].flags.aligned

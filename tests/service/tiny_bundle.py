"""A small real bundle: a fitted schema and an ONNX graph over all seven inputs, without torch or training."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle.behaviours import Behaviours, records
from bundle.columns import Rows, raw_column
from bundle.correct import Correction, Platt, TaskCorrection
from bundle.encode import Encoder
from bundle.fitting import FitColumns, FittedSchema, fit
from bundle.golden import GoldenRow
from bundle.graph_tables import Graph
from bundle.ids import id64_column
from bundle.manifest import Manifest, TensorSpec
from bundle.request import Behaviour, ScoreQuery, rows_from_query
from bundle.schema import FeatureSchema
from bundle.store import ModelStore
from bundle.writing import write_bundle_files
from service.engines.onnx import OnnxEngine

NOW = 1_000_000
ITEMS = [str(number) for number in range(1, 41)]
TASKS = ("ctr", "cvr")
SPECS = (
    TensorSpec(name="user_ids", dtype="int64", shape=("U", "Fu")),
    TensorSpec(name="user_numbers", dtype="float32", shape=("U", "Nu")),
    TensorSpec(name="candidate_ids", dtype="int64", shape=("U", "C", "Fc")),
    TensorSpec(name="candidate_numbers", dtype="float32", shape=("U", "C", "Nc")),
    TensorSpec(name="behaviour_ids", dtype="int64", shape=("U", "T", "Fb")),
    TensorSpec(name="behaviour_numbers", dtype="float32", shape=("U", "T", "Nb")),
    TensorSpec(name="behaviour_mask", dtype="bool", shape=("U", "T", "S")),
)
_DTYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT, "bool": TensorProto.BOOL}


def schema(name: str = "movies") -> FeatureSchema:
    return FeatureSchema.from_toml(
        {
            "bundle": {"name": name},
            "label": {"ctr": "clicked", "cvr": "bought"},
            "ids": {"user": "user_id", "item": "item_id", "time": "ts"},
            "feature": [
                {"name": "item_id", "kind": "id", "side": "candidate"},
                {"name": "category", "kind": "id", "side": "candidate"},
                {"name": "price", "kind": "number", "side": "candidate"},
                {"name": "occupation", "kind": "id", "side": "user"},
                {"name": "age", "kind": "number", "side": "user"},
                {"name": "hour", "kind": "number", "side": "context"},
                {"name": "past_items", "kind": "sequence", "of": "item", "table": "item_id", "max_len": 20},
            ],
        }
    )


def fitted(name: str = "movies") -> FittedSchema:
    declared = schema(name)
    by_name = {feature.name: feature for feature in declared.feature}
    count = len(ITEMS)
    ids = id64_column(ITEMS)
    histories = Behaviours.from_events(
        [records(ITEMS[row % 7 : row % 7 + 5], [NOW - 50 + step for step in range(5)]) for row in range(count)]
    )
    rows = Rows(
        time=np.full(count, float(NOW)),
        items=ids[:, None],
        behaviours=histories,
        user={
            "occupation": raw_column(by_name["occupation"], ["writer", "doctor"] * (count // 2)),
            "age": np.linspace(18, 60, count),
            "hour": np.linspace(0, 23, count),
        },
        candidate={},
    )
    columns = {
        "category": raw_column(by_name["category"], ["drama", "comedy"] * (count // 2)),
        "price": np.linspace(1, 20, count),
    }
    return fit(declared, FitColumns(rows, ids, columns))


def graph(weights: FittedSchema, seed: int = 0, bias: float = -1.0) -> bytes:
    layout = weights.layout
    fixed = {
        "Fu": sum(field.width for field in layout.user_ids),
        "Nu": len(layout.user_numbers),
        "Fc": sum(field.width for field in layout.candidate_ids),
        "Nc": len(layout.candidate_numbers),
        "Fb": sum(field.width for field in layout.behaviour_ids),
        "Nb": len(layout.behaviour_numbers),
        "S": layout.masks,
    }
    inputs = [
        helper.make_tensor_value_info(spec.name, _DTYPES[spec.dtype], [fixed.get(str(n), n) for n in spec.shape])
        for spec in SPECS
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["U", "C", 2])]
    made = helper.make_graph(_nodes(), "tiny", inputs, outputs, _constants(weights, seed, bias))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _constants(weights: FittedSchema, seed: int, bias: float) -> list[onnx.TensorProto]:
    rng = np.random.default_rng(seed)
    rows, layout = max(weights.tables().values()), weights.layout
    drawn = {
        "cw": rng.normal(0, 0.5, rows),
        "uw": rng.normal(0, 0.5, rows),
        "bw": rng.normal(0, 0.5, rows),
        "cn": rng.normal(0, 0.3, (len(layout.candidate_numbers), 1)),
        "un": rng.normal(0, 0.3, (len(layout.user_numbers), 1)),
        "bias": np.array([bias]),
        "one": np.array([1.0]),
        "half": np.array([0.5]),
    }
    axes = {"axis1": np.array([1], dtype=np.int64), "axis2": np.array([2], dtype=np.int64)}
    constants = {name: values.astype(np.float32) for name, values in drawn.items()} | axes
    return [numpy_helper.from_array(values, name) for name, values in constants.items()]


def _nodes() -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Gather", ["cw", "candidate_ids"], ["cg"]),
        node("ReduceSum", ["cg", "axis2"], ["cs"], keepdims=1),  # (U, C, 1)
        node("MatMul", ["candidate_numbers", "cn"], ["cm"]),
        node("Gather", ["uw", "user_ids"], ["ug"]),
        node("ReduceSum", ["ug", "axis1"], ["us"], keepdims=1),  # (U, 1)
        node("MatMul", ["user_numbers", "un"], ["um"]),
        node("Gather", ["bw", "behaviour_ids"], ["bg"]),
        node("ReduceSum", ["bg", "axis2"], ["bs"], keepdims=1),  # (U, T, 1)
        node("Cast", ["behaviour_mask"], ["mf"], to=TensorProto.FLOAT),
        node("Mul", ["bs", "mf"], ["bm"]),
        node("ReduceSum", ["bm", "axis1"], ["bt"], keepdims=0),  # (U, 1)
        node("ReduceSum", ["mf", "axis1"], ["mt"], keepdims=0),
        node("Add", ["mt", "one"], ["mo"]),
        node("Div", ["bt", "mo"], ["history"]),
        node("Add", ["us", "um"], ["u1"]),
        node("Add", ["u1", "history"], ["u2"]),
        node("Unsqueeze", ["u2", "axis1"], ["u3"]),  # (U, 1, 1)
        node("Add", ["cs", "cm"], ["c1"]),
        node("Add", ["c1", "u3"], ["sum"]),
        node("Add", ["sum", "bias"], ["ctr"]),
        node("Mul", ["ctr", "half"], ["cvr"]),
        node("Concat", ["ctr", "cvr"], ["logits"], axis=2),
    ]


def queries() -> list[ScoreQuery]:
    history = [Behaviour(item, NOW - 100 + place) for place, item in enumerate(ITEMS[:6])]
    return [
        ScoreQuery("1", ["1", "2", "3"], NOW, behaviours=[]),
        ScoreQuery("2", ["5", "unseen"], NOW, {"hour": 20}, {"age": 31}, {"price": [9.5, 3.0]}, history),
    ]


def write(folder: Path, version: str = "1.0.0", *, name: str = "movies", seed: int = 0, bias: float = -1.0) -> Manifest:
    """Write one bundle into an empty folder."""
    learned = fitted(name)
    content = graph(learned, seed, bias)
    engine = OnnxEngine(Graph(content))
    correction = Correction(
        tasks={"ctr": TaskCorrection(calibrator=Platt(a=1.1, b=0.1), calibrator_without_history=Platt(a=0.5, b=-2.0))}
    )
    golden = []
    for query in queries():
        inputs = Encoder(learned).encode(rows_from_query(learned, query, None)).take(None)
        logits = engine.run(inputs)[0].astype(np.float64)
        scores = correction.probabilities(logits, TASKS)
        golden.append(GoldenRow(query, logits, scores))
    manifest = Manifest(
        name=name,
        version=version,
        kind="ctr",
        network="tiny",
        inputs=SPECS,
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("U", "C", 2)),),
        tasks=TASKS,
        correction=correction,
        metrics={"auc": 0.7},
        created="2026-01-01T00:00:00Z",
    )
    path = folder.parent / f".{folder.name}.graph.onnx"
    path.write_bytes(content)
    try:
        return write_bundle_files(folder, manifest, learned, golden, {"onnx": path})
    finally:
        path.unlink()


def publish(store: Path, version: str = "1.0.0", *, name: str = "movies", seed: int = 0, bias: float = -1.0) -> Path:
    """Publish one bundle in a model store."""

    def build(folder: Path) -> None:
        write(folder, version, name=name, seed=seed, bias=bias)

    return ModelStore(store).publish(name, version, build)

"""A small real bundle of kind uplift whose answers can be worked out by hand: users have one age and one city.

With z = the scaled age and dose d in [0, 1] the graph returns, on the scale of its loss,

    control   -0.5 + 0.2 z + city
    coupon    control + 0.6 - 0.3 z + 2 d - 2.5 d^2       a peak at d = 0.4
    letter    control + 0.1 + 0.2 z                       no dose; no number at all for ages above 90

and propensity logits 0, -z, 1 - 2 z: older users hardly ever got a letter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle.behaviours import Behaviours
from bundle.columns import Rows, raw_column
from bundle.conformal import Conformal
from bundle.encode import Encoder
from bundle.fitting import FitColumns, FittedSchema, fit
from bundle.graph_tables import Graph
from bundle.manifest import Manifest, TensorSpec
from bundle.population import Person, UpliftQuery, rows_from_users
from bundle.schema import FeatureSchema
from bundle.store import ModelStore
from bundle.treatment import ArmSupport, DoseScale, OutcomeScale, Samples, UpliftPart
from bundle.uplift_golden import UpliftGoldenRow
from bundle.uplift_inputs import graph_inputs
from bundle.writing import UpliftFiles, write_uplift_files
from service.engines.onnx import OnnxEngine

ARMS = ("control", "coupon", "letter")
CITIES = ("oslo", "lima", "pune")
NOISE_WIDTH = 2
BROKEN_AGE = 90.0
_USERS = (
    TensorSpec(name="user_ids", dtype="int64", shape=("U", "Fu")),
    TensorSpec(name="user_numbers", dtype="float32", shape=("U", "Nu")),
    TensorSpec(name="behaviour_ids", dtype="int64", shape=("U", "T", "Fb")),
    TensorSpec(name="behaviour_numbers", dtype="float32", shape=("U", "T", "Nb")),
    TensorSpec(name="behaviour_mask", dtype="bool", shape=("U", "T", "S")),
)
_DOSES = (
    TensorSpec(name="doses", dtype="float32", shape=("U", "K")),
    TensorSpec(name="dose_grid", dtype="float32", shape=("G",)),
)
_DTYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT, "bool": TensorProto.BOOL}


@dataclass(frozen=True)
class Kind:
    """What the bundle is like.

    Attributes:
        supported: doses of the coupon that training saw, in dollars; its range is 1 to 5 dollars.
        rare_above: scaled doses above it have a density of .02; 1 and more: none.
        doses: whether the coupon has a dose.
        rows: training rows by arm, others have 1,000.
    """

    name: str = "incentive"
    doses: bool = False
    smooth: bool = True
    supported: tuple[tuple[float, float], ...] = ((1.0, 5.0),)
    edges: tuple[float, ...] = ()
    rare_above: float = 2.0
    outcome: Literal["binary", "continuous"] = "binary"
    propensity: Literal["estimated", "none"] = "estimated"
    samples: Literal["mc_dropout", "ensemble"] | None = None
    conformal: bool = False
    rows: Mapping[str, int] = field(default_factory=dict)


PLAIN = Kind()
DOSED = Kind(doses=True, rare_above=0.8)


def schema(kind: Kind) -> FeatureSchema:
    treatment: dict[str, Any] = {"column": "arm", "arms": list(ARMS), "outcome": kind.outcome}
    if kind.doses:
        treatment |= {"dose": "dollars", "dose_arms": ["coupon"], "dose_unit": "USD"}
    return FeatureSchema.from_toml(
        {
            "bundle": {"name": kind.name},
            "label": {"visit": "visited"},
            "ids": {"user": "user_id"},
            "treatment": treatment,
            "feature": [
                {"name": "age", "kind": "number", "side": "user"},
                {"name": "city", "kind": "id", "side": "user"},
            ],
        }
    )


def fitted(kind: Kind) -> FittedSchema:
    declared = schema(kind)
    count = 60
    rows = Rows(
        time=np.zeros(count),
        items=np.zeros((count, 0), dtype=np.uint64),
        behaviours=Behaviours.empty(count),
        user={
            "age": np.linspace(20, 60, count),
            "city": raw_column(declared.named("city"), list(CITIES) * (count // 3)),  # type: ignore[arg-type]
        },
    )
    return fit(declared, FitColumns(rows))


class Nodes:
    """Nodes of a graph under construction; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        dtype = np.int64 if np.asarray(value).dtype.kind == "i" else np.float32
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        name = out or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name


def _outcomes(made: Nodes, weights: FittedSchema, bias: float) -> str:
    """The part without doses, (U, K)."""
    rows = max(weights.tables().values())
    z = made.node("Slice", "user_numbers", made.constant([0]), made.constant([1]), made.constant([1]))
    city = made.node("Gather", made.constant(np.linspace(-0.3, 0.3, rows)), "user_ids")
    city = made.node("ReduceSum", city, made.constant([1]), keepdims=1)
    line = made.node("MatMul", z, made.constant([[0.2, -0.1, 0.4]]))
    line = made.node("Add", line, made.constant([bias, bias + 0.6, bias + 0.1]))
    scaler = weights.scalers["age"]
    room = made.node("Sub", made.constant([[(BROKEN_AGE - scaler.mean) / scaler.std]]), z)
    # The logarithm of a negative number is no number; zero times any other logarithm is zero.
    hole = made.node("Mul", made.node("Log", room), made.constant([[0.0, 0.0, 0.0]]))
    only_letter = made.node("Where", _truth(made, [[False, False, True]]), hole, made.constant([[0.0, 0.0, 0.0]]))
    return made.node("Sum", line, city, only_letter)


def _truth(made: Nodes, value: Any) -> str:
    name = f"t{len(made.constants)}"
    made.constants.append(numpy_helper.from_array(np.array(value, dtype=np.bool_), name))
    return name


def _response(made: Nodes, dose: str, slope: str, bend: str) -> str:
    """2 d - 2.5 d^2 for the coupon, 0 for others; slope and bend are broadcast against the doses."""
    return made.node("Add", made.node("Mul", dose, slope), made.node("Mul", made.node("Mul", dose, dose), bend))


def graph(kind: Kind, weights: FittedSchema, bias: float = -0.5) -> bytes:
    made = Nodes()
    outcome = _outcomes(made, weights, bias)
    scale = "logits" if kind.outcome == "binary" else "standardised"
    three = made.constant([2])
    if kind.doses:
        coupon, bend = [[0.0, 2.0, 0.0]], [[0.0, -2.5, 0.0]]
        made.node(
            "Add", outcome, _response(made, "doses", made.constant(coupon), made.constant(bend)), out=f"outcome_{scale}"
        )
        grid = made.node("Reshape", "dose_grid", made.constant([1, 1, -1]))
        along = _response(
            made, grid, made.constant(np.array(coupon)[..., None]), made.constant(np.array(bend)[..., None])
        )
        curve = made.node("Add", made.node("Unsqueeze", outcome, three), along, out=f"curve_{scale}")
        rare = made.node("Greater", grid, made.constant([[[kind.rare_above]]]))
        density = made.node("Where", rare, made.constant([[[0.02]]]), made.constant([[[1.2]]]))
        made.node("Expand", density, made.node("Shape", curve), out="dose_density")
    else:
        made.node("Identity", outcome, out=f"outcome_{scale}")
    z = made.node("Slice", "user_numbers", made.constant([0]), made.constant([1]), made.constant([1]))
    shares = made.node("MatMul", z, made.constant([[0.0, -1.0, -2.0]]))
    made.node("Add", shares, made.constant([0.0, 0.0, 1.0]), out="propensity_logits")
    return _model(made, weights, inputs_of(kind), [spec.name for spec in outputs_of(kind)])


def samples_graph(kind: Kind, weights: FittedSchema) -> bytes:
    """Samples around the outcome: noise (M, U, W), or three members that differ by -.1, 0 and .1 from arm to arm."""
    made = Nodes()
    outcome = made.node("Unsqueeze", _outcomes(made, weights, -0.5), made.constant([0]))
    inputs = inputs_of(kind)
    if kind.samples == "mc_dropout":
        inputs = (*inputs, TensorSpec(name="noise", dtype="float32", shape=("M", "U", NOISE_WIDTH)))
        spread = made.node("Sub", "noise", made.constant([[[0.5]]]))
        # The first column is shared by all arms, the second only moves the coupon.
        spread = made.node("MatMul", spread, made.constant([[1.0, 1.0, 1.0], [0.0, 0.5, 0.0]]))
    else:
        spread = made.constant(np.array([-0.1, 0.0, 0.1])[:, None, None] * np.array([0.0, 1.0, 2.0]))
    made.node("Add", outcome, spread, out="samples")
    return _model(made, weights, inputs, ["samples"])


def inputs_of(kind: Kind) -> tuple[TensorSpec, ...]:
    return (*_USERS, *_DOSES) if kind.doses else _USERS


def outputs_of(kind: Kind) -> tuple[TensorSpec, ...]:
    scale = "logits" if kind.outcome == "binary" else "standardised"
    names = [f"outcome_{scale}", "propensity_logits"]
    if kind.doses:
        names += [f"curve_{scale}", "dose_density"]
    return tuple(
        TensorSpec(name=name, dtype="float32", shape=("U", "K", "G") if place > 1 else ("U", "K"))
        for place, name in enumerate(names)
    )


def _model(made: Nodes, weights: FittedSchema, inputs: tuple[TensorSpec, ...], outputs: list[str]) -> bytes:
    layout = weights.layout
    widths = {"Fu": 1, "Nu": len(layout.user_numbers), "Fb": 0, "Nb": 0, "S": layout.masks, "K": len(ARMS)}
    declared = [
        helper.make_tensor_value_info(spec.name, _DTYPES[spec.dtype], [widths.get(str(n), n) for n in spec.shape])
        for spec in inputs
    ]
    returned = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    found = helper.make_graph(made.nodes, "tiny", declared, returned, made.constants)
    model = helper.make_model(found, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def part_of(kind: Kind) -> UpliftPart:
    doses = {}
    if kind.doses:
        coupon = DoseScale(
            low=1.0, high=5.0, unit="USD", supported=kind.supported, edges=kind.edges, smooth=kind.smooth, default=2.0
        )
        doses = {"coupon": coupon}
    continuous = kind.outcome == "continuous"
    rows = {arm: kind.rows.get(arm, 1000) for arm in ARMS}
    samples = None
    if kind.samples is not None:
        mc = kind.samples == "mc_dropout"
        samples = Samples(method=kind.samples, count=50 if mc else 3, noise_width=NOISE_WIDTH if mc else 0, seed=7)
    return UpliftPart(
        treatments=ARMS,
        outcome=OutcomeScale(
            name="visit", kind=kind.outcome, mean=10.0 if continuous else 0.0, sd=2.0 if continuous else 1.0
        ),
        doses=doses,
        propensity=kind.propensity,
        arms={arm: ArmSupport(rows=count, low_support=count < 50) for arm, count in rows.items()},
        samples=samples,
        conformal=kind.conformal,
    )


def residuals() -> Conformal:
    """Residuals .001, .002 to .1 for every arm, of rows that were given it once in ten."""
    return Conformal((np.linspace(0.001, 0.1, 100),) * 3, (np.full(100, 10.0),) * 3)


def write(folder: Path, kind: Kind, version: str = "1.0.0", bias: float = -0.5) -> Manifest:
    """Write one bundle into an empty folder."""
    learned, part = fitted(kind), part_of(kind)
    content = graph(kind, learned, bias)
    engine = OnnxEngine(Graph(content))
    golden = []
    for number in range(12):
        person = Person(str(number), {"age": 20.0 + 3 * number, "city": CITIES[number % 3]}, behaviours=[])
        query = UpliftQuery([person] * (1 + number % 2), 0.0)
        doses, points = ({"coupon": 1.0 + number / 3}, 3 + number) if kind.doses else ({}, 0)
        encoded = Encoder(learned).encode(rows_from_users(learned, query).rows)
        inputs = graph_inputs(encoded, part, doses, points)
        found = {name: values.astype(np.float64) for name, values in engine.outputs(inputs).items()}
        golden.append(UpliftGoldenRow(query, found, doses, points))
    manifest = Manifest(
        name=kind.name,
        version=version,
        kind="uplift",
        network="tiny",
        inputs=inputs_of(kind),
        outputs=outputs_of(kind),
        tasks=("visit",),
        uplift=part,
        created="2026-01-01T00:00:00Z",
    )
    main, second = (folder.parent / f".{folder.name}.{name}.onnx" for name in ("graph", "samples"))
    main.write_bytes(content)
    second.write_bytes(samples_graph(kind, learned) if kind.samples else b"")
    files = UpliftFiles(
        golden=golden,
        graphs={"onnx": main},
        samples={"onnx": second} if kind.samples else {},
        conformal=residuals() if kind.conformal else None,
    )
    try:
        return write_uplift_files(folder, manifest, learned, files)
    finally:
        main.unlink()
        second.unlink()


def publish(store: Path, kind: Kind = PLAIN, version: str = "1.0.0", bias: float = -0.5) -> Path:
    """Publish one bundle in a model store."""

    def build(folder: Path) -> None:
        write(folder, kind, version, bias)

    return ModelStore(store).publish(kind.name, version, build)


def scaled_age(age: float) -> float:
    """What the graph sees of an age."""
    return float(fitted(PLAIN).scalers["age"].encode(np.array([age]))[0])


def expected_logits(age: float, city: str | None, dollars: float | None = None) -> list[float]:
    """The graph's outcome for one user, worked out in Python."""
    learned = fitted(PLAIN)
    z = scaled_age(age)
    rows = max(learned.tables().values())
    table = learned.id_tables["city"]
    person = rows_from_users(learned, UpliftQuery([Person("x", {} if city is None else {"city": city})], 0.0)).rows
    code = 1 if city is None else int(table.lookup(person.user["city"])[0])
    control = -0.5 + 0.2 * z + float(np.linspace(-0.3, 0.3, rows)[code])
    d = 0.0 if dollars is None else (dollars - 1) / 4
    return [control, control + 0.6 - 0.3 * z + 2 * d - 2.5 * d * d, control + 0.1 + 0.2 * z]

"""A small campaign: coupons of different worth and a letter, for the tests of treatment effects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.behaviours import Behaviours, records
from bundle.columns import Rows
from bundle.conformal import Conformal
from bundle.fitting import FitColumns, FittedSchema, fit
from bundle.ids import id64_column
from bundle.manifest import Manifest, TensorSpec
from bundle.population import Person, UpliftQuery
from bundle.request_values import Behaviour
from bundle.schema import FeatureSchema
from bundle.treatment import ArmSupport, DoseScale, OutcomeScale, Samples, UpliftPart
from bundle.uplift_golden import UpliftGoldenRow
from bundle.writing import UpliftFiles, write_uplift_files

TREATMENT: dict[str, Any] = {
    "column": "sent",
    "arms": ["none", "letter", "coupon"],
    "outcome": "continuous",
    "dose": "worth",
    "dose_arms": ["coupon"],
    "dose_unit": "EUR",
}
FEATURES: tuple[dict[str, Any], ...] = (
    {"name": "age", "side": "user", "kind": "number", "missing_flag": True},
    {"name": "city", "side": "user", "kind": "id"},
    {"name": "tags", "side": "user", "kind": "id", "max_values": 2},
    {"name": "hour", "side": "context", "kind": "number"},
    {"name": "seen", "kind": "sequence", "of": "item", "max_len": 3},
    {"name": "visits", "kind": "history", "stat": "count"},
)


def mapping(features: Sequence[dict[str, Any]] = FEATURES, **sections: Any) -> dict[str, Any]:
    """A declaration as parsed TOML; a section of None is left out."""
    base: dict[str, Any] = {
        "label": {"spend": "spend"},
        "ids": {"user": "person", "item": "product", "time": "ts"},
        "treatment": dict(TREATMENT),
        "feature": [dict(feature) for feature in features],
        "bundle": {"name": "campaign"},
    }
    return {name: section for name, section in (base | sections).items() if section is not None}


def campaign_schema(**sections: Any) -> FeatureSchema:
    return FeatureSchema.from_toml(mapping(**sections))


def campaign_rows(count: int = 40, seed: int = 0) -> Rows:
    """Rows as a data set gives them."""
    random = np.random.default_rng(seed)
    logs = [
        records(random.choice(["p", "q", "r"], size).tolist(), np.sort(random.integers(0, 90, size)).astype(float))
        for size in random.integers(0, 5, count)
    ]
    tags = np.zeros((count, 2), dtype=np.uint64)
    tags[:, 0] = id64_column(random.choice(["new", "vip"], count).tolist())
    return Rows(
        time=np.full(count, 100.0),
        items=np.zeros((count, 0), dtype=np.uint64),
        behaviours=Behaviours.from_events(logs),
        user={
            "age": random.normal(40, 10, count),
            "city": id64_column(random.choice(["oslo", "lima"], count).tolist()),
            "tags": tags,
            "hour": random.integers(0, 24, count).astype(float),
        },
    )


def fitted_campaign() -> FittedSchema:
    return fit(campaign_schema(), FitColumns(rows=campaign_rows()))


PART = UpliftPart(
    treatments=("none", "letter", "coupon"),
    outcome=OutcomeScale(name="spend", kind="continuous", mean=2.0, sd=3.0),
    doses={"coupon": DoseScale(low=1.0, high=5.0, unit="EUR", supported=((1.0, 5.0),), default=2.0)},
    propensity="estimated",
    arms={name: ArmSupport(rows=20) for name in ("none", "letter", "coupon")},
    samples=Samples(method="mc_dropout", count=5, noise_width=4),
    conformal=True,
)


def campaign_manifest(part: UpliftPart = PART) -> Manifest:
    shapes: tuple[tuple[str | int, ...], ...] = (("U", 3), ("U", 3), ("U", 3, "G"))
    return Manifest(
        name="campaign",
        version="1.0.0",
        kind="uplift",
        network="vcnet",
        inputs=(TensorSpec(name="user_ids", dtype="int64", shape=("U", 3)),),
        outputs=tuple(
            TensorSpec(name=name, dtype="float32", shape=shape)
            for name, shape in zip(part.outputs, shapes, strict=False)
        ),
        tasks=(part.outcome.name,),
        uplift=part,
        created="2026-01-01T00:00:00+00:00",
    )


def person(number: int) -> Person:
    """Somebody with inline behaviours; the zeroth has none and knows nothing of themself."""
    if number == 0:
        return Person("p0", {}, [])
    features = {"age": 20.0 + number, "city": "oslo", "tags": ["vip"], "hour": number % 24}
    return Person(f"p{number}", features, [Behaviour("q", 10.0), Behaviour("p", 20.0, "view", 1.0)])


def golden(count: int = 12) -> list[UpliftGoldenRow]:
    """Requests of 1, 2, ... users with made up outputs."""
    rows = []
    for number in range(1, count + 1):
        random = np.random.default_rng(number)
        outputs = {name: random.normal(size=(number, 3)) for name in PART.outputs[:2]}
        outputs[PART.outputs[2]] = random.normal(size=(number, 3, number + 1))
        query = UpliftQuery([person(place) for place in range(number)], 100.0)
        rows.append(UpliftGoldenRow(query, outputs, {"coupon": 2.5}, number + 1))
    return rows


CONFORMAL = Conformal(
    residuals=tuple(np.sort(np.random.default_rng(arm).random(9)) for arm in range(3)),
    weights=tuple(np.ones(9) for _ in range(3)),
)


def campaign_files(folder: Path) -> UpliftFiles:
    """The parts of a bundle; the graphs are two short files in `folder`."""
    for name in ("graph", "samples"):
        (folder / name).write_bytes(name.encode())
    return UpliftFiles(
        golden=golden(),
        graphs={"onnx": folder / "graph"},
        samples={"onnx": folder / "samples"},
        conformal=CONFORMAL,
        card=lambda files: f"<p>{len(files)} files</p>",
    )


def write_campaign(folder: Path, parts: Path) -> Manifest:
    """A whole bundle in `folder`, made of files in `parts`."""
    folder.mkdir(parents=True)
    return write_uplift_files(folder, campaign_manifest(), fitted_campaign(), campaign_files(parts))

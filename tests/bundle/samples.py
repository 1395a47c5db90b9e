"""A small shop: declarations, items and histories that the tests of this folder share."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bundle.behaviours import Behaviours, records
from bundle.columns import Rows, raw_column
from bundle.correct import Correction
from bundle.encode import Encoder
from bundle.fitting import FitColumns, FittedSchema, fit
from bundle.golden import GoldenRow
from bundle.ids import id64_column
from bundle.manifest import Manifest, TensorSpec
from bundle.request import Behaviour, ScoreQuery
from bundle.schema import FeatureSchema
from bundle.writing import write_bundle_files

ITEMS = ("a", "b", "c", "d", "e")
GENRES = ("x|y", "y", None, "z|x|w", "w")
PRICES = (1.0, 2.5, None, 100.0, 2.5)

FEATURES: tuple[dict[str, Any], ...] = (
    {"name": "user_id", "side": "user", "kind": "id", "encoder": {"type": "vocab", "min_count": 2}},
    {"name": "hour", "side": "context", "kind": "id", "encoder": {"type": "hash", "buckets": 50, "seed": 3}},
    {"name": "age", "side": "user", "kind": "number", "encoder": {"type": "log"}, "missing_flag": True},
    {"name": "tags", "side": "user", "kind": "id", "max_values": 2, "sep": ","},
    {"name": "item_id", "side": "candidate", "kind": "id"},
    {"name": "genre", "side": "candidate", "kind": "id", "max_values": 2, "sep": "|"},
    {"name": "price", "side": "candidate", "kind": "number", "encoder": {"type": "quantile"}, "missing_flag": True},
    {"name": "rank", "side": "candidate", "kind": "number", "encoder": {"type": "none"}, "per_row": True},
    {"name": "h_item", "kind": "sequence", "of": "item", "max_len": 3},
    {"name": "h_genre", "kind": "sequence", "of": "genre", "max_len": 3},
    {"name": "h_price", "kind": "sequence", "of": "price", "max_len": 3, "missing_flag": True},
    {"name": "h_type", "kind": "sequence", "of": "type", "max_len": 3},
    {
        "name": "h_value",
        "kind": "sequence",
        "of": "value",
        "max_len": 3,
        "encoder": {"type": "standardise"},
        "missing_flag": True,
    },
    {"name": "h_gap", "kind": "sequence", "of": "gap", "max_len": 3, "encoder": {"type": "log"}, "missing_flag": True},
    {"name": "h_age", "kind": "sequence", "of": "age", "max_len": 3, "encoder": {"type": "quantile"}},
    {
        "name": "liked",
        "kind": "sequence",
        "of": "item",
        "max_len": 2,
        "where": {"min_value": 3},
        "table": "item_id",
    },
    {
        "name": "liked_gap",
        "kind": "sequence",
        "of": "gap",
        "max_len": 2,
        "where": {"min_value": 3},
        "encoder": {"type": "bucket", "boundaries": [10, 100]},
    },
    {
        "name": "liked_age",
        "kind": "sequence",
        "of": "age",
        "max_len": 2,
        "where": {"min_value": 3},
        "encoder": {"type": "bucket", "boundaries": [50]},
    },
    {"name": "n", "kind": "history", "stat": "count", "encoder": {"type": "log"}},
    {"name": "clicks", "kind": "history", "stat": "count", "where": {"types": ["click"]}},
    {"name": "mean", "kind": "history", "stat": "mean", "missing_flag": True},
    {"name": "std", "kind": "history", "stat": "std"},
    {"name": "last2", "kind": "history", "stat": "last_k_mean", "k": 2},
    {"name": "decayed", "kind": "history", "stat": "decayed_mean", "half_life_days": 0.001},
    {"name": "since", "kind": "history", "stat": "seconds_since", "encoder": {"type": "log"}},
    {"name": "speed", "kind": "history", "stat": "per_hour", "encoder": {"type": "log"}},
    {"name": "same_item", "kind": "history", "stat": "count", "match": "item"},
    {"name": "genre_share", "kind": "history", "stat": "share", "match": "genre"},
    {"name": "genre_mean", "kind": "history", "stat": "mean", "match": "genre", "missing_flag": True},
    {"name": "genre_likes", "kind": "history", "stat": "count", "match": "genre", "where": {"min_value": 3}},
)
GROUP = {
    "name": "g",
    "pairs": [{"candidate": "item_id", "history": "h_item"}, {"candidate": "genre", "history": "h_genre"}],
    "extras": ["h_value"],
}


def declaration(features: Sequence[dict[str, Any]] = FEATURES, **sections: Any) -> dict[str, Any]:
    """A TOML mapping around some features."""
    base: dict[str, Any] = {
        "label": {"ctr": "click"},
        "ids": {"user": "user_id", "item": "item_id", "time": "ts"},
        "feature": [dict(feature) for feature in features],
        "bundle": {"name": "shop"},
    }
    return base | sections


def shop_schema() -> FeatureSchema:
    return FeatureSchema.from_toml(declaration(group=[GROUP]))


def item_columns(schema: FeatureSchema) -> dict[str, Any]:
    """The shop's item table, as far as a schema reads it."""
    values = {"genre": GENRES, "price": PRICES}
    return {f.name: raw_column(f, values[f.name]) for f in schema.feature if schema.is_item_column(f)}  # type: ignore[arg-type]


def random_log(rng: np.random.Generator, count: int) -> Any:
    """Behaviours of one user, oldest first, with same-second events, unknown items, missing values and types."""
    items = rng.choice([*ITEMS, "unknown-1", "unknown-2"], count).tolist()
    ts = np.sort(rng.integers(100, 100 + 3 * max(count, 1), count)).astype(float)
    types = [None if rng.random() < 0.2 else str(rng.choice(["click", "rate", "buy"])) for _ in range(count)]
    values = np.where(rng.random(count) < 0.3, np.nan, rng.integers(1, 6, count))
    return records(items, ts, types, values)


def random_rows(schema: FeatureSchema, rng: np.random.Generator, users: int, candidates: int) -> Rows:
    """Rows whose histories are slices of one log, several rows a user, with missing and unseen values."""
    logs = [random_log(rng, int(rng.integers(0, 8))) for _ in range(max(1, users // 2))]
    whole = Behaviours.from_events(logs)
    owner = rng.integers(0, len(logs), users)
    time = rng.integers(95, 130, users).astype(float)
    user, candidate = {}, {}
    for feature in schema.feature:
        if feature.kind not in ("id", "number") or feature.name == "item_id" or schema.is_item_column(feature):
            continue
        count = users if feature.side != "candidate" else users * candidates
        column = raw_column(feature, [_value(feature, rng) for _ in range(count)])  # type: ignore[arg-type]
        if feature.side == "candidate":
            candidate[feature.name] = column.reshape(users, candidates, *column.shape[1:])
        else:
            user[feature.name] = column
    items = id64_column(rng.choice([*ITEMS, "unlisted"], users * candidates).tolist()).reshape(users, candidates)
    return Rows(time, items, whole.take(owner), user, candidate)


def _value(feature: Any, rng: np.random.Generator) -> Any:
    if rng.random() < 0.25:
        return None
    if feature.kind == "number":
        return float(rng.normal(0, 30))
    members = [str(rng.integers(0, 6)) for _ in range(int(rng.integers(1, 4)))]
    return members if feature.max_values > 1 else members[0]


def fit_columns(schema: FeatureSchema, seed: int = 0, users: int = 40) -> FitColumns:
    rows = random_rows(schema, np.random.default_rng(seed), users, 1)
    return FitColumns(rows, id64_column(list(ITEMS)), item_columns(schema))


def fitted_shop(seed: int = 0) -> FittedSchema:
    schema = shop_schema()
    return fit(schema, fit_columns(schema, seed))


def small_query() -> ScoreQuery:
    return ScoreQuery(
        user_id="1",
        candidates=["a", "c", "nobody"],
        ts=120.5,
        context={"hour": "20"},
        user_features={"age": 31, "tags": ["1", "4"]},
        candidate_features={"rank": [1, 2.5, None]},
        behaviours=[Behaviour("a", 100, "click", 4.0), Behaviour("d", 110, None, None)],
    )


def manifest_for(fitted: FittedSchema, **changes: Any) -> Manifest:
    spec = TensorSpec(name="user_ids", dtype="int64", shape=("U", 3))
    values: dict[str, Any] = {
        "name": "shop",
        "version": "1.0.0",
        "kind": "ctr",
        "network": "din",
        "network_config": {"inputs": fitted.input_layout(4)},
        "inputs": (spec,),
        "outputs": (TensorSpec(name="logits", dtype="float32", shape=("U", "C", 1)),),
        "tasks": ("ctr",),
        "correction": Correction(),
        "created": "2024-01-01T00:00:00Z",
    }
    return Manifest(**(values | changes))


def write_shop(folder: Path, fitted: FittedSchema, graph: bytes | None = None) -> Manifest:
    """A complete bundle whose graph is bytes that no parser would accept: opening must not parse it."""
    source = folder.parent / f"graph-{folder.name}.bin"
    source.write_bytes(graph if graph is not None else hashlib.sha256(b"graph").digest() * 40)
    query = small_query()
    logits = np.array([[-1.0], [0.5], [2.0]])
    scores = {"ctr": 1 / (1 + np.exp(-logits[:, 0]))}
    golden = [GoldenRow(query, logits, scores)]
    return write_bundle_files(folder, manifest_for(fitted), fitted, golden, {"onnx": source})


def encoder(seed: int = 0) -> Encoder:
    return Encoder(fitted_shop(seed))

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.columns import Rows
from bundle.encode import Encoder
from bundle.errors import SchemaError
from bundle.fitting import fit
from bundle.schema import FeatureSchema
from tests.bundle.samples import FEATURES, GROUP, declaration, fit_columns, random_rows, shop_schema

DOCUMENT = Path(__file__).parents[2] / "docs" / "schema.md"
ITEM = {"name": "item_id", "side": "candidate", "kind": "id"}
GENRE = {"name": "genre", "side": "candidate", "kind": "id"}
SEQUENCE = {"name": "h", "kind": "sequence", "of": "item", "max_len": 5}
STAT = {"name": "s", "kind": "history", "stat": "count"}


def error_of(mapping: dict[str, Any]) -> str:
    with pytest.raises(SchemaError) as caught:
        FeatureSchema.from_toml(mapping)
    message = str(caught.value)
    assert "\n" not in message, "one sentence"
    return message


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ([{**ITEM, "encodr": {}}], "unknown key feature[item_id].encodr, did you mean encoder?"),
        ([{"name": "x", "kind": "id"}], "missing key feature[x].side"),
        ([{**ITEM, "kind": "text"}], "key feature[item_id]"),
        ([{**ITEM, "side": "item"}], "key feature[item_id].side"),
        ([{**ITEM, "encoder": {"type": "hash"}}], "missing key feature[item_id].encoder.buckets"),
        ([{**ITEM, "encoder": {"type": "vocab", "min_count": 0}}], "feature[item_id].encoder.min_count"),
        ([{**ITEM, "encoder": {"type": "onehot"}}], "feature[item_id].encoder"),
        ([ITEM, ITEM], "feature[item_id].name: declared twice"),
        ([ITEM, {"name": "click", "side": "user", "kind": "id"}], "label of task 'ctr'"),
        ([{"name": "age", "side": "user", "kind": "number", "per_row": True}], "feature[age].per_row"),
        ([{**ITEM, "max_values": 2}], "feature[item_id]: the column of [ids]"),
        ([{"name": "user_id", "side": "candidate", "kind": "id"}], "feature[user_id]: the column of [ids]"),
        ([ITEM, {**SEQUENCE, "max_len": 0}], "feature[h].max_len"),
        ([ITEM, {**SEQUENCE, "max_len": 1001}], "feature[h].max_len"),
        ([ITEM, {**SEQUENCE, "side": "candidate"}], "feature[h].side"),
        ([ITEM, {**SEQUENCE, "of": "colour"}], "feature[h].of: 'colour' is neither"),
        ([ITEM, {**GENRE, "per_row": True}, {**SEQUENCE, "of": "genre"}], "'genre' is not a column of the item table"),
        ([ITEM, {**SEQUENCE, "of": "value"}], "feature[h].encoder: of = 'value' needs"),
        ([ITEM, {**SEQUENCE, "encoder": {"type": "log"}}], "feature[h].encoder: 'item' is an id"),
        ([ITEM, {**SEQUENCE, "missing_flag": True}], "feature[h].missing_flag"),
        ([ITEM, {**SEQUENCE, "where": {}}], "feature[h].where"),
        ([ITEM, {**SEQUENCE, "where": {"min_value": 3, "max_value": 2}}], "min_value must not exceed max_value"),
        (
            [ITEM, {**SEQUENCE, "of": "age", "encoder": {"type": "bucket", "boundaries": [2, 1]}}],
            "feature[h].encoder.boundaries",
        ),
        ([ITEM, {**STAT, "stat": "median"}], "feature[s].stat"),
        ([ITEM, {**STAT, "stat": "last_k_mean"}], "key k is needed"),
        ([ITEM, {**STAT, "k": 3}], "key k is needed"),
        ([ITEM, {**STAT, "half_life_days": 3}], "key half_life_days is needed"),
        ([ITEM, {**STAT, "stat": "share"}], "'share' needs the key match"),
        ([ITEM, {**STAT, "stat": "std", "match": "item"}], "allows the stats count, share and mean"),
        ([ITEM, {**STAT, "match": "item", "side": "user"}], "side must be 'candidate'"),
        ([ITEM, {**STAT, "match": "colour"}], "feature[s].match: 'colour'"),
        ([ITEM, {**GENRE, "kind": "number"}, {**STAT, "match": "genre"}], "feature[s].match: 'genre' is a number"),
    ],
)
def test_wrong_features_name_the_key(features: list[dict[str, Any]], expected: str) -> None:
    assert expected in error_of(declaration(features))


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"ids": {"user": "user_id", "item": "item_id"}}, "missing key ids.time"),
        ({"labels": {}}, "unknown key labels, did you mean label?"),
        ({"label": {}}, "key label"),
        ({"weight": {"cvr": "w"}}, "key weight.cvr"),
        ({"bundle": {"name": "My Model"}}, "key bundle.name"),
        ({"tables": {"colour": {"dim": 3}}}, "key tables.colour"),
        ({"group": [{**GROUP, "gru": "LSTM"}]}, "group[g].gru"),
        ({"group": [{**GROUP, "extras": ["age"]}]}, "group[g]: 'age' is not a sequence"),
        ({"group": [{**GROUP, "extras": ["nobody"]}]}, "there is no feature named 'nobody'"),
        ({"group": [{**GROUP, "extras": ["liked"]}]}, "the same where and max_len"),
        ({"group": [GROUP, GROUP]}, "group[g].name: declared twice"),
        ({"group": [{**GROUP, "pairs": [{"candidate": "age", "history": "h_item"}]}]}, "not a candidate id feature"),
        ({"group": [{**GROUP, "pairs": [{"candidate": "item_id", "history": "h_value"}]}]}, "name it in extras"),
        (
            {
                "group": [{**GROUP, "pairs": [{"candidate": "genre", "history": "h_item"}]}],
                "tables": {"genre": {"dim": 3}},
            },
            "different dim",
        ),
    ],
)
def test_wrong_sections_name_the_key(sections: dict[str, Any], expected: str) -> None:
    assert expected in error_of(declaration(**sections))


@pytest.mark.parametrize(
    "other",
    [
        {"type": "vocab", "min_count": 2},
        {"type": "hash", "buckets": 10},
        {"type": "hash", "buckets": 20, "seed": 1},
    ],
)
def test_one_table_has_one_encoder(other: dict[str, Any]) -> None:
    candidate = {**ITEM, "table": "item", "encoder": {"type": "hash", "buckets": 20}}
    message = error_of(declaration([candidate, {**SEQUENCE, "table": "item", "encoder": other}]))
    assert "feature[h].encoder" in message
    assert "'item'" in message


def test_a_table_does_not_mix_ids_and_types() -> None:
    types = {**SEQUENCE, "name": "t", "of": "type", "table": "item_id"}
    assert "would mix" in error_of(declaration([ITEM, types]))


def test_history_shares_the_candidate_table_by_default() -> None:
    schema = FeatureSchema.from_toml(declaration([{**ITEM, "encoder": {"type": "hash", "buckets": 7}}, SEQUENCE]))
    fitted = fit(schema, fit_columns(schema))
    assert fitted.tables() == {"item_id": 9}
    assert [f.table for f in fitted.layout.behaviour_ids] == ["item_id"]


def test_declaration_survives_json() -> None:
    schema = shop_schema()
    again = FeatureSchema.from_toml(schema.to_json())
    assert again == schema
    assert again.digest() == schema.digest()
    other = FeatureSchema.from_toml(declaration(FEATURES[:-1], group=[GROUP]))
    assert other.digest() != schema.digest()


def test_layout_columns_tile_each_side() -> None:
    layout = fit(shop_schema(), fit_columns(shop_schema())).input_layout(6)
    for side in ("user", "candidate", "behaviour"):
        end = 0
        for field in layout[f"{side}_ids"]:
            assert field["column"] == end
            end += field["width"]
        assert [field["column"] for field in layout[f"{side}_numbers"]] == list(range(len(layout[f"{side}_numbers"])))
    assert layout["streams"] == 2
    streams = [field["stream"] for field in layout["behaviour_ids"]]
    assert streams == sorted(streams)
    assert {table["dim"] for table in layout["tables"]} == {6}


def test_table_dims_come_from_the_declaration() -> None:
    pair = [{"candidate": "item_id", "history": "h_item"}]
    schema = FeatureSchema.from_toml(declaration(group=[{**GROUP, "pairs": pair}], tables={"genre": {"dim": 3}}))
    tables = {t["name"]: t["dim"] for t in fit(schema, fit_columns(schema)).input_layout(6)["tables"]}
    assert tables["genre"] == 3
    assert tables["item_id"] == 6


def test_the_documented_example_runs() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    block = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    schema = FeatureSchema.from_toml(tomllib.loads(block[1]))
    kinds = {feature.kind for feature in schema.feature}
    assert kinds == {"id", "number", "sequence", "history"}
    fitted = fit(schema, fit_columns(schema))
    rows: Rows = random_rows(schema, np.random.default_rng(1), 5, 2)
    arrays = Encoder(fitted).encode(rows).take()
    assert arrays["candidate_ids"].shape[:2] == (5, 2)


def test_every_key_is_documented() -> None:
    from bundle import schema as declarations

    text = DOCUMENT.read_text(encoding="utf-8")
    classes = [getattr(declarations, name) for name in dir(declarations)]
    models = [c for c in classes if isinstance(c, type) and issubclass(c, declarations.Declaration)]
    assert len(models) > 10
    for model in models:
        for key, info in model.model_fields.items():
            if not info.exclude:
                assert f"`{key}`" in text, f"{model.__name__}.{key} is not in docs/schema.md"

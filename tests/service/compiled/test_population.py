"""Users read, joined with what is stored about them and encoded by compiled code, as the encoder of bundles does it."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.behaviours import Behaviours
from bundle.columns import Rows
from bundle.encode import Encoder
from bundle.fitting import FitColumns, FittedSchema, fit
from bundle.ids import id64_column
from bundle.population import Person, UpliftQuery, rows_from_users, unseen_values
from bundle.schema import FeatureSchema
from bundle.uplift_inputs import USER_INPUTS
from service.behaviours.codec import MOST_FEATURE_BYTES, decode_user
from service.compiled.population import PopulationEncoder, Unsupported
from service.compiled.users import UserBlock, UserReader
from service.core.uplift_version import told_of
from tests.bundle.campaign import fitted_campaign

CITIES = ("oslo", "lima", "pune", "東京", "c" * 60)
ROWS = 200
FEATURES: tuple[dict[str, Any], ...] = (
    {"name": "age", "side": "user", "kind": "number", "missing_flag": True},
    {"name": "city", "side": "user", "kind": "id"},
    {"name": "spend", "side": "user", "kind": "number", "encoder": {"type": "log"}},
    {"name": "rank", "side": "user", "kind": "number", "encoder": {"type": "quantile"}},
    {"name": "street", "side": "context", "kind": "id", "encoder": {"type": "hash", "buckets": 50, "seed": 3}},
    {"name": "raw", "side": "user", "kind": "number", "encoder": {"type": "none"}, "missing_flag": True},
)
BASE: dict[str, Any] = {
    "label": {"bought": "bought"},
    "ids": {"user": "user_id"},
    "treatment": {"column": "arm", "arms": ["none", "mail"], "outcome": "binary"},
    "bundle": {"name": "campaign"},
}


def fitted(features: tuple[dict[str, Any], ...] = FEATURES) -> FittedSchema:
    rng = np.random.default_rng(0)
    schema = FeatureSchema.from_toml(BASE | {"feature": [dict(feature) for feature in features]})
    columns = {
        "age": rng.normal(40, 10, ROWS),
        "city": id64_column(rng.choice(CITIES[:4], ROWS).tolist()),
        "spend": np.exp(rng.normal(3, 2, ROWS)),
        "rank": rng.integers(0, 30, ROWS).astype(float),
        "street": id64_column(rng.choice(CITIES, ROWS).tolist()),
        "raw": rng.normal(2, 1, ROWS),
    }
    rows = Rows(
        time=np.zeros(ROWS),
        items=np.zeros((ROWS, 0), dtype=np.uint64),
        behaviours=Behaviours.empty(ROWS),
        user={feature["name"]: columns[feature["name"]] for feature in features},
    )
    return fit(schema, FitColumns(rows))


FITTED = fitted()
NAMES = [feature["name"] for feature in FEATURES]


def value_of(name: str, rng: random.Random) -> Any:
    if rng.random() < 0.1:
        return None
    if name in ("city", "street"):
        return rng.choice([*CITIES, "never seen", ""])
    return rng.choice([rng.uniform(-100, 100), rng.randrange(-50, 50), 0, -0.0, 1e300, -1e300, 1e-320, 17.0, 3])


def people(count: int, rng: random.Random, named: float = 0.8) -> list[dict[str, Any]]:
    return [
        {
            "user_id": f"u{rng.randrange(10**6)}",
            "features": {name: value_of(name, rng) for name in NAMES if rng.random() < named},
        }
        for _ in range(count)
    ]


def block_of(users: list[dict[str, Any]], path: Path) -> UserBlock:
    told = told_of(FITTED.schema)
    reader = UserReader([one.name for one in told], [one.kind == "id" for one in told], path)
    found = reader.read(json.dumps({"users": users}, ensure_ascii=False).encode(), len(users))
    assert found is not None
    return found


def check_encoded(block: UserBlock, expected: Any, path: Path) -> None:
    """Tensors, and who misses or has never seen what, are the ordinary encoder's."""
    encoded = Encoder(FITTED).encode(expected.rows)
    found = PopulationEncoder(FITTED, path).encode(block)
    inputs = encoded.take(None)
    assert list(found.inputs) == list(USER_INPUTS)
    for name, values in found.inputs.items():
        assert (values.dtype, values.shape) == (inputs[name].dtype, inputs[name].shape)
        # A logarithm may differ in its last digit from one library to the next.
        np.testing.assert_allclose(values, inputs[name], rtol=2e-7, atol=0, err_msg=name)
    unseen = unseen_values(FITTED, expected.rows, encoded)
    for mine, its in ((found.missing, expected.missing), (found.unseen_values, unseen)):
        assert list(mine) == list(its)
        for name, flags in mine.items():
            np.testing.assert_array_equal(flags, its[name])
    assert {name: count for name, count in found.unseen.items() if count} == {
        name: count for name, count in encoded.unseen.items() if count
    }


@pytest.mark.parametrize("count", [1, 2, 7, 300])
@pytest.mark.parametrize("named", [0.0, 0.7, 1.0])
def test_users_are_encoded_as_the_bundle_says(compiled_library: Path, count: int, named: float) -> None:
    rng = random.Random(count)
    users = people(count, rng, named)
    query = UpliftQuery([Person(user["user_id"], user["features"]) for user in users], 0.0)
    check_encoded(block_of(users, compiled_library), rows_from_users(FITTED, query), compiled_library)


def test_columns_of_another_declaration_are_refused(compiled_library: Path) -> None:
    other = PopulationEncoder(fitted(FEATURES[:2]), compiled_library)
    with pytest.raises(ValueError, match="expected \\['age', 'city'\\]"):
        other.encode(block_of(people(1, random.Random(0)), compiled_library))


@pytest.mark.parametrize("name", ["tags", "user_id"])
def test_features_that_need_more_are_left_to_the_encoder(compiled_library: Path, name: str) -> None:
    asked = {
        "tags": {"name": "tags", "side": "user", "kind": "id", "max_values": 2},
        "user_id": {"name": "user_id", "side": "user", "kind": "id"},
    }
    schema = FeatureSchema.from_toml(BASE | {"feature": [dict(FEATURES[0]), asked[name]]})
    rows = Rows(
        time=np.zeros(2),
        items=np.zeros((2, 0), dtype=np.uint64),
        behaviours=Behaviours.empty(2),
        user={"age": np.ones(2), name: np.ones((2, 2) if name == "tags" else 2, dtype=np.uint64)},
    )
    with pytest.raises(Unsupported, match=name):
        PopulationEncoder(fit(schema, FitColumns(rows)), compiled_library)
    with pytest.raises(Unsupported, match="tags"):
        PopulationEncoder(fitted_campaign(), compiled_library)


# --- with what is stored ---------------------------------------------------------------------------------------------

_ODD: tuple[bytes | None, ...] = (
    *(None, b"", b"{}", b"null", b"[]", b"{", b'{"age":1}}', b'{"age":1} ', b' {"age":1}', b'{"age":1}\x00{}', b"\x00"),
    *(b'{"age":1,"age":2}', b'{"age":true}', b'{"age":"7"}', b'{"city":7}', b'{"city":["oslo"]}', b'{"city":{"a":1}}'),
    *(
        b'{"x":[1,"a",null]}',
        b'{"x":[[1]]}',
        b'{"x":[{}]}',
        b'{"x":{}}',
        b'{"x":1e999}',
        b'{"age":1e999}',
        b'{"age":-0}',
    ),
    *(b'{"age":9007199254740993}', b'{"age":123456789012345678901234567890}', b'{"age":0.1,"x":tru}', b'{"age":01}'),
    *(
        b'{"city":"o\\u0073lo"}',
        b'{"c\\u0069ty":"oslo"}',
        b'{"city":"\xff"}',
        b'{"city":"\xed\xa0\x80"}',
        b'{"city":"a\tb"}',
    ),
    *(
        b'{"age":NaN}',
        b'{"age":5,}',
        b'{"age" : 5 , "city" : "lima"}',
        b'{"city":"' + b"z" * 300 + b'"}',
        b'{"age":1.}',
    ),
    b'{"city":"lima","y":"' + b"z" * MOST_FEATURE_BYTES + b'"}',
)


def stored_value(rng: random.Random) -> bytes | None:
    if rng.random() < 0.2:
        return rng.choice(_ODD)
    kept = {name: value_of(name, rng) for name in rng.sample([*NAMES, "other"], rng.randrange(0, 7))}
    text = json.dumps(kept, ensure_ascii=rng.random() < 0.1).encode()
    if rng.random() < 0.05:
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice([b"", b'"', b",", b"}", b"\x00", b"[", b"1"]) + text[place + 1 :]
    return text


def test_stored_values_are_taken_as_one_by_one_or_not_at_all(compiled_library: Path) -> None:
    rng, taken = random.Random(5), 0
    for _ in range(1500):
        count = rng.randrange(1, 4)
        users, values = people(count, rng, rng.choice([0.0, 0.5, 1.0])), [stored_value(rng) for _ in range(count)]
        block = block_of(users, compiled_library)
        before = rows_from_users(FITTED, block.columns())
        stored = [decode_user(None, value, 0) for value in values]
        query = UpliftQuery([Person(user["user_id"], user["features"]) for user in users], 0.0)
        expected = rows_from_users(FITTED, query, stored)
        if block.fill(values, MOST_FEATURE_BYTES):
            taken += 1
            assert not any(data.corrupt for data in stored), values
            check_encoded(block, expected, compiled_library)
            continue
        after = rows_from_users(FITTED, block.columns())  # nothing was taken
        for name, column in before.rows.user.items():
            np.testing.assert_array_equal(column, after.rows.user[name])
        again = rows_from_users(FITTED, block.columns(), stored)
        for name, column in expected.rows.user.items():
            np.testing.assert_array_equal(column, again.rows.user[name])
    assert 600 < taken < 1450


def test_plain_stored_values_are_taken(compiled_library: Path) -> None:
    block = block_of([{"user_id": "a"}, {"user_id": "b", "features": {"age": None}}], compiled_library)
    assert block.fill([b'{"age":31.5,"city":"oslo","x":[1,null]}', b'{"age":7,"raw":2}'], MOST_FEATURE_BYTES)
    ages, cities = (block.columns().features[name] for name in ("age", "city"))
    np.testing.assert_array_equal(ages, [31.5, np.nan])  # the request says that it has none
    np.testing.assert_array_equal(cities, id64_column(["oslo", None]))


@pytest.mark.parametrize(
    "value", [b"", b'{"age":1}\x00{"age":2}', b'{"city":"a","city":"b"}', b'{"x":{}}', b'{"city":"\xff"}']
)
def test_a_value_that_is_not_plain_spoils_nothing(compiled_library: Path, value: bytes) -> None:
    block = block_of([{"user_id": "a"}, {"user_id": "b", "features": {"age": 5}}], compiled_library)
    assert not block.fill([b'{"age":1,"city":"oslo"}', value], MOST_FEATURE_BYTES)
    np.testing.assert_array_equal(block.columns().features["age"], [np.nan, 5.0])
    np.testing.assert_array_equal(block.columns().features["city"], [0, 0])
    np.testing.assert_array_equal(block.columns().silent["age"], [True, False])

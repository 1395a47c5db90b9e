"""The quick ways of reading /uplift accept only what the documented way accepts, with the same meaning."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from benchmarks.serving.app import quiet_settings
from bundle.behaviours import records
from bundle.errors import FeatureError
from bundle.fitting import FittedSchema
from bundle.population import Population, UpliftQuery, rows_from_users
from bundle.request import StoredUser
from bundle.user_columns import UserColumns
from service.api import uplift_body
from service.api.compiled_users import CompiledUsers
from service.api.typed_users import TypedBody, UserDecoder
from service.api.uplift_body import UpliftBody, documented
from service.api.uplift_schemas import UpliftOptions
from service.compiled.library import CompiledUnavailable
from service.compiled.users import UserBlock, UserReader
from service.core.uplift_version import told_of
from service.errors import ServiceError
from tests.bundle.campaign import fitted_campaign
from tests.service import tiny_uplift
from tests.service.bodies import WHOLE, bodies

SETTINGS = quiet_settings(Path("none"), "memory://")
PLAIN, TAGGED = tiny_uplift.fitted(tiny_uplift.PLAIN), fitted_campaign()
KEPT = StoredUser(records([], []), {"age": 99.0, "city": "lima", "hour": 3})
Reader = CompiledUsers | UserDecoder


@pytest.fixture(params=["compiled", "typed"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reader:
    told = told_of(PLAIN.schema)
    if request.param == "typed":
        return UserDecoder(told)
    path = request.getfixturevalue("compiled_library")
    monkeypatch.setattr("service.compiled.library.LIBRARY", path)
    return CompiledUsers(told)


def slow(raw: bytes) -> UpliftBody | None:
    try:
        return documented(raw, SETTINGS)
    except ServiceError:
        return None


def written(body: UpliftBody) -> list[Any]:
    ids = body.user_ids
    return [json.loads(ids.text[a:b]) for a, b in zip(ids.start.tolist(), ids.stop.tolist(), strict=True)]


def columns(found: TypedBody) -> UserColumns:
    return found.users.columns() if isinstance(found.users, UserBlock) else found.users


def population(fitted: FittedSchema, users: UpliftQuery | UserColumns, *, stored: bool) -> Population | str:
    kept = [KEPT, None] * len(users.user_ids)
    try:
        return rows_from_users(fitted, users, kept[: len(users.user_ids)] if stored else None)
    except FeatureError as error:
        return str(error)


def check_population(fitted: FittedSchema, one: UserColumns, other: UpliftBody) -> None:
    assert isinstance(other.users, UpliftQuery)
    for stored in (False, True):
        left, right = (population(fitted, users, stored=stored) for users in (one, other.users))
        if isinstance(left, str) or isinstance(right, str):
            assert left == right
            continue
        for mine, its in ((left.rows.user, right.rows.user), (left.missing, right.missing)):
            assert mine.keys() == its.keys()
            for name, column in mine.items():
                np.testing.assert_array_equal(column, its[name], err_msg=name)


def agree(reader: Reader, raw: bytes, fitted: FittedSchema = PLAIN) -> bool:
    """Whether a quick way took the body; fails where it took what it should not have or in another sense."""
    try:
        found = reader.decode(raw, 1000)
        if found is None:
            return False
        told = columns(found)
        quick = UpliftBody(told, found.user_ids, UpliftOptions.model_validate(found.options))
    except (ValueError, RecursionError, ValidationError, ServiceError):
        return False
    asked = slow(raw)
    assert asked is not None, raw
    assert list(told.user_ids) == list(asked.users.user_ids)
    assert written(quick) == written(asked) == list(asked.users.user_ids)
    options = {name: value for name, value in asked.options if name != "users"}
    assert repr(dict(quick.options)) == repr(options)
    check_population(fitted, told, asked)
    return True


def test_five_thousand_bodies_mean_the_same_in_both_ways(reader: Reader) -> None:
    taken = [agree(reader, raw) for raw in bodies(1, 5000)]
    assert 1000 < sum(taken) < 4000


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_ordinary_bodies_take_the_quick_way(reader: Reader, indent: int | None, ascii_only: bool) -> None:
    for separators in ((",", ":"), (", ", ": "), (" , ", " \n: ")):
        text = json.dumps(WHOLE, indent=indent, ensure_ascii=ascii_only, separators=separators)
        assert agree(reader, text.encode()) or (ascii_only and isinstance(reader, CompiledUsers)), text
    assert agree(reader, b'{"users":[{"user_id":"7"}]}')


@pytest.mark.parametrize(
    "raw",
    [
        b'{"users":[{"user_id":"7","user_id":"8"}]}',
        b'{"users":[{"user_id":"7","features":{"age":1,"age":2}}]}',
        b'{"users":[{"user_id":"7","features":{},"features":{}}]}',
        b'{"users":[{"user_id":"7"}],"users":[{"user_id":"8"}]}',
        b'{"users":[{"user_id":"7"}],"budget":{"total":1,"costs":{},"costs":{}}}',
        b'{"users":[{"user_id":"a:b","user_id":"7"}]}',
        b'{"users":[{"user_id" : "7", "features":{"age":1,"age" :2}}]}',
        b'{"users":[{"user_id":"7","features":{"age":1,"age":2}},{"user_id":"8","features":{"city":"oslo"}}]}',
    ],
)
def test_a_key_that_stands_twice_is_never_taken(reader: Reader, raw: bytes) -> None:
    assert not agree(reader, raw)
    assert slow(raw) is None


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("0.1", 0.1),
        ("123456789.123456", 123456789.123456),
        ("9007199254740993", 9007199254740992.0),
        ("0.30000000000000004", 0.30000000000000004),
        ("2.2250738585072014e-308", 2.2250738585072014e-308),
        ("1.7976931348623157E+308", 1.7976931348623157e308),
        ("-0", 0.0),
        ("-0.0", -0.0),
        ("100000000000000000000000000000000", 1e32),
        ("0." + "3" * 40, 1 / 3),
    ],
)
def test_numbers_are_read_to_the_last_bit(reader: Reader, number: str, value: float) -> None:
    found = reader.decode(b'{"users":[{"user_id":"7","features":{"age":%b}}]}' % number.encode(), 10)
    assert found is not None
    (read,) = columns(found).features["age"]
    assert (read, np.signbit(read)) == (value, np.signbit(value))


def test_any_number_is_the_nearest_double_to_its_text(reader: Reader) -> None:
    rng = random.Random(0)
    numbers = [f"{rng.uniform(-10, 10):.{rng.randrange(1, 20)}f}" for _ in range(1000)]
    users = ",".join(f'{{"user_id":"u","features":{{"age":{number}}}}}' for number in numbers)
    found = reader.decode(f'{{"users":[{users}]}}'.encode(), 1000)
    assert found is not None
    assert list(columns(found).features["age"]) == [float(number) for number in numbers]


def test_what_a_user_does_not_name_is_left_to_the_store(reader: Reader) -> None:
    found = reader.decode(json.dumps({"users": WHOLE["users"]}).encode(), 10)
    if found is None:  # escapes are not for compiled code
        found = reader.decode(json.dumps({"users": WHOLE["users"]}, ensure_ascii=False).encode(), 10)
    assert found is not None
    np.testing.assert_array_equal(columns(found).silent["age"], [False, True, True, False, False, True])
    np.testing.assert_array_equal(columns(found).silent["city"], [False, True, True, False, False, False])


def test_several_ids_are_read_by_their_types() -> None:
    told = told_of(TAGGED.schema)
    with pytest.raises(ValueError, match="tags"):
        CompiledUsers(told)
    reader = UserDecoder(told)
    body: dict[str, Any] = {"users": [{"user_id": "7", "features": {"tags": ["vip", "new"], "age": 3}}]}
    assert agree(reader, json.dumps(body).encode(), TAGGED)
    body["users"].append({"user_id": "8", "features": {"tags": "vip", "city": "oslo", "hour": None, "age": 1}})
    assert agree(reader, json.dumps(body).encode(), TAGGED)
    body["users"].append({"user_id": "9", "features": {"tags": [None]}})
    assert not agree(reader, json.dumps(body).encode(), TAGGED)


def test_bounds_of_the_settings_hold_in_the_quick_way() -> None:
    told = told_of(PLAIN.schema)

    def quick(people: list[dict[str, Any]], **limits: int) -> UpliftBody | None:
        bounded = SETTINGS.model_copy(update={"limits": SETTINGS.limits.model_copy(update=limits)})
        return uplift_body.quick(json.dumps({"users": people}).encode(), told, bounded)

    one = {"user_id": "abc"}
    assert quick([one, one], users=2) is not None
    assert quick([one, one, one], users=2) is None
    assert quick([one], id_bytes=3) is not None
    assert quick([one], id_bytes=2) is None
    assert quick([one], json_depth=4) is None


def test_a_body_names_its_model_wherever_that_stands() -> None:
    users = [{"user_id": str(number), "features": {"city": "x" * 100}} for number in range(50)]
    for body in ({"model": "a", "users": users}, {"users": users, "model": "a"}):
        assert uplift_body.routing(json.dumps(body).encode()).model == "a"
    assert uplift_body.routing(b'{"users": [], "model": 7}').model is None


def test_without_the_library_bodies_are_read_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(CompiledUnavailable, match="not built"):
        UserReader(["age"], [False], tmp_path / "none.so")
    (tmp_path / "_compiled.so").write_bytes(b"no library")
    with pytest.raises(CompiledUnavailable, match="cannot be opened"):
        UserReader(["age"], [False], tmp_path / "_compiled.so")


def test_a_library_of_other_source_is_not_used(
    compiled_library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "_compiled.so"
    copy.write_bytes(compiled_library.read_bytes())
    monkeypatch.setattr("service.compiled.library.library_digest", lambda: "of another one")
    with pytest.raises(CompiledUnavailable, match="other source"):
        UserReader(["age"], [False], copy)


def test_under_the_sanitizers(run_sanitized: Callable[[str], None]) -> None:
    """Addresses and undefined behaviour: bodies in a process of their own, any finding ends it."""
    run_sanitized("tests.service.bodies")

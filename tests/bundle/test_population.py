"""Many users at once: the same rows as one after another, stored values joined, problems by their place."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bundle.behaviours import records
from bundle.encode import Encoder
from bundle.errors import FeatureError
from bundle.population import Person, UpliftQuery, rows_from_users, unseen_values
from bundle.request import StoredUser
from bundle.request_values import Behaviour
from tests.bundle.campaign import fitted_campaign, person

FITTED = fitted_campaign()
USERS = [person(number) for number in range(6)]


def encoded(users: list[Person], stored: list[StoredUser | None] | None = None) -> dict[str, Any]:
    """Inputs padded to the declared length, so that blocks of different users compare."""
    return Encoder(FITTED).encode(rows_from_users(FITTED, UpliftQuery(users, 100.0), stored).rows).take(trim=False)


def test_a_block_of_users_is_each_of_them_alone() -> None:
    together = encoded(USERS)
    for place, user in enumerate(USERS):
        alone = encoded([user])
        for name, array in alone.items():
            np.testing.assert_array_equal(array[0], together[name][place], err_msg=name)


def test_no_users_are_no_rows() -> None:
    assert encoded([])["user_numbers"].shape == (0, 4)


def test_stored_values_stand_in_and_the_request_goes_before_them() -> None:
    told = USERS[3]
    log = records(["q", "p"], [10.0, 20.0], [None, "view"], [np.nan, 1.0])
    kept = StoredUser(log, {**told.features, "unknown to this model": 1})
    silent = Person("p3")
    for name, array in encoded([silent], [kept]).items():
        np.testing.assert_array_equal(array, encoded([told])[name], err_msg=name)
    other = replace(told, behaviours=[])
    for name, array in encoded([other], [StoredUser(log, {"age": 99.0, "city": "lima"})]).items():
        np.testing.assert_array_equal(array, encoded([other])[name], err_msg=name)


def test_a_value_said_to_be_missing_is_missing_whatever_is_stored() -> None:
    kept = StoredUser(records([], []), {"age": 30.0, "tags": ["vip"]})
    query = UpliftQuery([Person("a", {"age": None}, []), Person("b", {}, [])], 100.0)
    population = rows_from_users(FITTED, query, [kept, kept])
    np.testing.assert_array_equal(population.missing["age"], [True, False])
    assert "tags" not in population.missing
    np.testing.assert_array_equal(population.missing["city"], [True, True])
    assert "city" not in population.rows.user
    assert population.rows.user["age"][1] == 30.0


def test_stored_values_of_another_type_are_left_out() -> None:
    bad = StoredUser(records([], []), {"age": "thirty", "city": 5, "tags": [None], "hour": float("nan")})
    good = StoredUser(records([], []), {"age": 31.0})
    population = rows_from_users(FITTED, UpliftQuery([Person("a"), Person("b"), Person("c")], 1.0), [bad, good, None])
    np.testing.assert_array_equal(population.missing["age"], [True, False, True])
    assert set(population.rows.user) == {"age"}


def test_unseen_values_are_told_by_user() -> None:
    users = [
        Person("a", {"city": "oslo", "tags": ["vip", "strange"]}),
        Person("b", {"city": "atlantis"}),
        Person("c", {}),
    ]
    rows = rows_from_users(FITTED, UpliftQuery(users, 1.0)).rows
    found = unseen_values(FITTED, rows, Encoder(FITTED).encode(rows))
    np.testing.assert_array_equal(found["city"], [False, True, False])
    np.testing.assert_array_equal(found["tags"], [True, False, False])
    known = rows_from_users(FITTED, UpliftQuery(users[:1], 1.0)).rows
    assert set(unseen_values(FITTED, known, Encoder(FITTED).encode(known))) == {"tags"}


def test_behaviours_at_or_after_the_request_are_not_looked_at() -> None:
    late = replace(USERS[1], behaviours=[Behaviour("p", 99.0), Behaviour("q", 100.0), Behaviour("q", 5.0)])
    in_order = replace(USERS[1], behaviours=[Behaviour("q", 5.0), Behaviour("p", 99.0)])
    for name, array in encoded([late]).items():
        np.testing.assert_array_equal(array, encoded([in_order])[name], err_msg=name)


def test_numbers_of_numpy_are_numbers() -> None:
    odd = replace(USERS[2], features={**USERS[2].features, "age": np.float32(22.0), "hour": np.int64(2)})
    for name, array in encoded([odd]).items():
        np.testing.assert_array_equal(array, encoded([USERS[2]])[name], err_msg=name)


@pytest.mark.parametrize(
    ("change", "pointer", "message"),
    [
        ({"features": {"age": "old"}}, "/users/3/features/age", "must be a number, got str"),
        ({"features": {"age": True}}, "/users/3/features/age", "must be a number, got bool"),
        ({"features": {"age": float("nan")}}, "/users/3/features/age", "must be finite"),
        ({"features": {"age": 10**400}}, "/users/3/features/age", "must be finite"),
        ({"features": {"city": 7}}, "/users/3/features/city", "must be a string, got int"),
        ({"features": {"city": ["oslo"]}}, "/users/3/features/city", "must be a string, got list"),
        ({"features": {"city": "\ud800"}}, "/users/3/features/city", "must be valid Unicode text"),
        ({"features": {"tags": ["vip", 3]}}, "/users/3/features/tags/1", "must be a string, got int"),
        ({"features": {"tags": ["vip", None]}}, "/users/3/features/tags/1", "must be a string, got null"),
        ({"features": {"a/b": 1}}, "/users/3/features/a~1b", "the model has no feature of this name"),
        ({"features": {"visits": 1}}, "/users/3/features/visits", "is computed from the behaviours"),
        ({"features": {"person": "p3"}}, "/users/3/features/person", "is taken from user_id"),
        ({"user_id": 3}, "/users/3/user_id", "must be a string, got int"),
        ({"behaviours": [Behaviour("p", -1.0)]}, "/users/3/behaviours/0/ts", "must be seconds"),
        ({"behaviours": [Behaviour("p", 1.0, value=1e300)]}, "/users/3/behaviours/0/value", "finite in 32 bits"),
    ],
)
def test_a_problem_is_pointed_at(change: dict[str, Any], pointer: str, message: str) -> None:
    users = [*USERS[:3], replace(USERS[3], **change), *USERS[4:]]
    with pytest.raises(FeatureError) as caught:
        rows_from_users(FITTED, UpliftQuery(users, 100.0))
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert message in problem.message


def test_every_problem_is_told_up_to_fifty() -> None:
    users = [Person(None, {"age": "x", "city": 1}) for _ in range(20)]
    with pytest.raises(FeatureError) as caught:
        rows_from_users(FITTED, UpliftQuery(users, -5.0))
    assert len(caught.value.problems) == 41
    with pytest.raises(FeatureError) as caught:
        rows_from_users(FITTED, UpliftQuery(users * 3, 1.0))
    assert len(caught.value.problems) == 50


def test_stored_entries_must_be_one_a_user() -> None:
    with pytest.raises(ValueError, match="6 users, but 1 entries"):
        rows_from_users(FITTED, UpliftQuery(USERS, 1.0), [None])


def test_a_query_comes_back_from_its_text() -> None:
    query = UpliftQuery(USERS, 100.0)
    assert UpliftQuery.from_json(query.to_json()) == query


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"users": [1], "ts": 1}',
        '{"users": [{"behaviours": null, "features": 1, "user_id": "a"}], "ts": 1}',
        '{"users": [], "ts": 1, "x": 2}',
    ],
)
def test_another_text_is_no_query(text: str) -> None:
    with pytest.raises(ValueError, match="not an uplift query"):
        UpliftQuery.from_json(text)

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.behaviours import records
from bundle.encode import Encoder
from bundle.errors import FeatureError
from bundle.request import Behaviour, ScoreQuery, StoredUser, rows_from_query
from tests.bundle.samples import fitted_shop, small_query

FITTED = fitted_shop()


def pointers(query: ScoreQuery, stored: StoredUser | None = None) -> dict[str, str]:
    with pytest.raises(FeatureError) as caught:
        rows_from_query(FITTED, query, stored)
    return {problem.pointer: problem.code for problem in caught.value.problems}


def test_a_query_becomes_one_row() -> None:
    rows = rows_from_query(FITTED, small_query())
    encoded = Encoder(FITTED).encode(rows)
    arrays = encoded.take()
    assert arrays["candidate_ids"].shape[:2] == (1, 3)
    assert encoded.missing == ()
    assert encoded.visible.behaviours.lengths.tolist() == [2]


def test_absent_features_are_listed() -> None:
    encoded = Encoder(FITTED).encode(rows_from_query(FITTED, ScoreQuery(None, ["a"], 100)))
    assert set(encoded.missing) == {"user_id", "hour", "age", "tags", "rank"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"user_features": {"nobody": 1}}, {"/user_features/nobody": "schema"}),
        ({"user_features": {"a/b~c": 1}}, {"/user_features/a~1b~0c": "schema"}),
        ({"user_features": {"hour": "3"}}, {"/user_features/hour": "schema"}),
        ({"user_features": {"n": 3}}, {"/user_features/n": "schema"}),
        ({"user_features": {"h_item": ["a"]}}, {"/user_features/h_item": "schema"}),
        ({"user_features": {"user_id": "3"}}, {"/user_features/user_id": "schema"}),
        ({"user_features": {"age": "31"}}, {"/user_features/age": "schema"}),
        ({"user_features": {"age": True}}, {"/user_features/age": "schema"}),
        ({"user_features": {"age": float("nan")}}, {"/user_features/age": "not_finite"}),
        ({"user_features": {"age": 10**400}}, {"/user_features/age": "not_finite"}),
        ({"user_features": {"age": [31]}}, {"/user_features/age": "schema"}),
        ({"user_features": {"tags": ["1", 2]}}, {"/user_features/tags/1": "schema"}),
        ({"context": {"hour": 20}}, {"/context/hour": "schema"}),
        ({"context": {"hour": ["20"]}}, {"/context/hour": "schema"}),
        ({"context": {"age": 3}}, {"/context/age": "schema"}),
        ({"candidate_features": {"age": [1, 2, 3]}}, {"/candidate_features/age": "schema"}),
        ({"candidate_features": {"item_id": ["a", "b", "c"]}}, {"/candidate_features/item_id": "schema"}),
        ({"candidate_features": {"price": [1, 2]}}, {"/candidate_features/price": "schema"}),
        ({"candidate_features": {"price": 3}}, {"/candidate_features/price": "schema"}),
        (
            {"candidate_features": {"price": [1, float("inf"), "x"]}},
            {"/candidate_features/price/1": "not_finite", "/candidate_features/price/2": "schema"},
        ),
        ({"candidate_features": {"genre": [["x"], "x|y", 3]}}, {"/candidate_features/genre/2": "schema"}),
        ({"candidates": ["a", 242]}, {"/candidates/1": "schema"}),
        ({"user_id": 7}, {"/user_id": "schema"}),
        ({"ts": float("nan")}, {"/ts": "schema"}),
        ({"ts": -1.0}, {"/ts": "schema"}),
        ({"behaviours": [Behaviour("a", -1)]}, {"/behaviours/0/ts": "schema"}),
        ({"behaviours": [Behaviour(5, 1)]}, {"/behaviours/0/item_id": "schema"}),  # type: ignore[arg-type]
        ({"behaviours": [Behaviour("a", 1, 3)]}, {"/behaviours/0/type": "schema"}),  # type: ignore[arg-type]
        ({"behaviours": [Behaviour("a", 1, None, float("inf"))]}, {"/behaviours/0/value": "not_finite"}),
        ({"behaviours": [Behaviour("a", 1, None, 1e39)]}, {"/behaviours/0/value": "not_finite"}),
    ],
)
def test_problems_carry_their_pointer(changes: dict[str, Any], expected: dict[str, str]) -> None:
    query = replace(small_query(), candidate_features={}) if "candidates" in changes else small_query()
    assert pointers(replace(query, **changes)) == expected


def test_messages_never_repeat_values() -> None:
    with pytest.raises(FeatureError) as caught:
        rows_from_query(FITTED, replace(small_query(), user_features={"age": "secret-value"}))
    assert "secret-value" not in str(caught.value)


def test_the_request_overrides_what_is_stored() -> None:
    stored = StoredUser(records(["b"], [50]), {"age": 20, "tags": "2,3", "other_model": 1, "hour": "9", "item_id": "z"})
    query = replace(small_query(), user_features={"age": 31}, context={}, behaviours=None)
    rows = rows_from_query(FITTED, query, stored)
    assert rows.numbers is not None
    assert dict(zip(rows.numbers.names, rows.numbers.values[0].tolist(), strict=True)) == {"age": 31.0}
    assert (rows.user["tags"] != 0).sum() == 2
    assert rows.behaviours.lengths.tolist() == [1]
    given = replace(query, behaviours=[])
    assert rows_from_query(FITTED, given, stored).behaviours.lengths.tolist() == [0]


def test_stored_features_of_another_type_are_left_out() -> None:
    stored = StoredUser(records([], []), {"age": "thirty", "tags": [1]})
    rows = rows_from_query(FITTED, ScoreQuery("1", ["a"], 100), stored)
    assert set(rows.user) == {"user_id"}


def test_late_behaviours_are_put_in_order() -> None:
    behaviours = [Behaviour("b", 30), Behaviour("a", 10), Behaviour("c", 30)]
    rows = rows_from_query(FITTED, replace(small_query(), behaviours=behaviours))
    assert rows.behaviours.events["ts"].tolist() == [10, 30, 30]
    again = rows_from_query(FITTED, replace(small_query(), behaviours=[behaviours[1], behaviours[0], behaviours[2]]))
    assert rows.behaviours.events.tobytes() == again.behaviours.events.tobytes()


def test_a_query_survives_json() -> None:
    assert ScoreQuery.from_json(small_query().to_json()) == small_query()
    for text in ("[]", "{}", '{"behaviours": [3]}', '{"behaviours": null, "x": 1}', "{"):
        with pytest.raises(ValueError, match=r"."):
            ScoreQuery.from_json(text)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(), max_size=3)
NAMES = st.sampled_from([feature.name for feature in FITTED.schema.feature]) | st.text(max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.dictionaries(NAMES, st.lists(VALUES, min_size=2, max_size=2) | VALUES, max_size=4),
    st.lists(st.builds(Behaviour, VALUES, VALUES, VALUES, VALUES), max_size=3),
)
def test_any_content_is_encoded_or_refused(context: Any, user: Any, candidate: Any, behaviours: Any) -> None:
    query = ScoreQuery("u", ["a", "b"], 200.0, context, user, candidate, behaviours)
    try:
        rows = rows_from_query(FITTED, query)
    except FeatureError as error:
        problems = error.problems
    else:
        problems = []
        for array in Encoder(FITTED).encode(rows).take().values():
            assert np.isfinite(array.astype(np.float64)).all()
    assert all(problem.pointer.startswith("/") for problem in problems)

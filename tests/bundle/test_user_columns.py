"""Users by column are the same rows as users one by one."""

from typing import Any

import numpy as np
import pytest

from bundle.behaviours import records
from bundle.encode import Encoder
from bundle.errors import FeatureError
from bundle.ids import MISSING_ID, id64_column
from bundle.population import Person, UpliftQuery, rows_from_users
from bundle.request import StoredUser
from bundle.user_columns import UserColumns
from tests.bundle.campaign import fitted_campaign

FITTED = fitted_campaign()
KEPT = StoredUser(records([], []), {"age": 70.0, "city": "oslo", "tags": ["vip"], "hour": 5})


def columns(**changed: Any) -> UserColumns:
    features: dict[str, Any] = {
        "age": np.array([20.0, np.nan, np.nan]),
        "city": id64_column(["lima", None, None]),
        "tags": [["vip", "new"], None, "vip"],
        "hour": [3, None, 4],
    }
    silent = {"age": np.array([False, False, True]), "city": np.array([False, False, True])}
    return UserColumns(["a", "b", "c"], 100.0, features | changed, silent)


PEOPLE = [
    Person("a", {"age": 20.0, "city": "lima", "tags": ["vip", "new"], "hour": 3}),
    Person("b", {"age": None, "city": None, "tags": None, "hour": None}),
    Person("c", {"tags": "vip", "hour": 4}),
]


@pytest.mark.parametrize("stored", [None, [KEPT, KEPT, KEPT], [None, KEPT, None]])
def test_columns_are_the_same_rows_as_persons(stored: list[StoredUser | None] | None) -> None:
    one = rows_from_users(FITTED, columns(), stored)
    other = rows_from_users(FITTED, UpliftQuery(PEOPLE, 100.0), stored)
    assert one.missing.keys() == other.missing.keys()
    for name, flags in one.missing.items():
        np.testing.assert_array_equal(flags, other.missing[name])
    left, right = (Encoder(FITTED).encode(population.rows).take() for population in (one, other))
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], err_msg=name)


def test_the_store_answers_only_for_those_who_are_silent() -> None:
    rows = rows_from_users(FITTED, columns(), [KEPT, KEPT, KEPT]).rows.user
    np.testing.assert_array_equal(rows["age"], [20.0, np.nan, 70.0])
    assert rows["city"].tolist() == [*id64_column(["lima"]).tolist(), MISSING_ID, *id64_column(["oslo"]).tolist()]


def test_infinite_numbers_and_other_features_are_refused() -> None:
    with pytest.raises(FeatureError) as caught:
        rows_from_users(FITTED, columns(age=np.array([1.0, np.inf, 2.0])))
    assert [problem.pointer for problem in caught.value.problems] == ["/users/1/features/age"]
    with pytest.raises(ValueError, match="other features"):
        rows_from_users(FITTED, columns(height=[1, 2, 3]))

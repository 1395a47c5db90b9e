"""The quick way of reading /uplift accepts only what the documented way accepts, with the same meaning."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.serving.app import quiet_settings
from service.api import body, uplift_body
from service.api.uplift_schemas import UpliftRequest
from service.errors import ServiceError

SETTINGS = quiet_settings(Path("none"), "memory://")
WHOLE: dict[str, Any] = {
    "users": [
        {"user_id": "7", "features": {"age": 31, "city": "o:s", "tags": ["a", None, "b"], "none": None}},
        {"user_id": "8"},
        {"user_id": "ü", "features": {}},
    ],
    "treatments": ["coupon"],
    "doses": {"coupon": 2},
    "dose_grid": 21,
    "interval": {"level": 0.9, "method": "conformal"},
    "budget": {"total": 100, "costs": {"coupon": {"base": 1, "per_dose": 1.5}}, "value_per_outcome": 10},
    "allow_extrapolation": True,
    "campaign": "spring",
    "model": "incentive",
}
# What may stand in a body by mistake, in any place.
ODDITIES = [
    *("NaN", "Infinity", "1e400", "-1e400", "true", "null", "7", "01", "9" * 30, "9" * 5000),
    *('"x"', '""', '"\\ud800"', '"\\u00fc"', '"\\""', '"a\\": 1"'),
    *("[]", "{}", "[[1]]", '{"a": {"b": 1}}', '{"age": 1, "age": 2}', "[" * 20 + "]" * 20),
]


def documented(raw: bytes) -> UpliftRequest | None:
    try:
        return body.validated(raw, UpliftRequest, SETTINGS, {"users": 1000})
    except ServiceError:
        return None


def agree(raw: bytes) -> bool:
    """Whether the quick way took the body; raises where it took what it should not have or in another sense."""
    quick = uplift_body.quick(raw, 1000)
    if quick is None:
        return False
    slow = documented(raw)
    assert slow is not None, raw
    assert [(user.user_id, dict(user.features)) for user in quick.users] == [
        (user.user_id, user.features) for user in slow.users
    ]
    left, right = quick.options.model_dump(), slow.model_dump(exclude={"users"})
    assert repr(left) == repr(right)
    return True


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_ordinary_bodies_take_the_quick_way(indent: int | None, ascii_only: bool) -> None:
    for separators in ((",", ":"), (", ", ": "), (" , ", " \n: ")):
        text = json.dumps(WHOLE, indent=indent, ensure_ascii=ascii_only, separators=separators)
        assert agree(text.encode()), text
    assert agree(b'{"users":[{"user_id":"7"}]}')


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
    ],
)
def test_a_key_that_stands_twice_is_never_taken(raw: bytes) -> None:
    assert uplift_body.quick(raw, 1000) is None
    assert documented(raw) is None


@settings(max_examples=600, deadline=None)
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 3))
def test_damaged_bodies_are_never_read_in_another_way(seed: int, changes: int) -> None:
    rng = random.Random(seed)
    text = json.dumps(WHOLE, ensure_ascii=rng.random() < 0.5, separators=rng.choice([(",", ":"), (", ", ": ")]))
    for _ in range(changes):
        place = rng.randrange(len(text))
        kind = rng.randrange(4)
        if kind == 0:  # one character goes or is another one
            text = text[:place] + rng.choice(["", "x", '"', "\\", ",", ":", "{", "]", "1", "\n"]) + text[place + 1 :]
        elif kind == 1:  # a piece stands twice
            end = min(len(text), place + rng.randrange(1, 30))
            text = text[:end] + text[place:end] + text[end:]
        else:  # a value is another one
            colon = text.find(":", place)
            if colon >= 0:
                end = min((n for n in (text.find(",", colon), text.find("}", colon)) if n >= 0), default=len(text))
                text = text[: colon + 1] + rng.choice(ODDITIES) + text[end:]
    agree(text.encode("utf-8", "replace"))

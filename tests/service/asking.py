"""Requests to a running /uplift, and what every reply has to keep to."""

import json
from typing import Any

import httpx
import pytest

from service.api.uplift_schemas import UpliftReply
from tests.service import tiny_uplift
from tests.service.tiny_uplift import Kind

YOUNG = {"user_id": "7", "features": {"age": 30, "city": "oslo"}}
# Letters hardly ever went to people of this age: their propensity is below .01, that of coupons below .05.
OLD = {"user_id": "8", "features": {"age": 84, "city": "lima"}}
BROKEN = {"user_id": "9", "features": {"age": 95, "city": "lima"}}
KINDS = (
    tiny_uplift.PLAIN,
    Kind(name="dosed", doses=True, rare_above=0.8),
    Kind(name="strata", doses=True, smooth=False, supported=((1.0, 2.0), (3.0, 5.0)), edges=(2.0, 3.0)),
    Kind(name="small", rows={"letter": 12}, samples="mc_dropout"),
    Kind(name="empty", rows={"letter": 0}),
    Kind(name="unknown", propensity="none"),
)
CAMPAIGNS = {"spring": "incentive", "autumn": "dosed@1.0.0", "gone": "absent", "clicks": "movies"}


def answer(client: httpx.Client, *users: dict[str, Any], **asked: Any) -> dict[str, Any]:
    """The reply, checked against the documented model and for the exact identity of effects."""
    sent = client.post("/uplift", json={"users": list(users or (YOUNG,)), **asked})
    assert sent.status_code == 200, sent.text
    reply: dict[str, Any] = UpliftReply.model_validate_json(sent.content, strict=True) and json.loads(
        sent.content, parse_constant=lambda word: pytest.fail(f"{word} is no JSON")
    )
    for user in reply["users"]:
        control = user["outcomes"]["control"]
        for treatment, effect in user["effects"].items():
            outcome = user["outcomes"][treatment]
            assert effect == (None if control is None or outcome is None else outcome - control)
    return reply


def refused(client: httpx.Client, status: int, body: dict[str, Any] | bytes) -> dict[str, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = client.post("/uplift", content=content, headers={"content-type": "application/json"})
    assert sent.status_code == status, sent.text
    assert sent.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = sent.json()
    return found


def pointers(problem: dict[str, Any]) -> list[str]:
    return [item["pointer"] for item in problem["errors"]]

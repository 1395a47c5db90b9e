"""The contract of POST /score, and everything that may be wrong with a request."""

import asyncio
import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.serving.app import quiet_settings, running
from bundle.request import Behaviour, ScoreQuery
from service.core.version import load_version
from tests.service import tiny_bundle

JSON = {"content-type": "application/json"}


def post(models: Path, *bodies: Any, path: str = "/score", **sections: dict[str, Any]) -> list[httpx.Response]:
    """Send bodies one after the other to a fresh service with an empty store."""

    async def send() -> list[httpx.Response]:
        async with running(quiet_settings(models, "memory://", **sections)) as client:
            return [
                await client.post(path, content=body, headers=JSON)
                if isinstance(body, bytes)
                else await client.post(path, json=body)
                for body in bodies
            ]

    return asyncio.run(send())


def test_a_request_gets_the_scores_of_the_core(published: Path) -> None:
    behaviours = [{"item_id": "5", "ts": 900}, {"item_id": "6", "ts": 950, "type": "rate", "value": 4}]
    body = {"user_id": "196", "candidates": ["1", "2", "3"], "behaviours": behaviours, "ts": 1000, "raw": True}
    (reply,) = post(published, body | {"context": {"hour": 20}, "candidate_features": {"price": [1, 2.5, None]}})
    assert reply.status_code == 200, reply.text
    got = reply.json()
    version = load_version(published / "movies" / "1.0.0")
    query = ScoreQuery(
        "196",
        ["1", "2", "3"],
        1000,
        {"hour": 20},
        {},
        {"price": [1, 2.5, None]},
        [Behaviour("5", 900), Behaviour("6", 950, "rate", 4)],
    )
    expected = version.score(query, None)
    np.testing.assert_allclose(got["logits"]["ctr"], expected.logits[0, :, 0], atol=1e-6)
    np.testing.assert_allclose(got["scores"]["pctr"], expected.probabilities["ctr"][0], atol=1e-9)
    np.testing.assert_allclose(
        got["scores"]["pctcvr"], np.multiply(got["scores"]["pctr"], got["scores"]["pcvr"]), rtol=1e-12
    )
    assert got["model"] == {"name": "movies", "version": "1.0.0"}
    assert got["behaviours"] == {"source": "request", "length": 2}
    assert got["request_id"] == reply.headers["x-request-id"]
    assert got["degraded"] == []
    assert set(got["warnings"]) == {"missing_feature:age", "missing_feature:occupation"}


def test_unknown_user_item_and_category_are_scored_and_counted(published: Path) -> None:
    async def send() -> tuple[httpx.Response, str]:
        async with running(quiet_settings(published, "memory://")) as client:
            body = {"user_id": "nobody", "candidates": ["unseen"], "candidate_features": {"category": ["odd"]}}
            reply = await client.post("/score", json=body)
            return reply, (await client.get("/metrics")).text

    reply, metrics = asyncio.run(send())
    assert reply.status_code == 200
    assert reply.json()["behaviours"] == {"source": "store", "length": 0}
    assert 'ctrlift_unseen_ids_total{field="item_id",model="movies"} 1.0' in metrics
    assert 'ctrlift_unseen_ids_total{field="category",model="movies"} 1.0' in metrics


def test_a_lost_store_is_scored_with_the_calibrator_for_lost_histories(models: Path) -> None:
    nowhere = {"url": "redis://127.0.0.1:1/0"}
    body = {"user_id": "1", "candidates": ["1", "2"], "ts": tiny_bundle.NOW, "raw": True}
    lost, given = post(models, body, body | {"behaviours": []}, store=nowhere)
    assert lost.json()["behaviours"] == {"source": "empty", "length": 0}
    assert lost.json()["degraded"]
    logits = np.array(lost.json()["logits"]["ctr"])
    assert logits == pytest.approx(given.json()["logits"]["ctr"], abs=1e-6)
    assert lost.json()["scores"]["pctr"] == pytest.approx(1 / (1 + np.exp(-(0.5 * logits - 2.0))), rel=1e-6)
    assert given.json()["scores"]["pctr"] == pytest.approx(1 / (1 + np.exp(-(1.1 * logits + 0.1))), rel=1e-6)


def test_behaviours_at_or_after_the_time_of_the_request_are_ignored(published: Path) -> None:
    past = [{"item_id": "5", "ts": 100}]
    now = [{"item_id": "6", "ts": 200}, {"item_id": "7", "ts": 900}]
    body = {"candidates": ["1"], "ts": 200}
    first, second = post(published, body | {"behaviours": past}, body | {"behaviours": past + now})
    assert first.json()["scores"] == second.json()["scores"]
    assert second.json()["behaviours"]["length"] == 1


ONE = {"user_id": "1", "candidates": ["1", "2"]}
WRONG: list[tuple[Any, int, str, str | None]] = [
    (ONE | {"candidates": []}, 422, "schema", "/candidates"),
    (ONE | {"candidates": ["1"] * 1001}, 422, "too_many_items", "/candidates"),
    (ONE | {"candidates": ["1", 2]}, 422, "schema", "/candidates/1"),
    (ONE | {"candidates": "1"}, 422, "schema", "/candidates"),
    (ONE | {"candidates": ["1", "x" * 257]}, 422, "schema", "/candidates/1"),
    (ONE | {"user_id": 196}, 422, "schema", "/user_id"),
    (ONE | {"user_id": ""}, 422, "schema", "/user_id"),
    ({"candidates": ["1"]}, 422, "schema", "/user_id"),
    (ONE | {"colour": 1}, 422, "schema", "/colour"),
    (ONE | {"raw": 1}, 422, "schema", "/raw"),
    (ONE | {"ts": -1}, 422, "schema", "/ts"),
    (ONE | {"ts": True}, 422, "schema", "/ts"),
    (ONE | {"ts": 2**32}, 422, "schema", "/ts"),
    (ONE | {"context": {"hour": "late"}}, 422, "schema", "/context/hour"),
    (ONE | {"context": {"hour": True}}, 422, "schema", "/context/hour"),
    (ONE | {"context": {"age": 3}}, 422, "schema", "/context/age"),
    (ONE | {"user_features": {"nope": 3}}, 422, "schema", "/user_features/nope"),
    (ONE | {"user_features": {"occupation": 3}}, 422, "schema", "/user_features/occupation"),
    (ONE | {"user_features": {"age": {"a": 1}}}, 422, "schema", "/user_features/age"),
    (ONE | {"candidate_features": {"price": [1]}}, 422, "schema", "/candidate_features/price"),
    (ONE | {"candidate_features": {"price": [1, "a"]}}, 422, "schema", "/candidate_features/price/1"),
    (ONE | {"candidate_features": {"a/b~": [1, 2]}}, 422, "schema", "/candidate_features/a~1b~0"),
    (ONE | {"behaviours": [{"item_id": "1"}]}, 422, "schema", "/behaviours/0/ts"),
    (ONE | {"behaviours": [{"item_id": 1, "ts": 1}]}, 422, "schema", "/behaviours/0/item_id"),
    (ONE | {"model": "unknown"}, 404, "model_unknown", "/model"),
    (ONE | {"model": "movies@9.9.9"}, 404, "version_unknown", "/model"),
    (ONE | {"model": "../movies"}, 404, "model_unknown", "/model"),
    (b'{"user_id": "1", "candidates": ["1"], "context": {"hour": NaN}}', 422, "not_finite", "/context/hour"),
    (b'{"user_id": "1", "candidates": ["1"], "context": {"hour": 1e999}}', 422, "not_finite", "/context/hour"),
    (b'{"user_id": "1", "candidates": ["1"], "ts": NaN}', 422, "not_finite", "/ts"),
    (
        b'{"user_id": "1", "candidates": ["1", "2"], "candidate_features": {"price": [1, -Infinity]}}',
        422,
        "not_finite",
        "/candidate_features/price/1",
    ),
    (b'{"user_id": "1", "candidates": ["1"], "context": {"hour": 1' + b"0" * 400 + b"}}", 422, "", "/context/hour"),
    ([], 422, "schema", ""),
    (b"null", 422, "schema", ""),
]


def test_what_is_wrong_is_named_and_nothing_crashes(published: Path) -> None:
    replies = post(published, *(body for body, *_ in WRONG))
    for reply, (body, status, code, pointer) in zip(replies, WRONG, strict=True):
        shown = f"{str(body)[:100]} -> {reply.text}"
        assert reply.status_code == status, shown
        problem = reply.json()
        assert reply.headers["content-type"] == "application/problem+json", shown
        assert problem["status"] == status
        assert problem["instance"] == reply.headers["x-request-id"]
        assert problem["type"] == f"/problems/{problem['code']}"
        assert not code or problem["code"] == code, shown
        if pointer is not None:
            assert pointer in {error["pointer"] for error in problem["errors"]}, shown


def test_a_number_as_an_id_is_told_that_a_string_was_expected(published: Path) -> None:
    (reply,) = post(published, ONE | {"user_id": 196})
    assert reply.json()["errors"][0]["detail"] == "a string was expected, a number came"


def test_unknown_feature_names_can_be_ignored(published: Path) -> None:
    (reply,) = post(published, ONE | {"user_features": {"nope": 3}}, validation={"extra": "ignore"})
    assert reply.status_code == 200
    assert "unknown_feature:nope" in reply.json()["warnings"]


def test_uplift_is_404_while_no_such_bundle_is_loaded(published: Path) -> None:
    users = [{"user_id": "7", "features": {"age": 31}}]
    replies = post(
        published,
        {"users": users},
        {"users": users, "campaign": "spring"},
        {"users": users, "model": "movies"},
        {"users": []},
        path="/uplift",
    )
    assert [(reply.status_code, reply.json()["code"]) for reply in replies] == [
        (404, "model_unknown"),
        (404, "campaign_not_found"),
        (404, "model_unknown"),
        (422, "schema"),
    ]


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
extreme = st.sampled_from([0.0, -0.0, 1e308, -1e308, 5e-324, 1e38, -1, 2**53]) | st.floats() | anything


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_extremes_in_every_field_give_finite_scores_or_a_problem(published: Path, data: st.DataObject) -> None:
    body = {
        "user_id": data.draw(st.text(max_size=10) | anything),
        "candidates": ["1", data.draw(st.text(min_size=1, max_size=5))],
        "context": {"hour": data.draw(extreme)},
        "user_features": {"age": data.draw(extreme), "occupation": data.draw(st.text() | anything)},
        "candidate_features": {"price": [1, data.draw(extreme)], "category": [None, data.draw(st.text() | anything)]},
        "behaviours": data.draw(st.none() | st.lists(st.fixed_dictionaries({"item_id": st.text(), "ts": extreme}))),
        "ts": data.draw(st.none() | st.integers(0, 2**32 - 1) | extreme),
    }
    raw = _SHARED.json_bytes(body)
    reply = _SHARED.post(published, raw)
    assert reply.status_code in (200, 400, 422), reply.text
    if reply.status_code == 200:
        values = [value for column in reply.json()["scores"].values() for value in column]
        assert all(math.isfinite(value) and 0 < value < 1 for value in values)


class _Shared:
    """One service for all examples: starting one for each would take most of the time."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._client: httpx.AsyncClient | None = None

    @staticmethod
    def json_bytes(body: Any) -> bytes:
        import json

        return json.dumps(body, ensure_ascii=True).encode()

    def post(self, models: Path, raw: bytes) -> httpx.Response:
        if self._runner is None:
            self._runner = asyncio.Runner()
            self._context = running(quiet_settings(models, "memory://"))
            self._client = self._runner.run(self._context.__aenter__())
        assert self._client is not None
        return self._runner.run(self._client.post("/score", content=raw, headers=JSON))

    def close(self) -> None:
        if self._runner is not None:
            self._runner.run(self._context.__aexit__(None, None, None))
            self._runner.close()
            self._runner = None


_SHARED = _Shared()


@pytest.fixture(autouse=True, scope="module")
def _close_the_shared_service() -> Any:
    yield
    _SHARED.close()


def test_a_graph_that_returns_nan_is_a_problem_and_not_a_score(tmp_path: Path) -> None:
    version_folder = tiny_bundle.publish(tmp_path / "models", bias=-1.0)
    version = load_version(version_folder)

    class Broken:
        def run(self, inputs: Any) -> Any:
            return np.full((1, 2, 2), np.nan, dtype=np.float32)

        def close(self) -> None: ...

    version._engine = Broken()

    async def send() -> httpx.Response:
        async with running(quiet_settings(tmp_path / "models", "memory://")) as client:
            slots = client.app.state.container.registry.view["movies"].slots  # type: ignore[attr-defined]
            slots["1.0.0"].served = version
            return await client.post("/score", json=ONE)

    reply = asyncio.run(send())
    assert (reply.status_code, reply.json()["code"]) == (500, "inference_failed")

"""POST /uplift over real HTTP: features, numbers and intervals that are missing, budgets, and a store that is away."""

import asyncio
import math
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.serving.app import quiet_settings, running
from benchmarks.serving.process import service_process
from tests.service import tiny_uplift
from tests.service.asking import BROKEN, YOUNG, answer

# --- features --------------------------------------------------------------------------------------------------------


def test_unseen_and_missing_features_are_answered_and_named(client: httpx.Client) -> None:
    reply = answer(
        client,
        {"user_id": "1", "features": {"age": 30, "city": "atlantis"}},
        {"user_id": "2", "features": {"city": "oslo"}},
        {"user_id": "3"},
        {"user_id": "4", "features": {"age": None, "city": "oslo"}},
        YOUNG,
    )
    assert [user["warnings"] for user in reply["users"]] == [
        ["unseen_value:city"],
        ["missing_feature:age"],
        ["missing_feature:age", "missing_feature:city"],
        ["missing_feature:age"],
        [],
    ]
    assert all(user["outcomes"]["coupon"] is not None for user in reply["users"])


def test_stored_features_are_read_and_those_of_the_request_go_first(client: httpx.Client) -> None:
    stored = [{"user_id": "s1", "features": {"age": 30, "city": "oslo"}}, {"user_id": "s2", "features": {"age": 50}}]
    assert client.post("/users", json={"users": stored}).status_code == 200
    inline = answer(client, YOUNG)["users"][0]
    reply = answer(client, {"user_id": "s1"}, {"user_id": "s2", "features": YOUNG["features"]}, {"user_id": "s2"})
    assert [user["outcomes"] for user in reply["users"][:2]] == [inline["outcomes"]] * 2
    assert reply["users"][2]["outcomes"] != inline["outcomes"]
    assert (reply["degraded"], reply["users"][2]["warnings"]) == ([], ["missing_feature:city"])


# --- numbers that are none, intervals that are none ------------------------------------------------------------------


def test_an_outcome_that_is_no_number_is_null_and_counted(client: httpx.Client) -> None:
    def counted() -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("ctrlift_uplift_unknown_total{"))

    before = counted()
    young, broken = answer(client, YOUNG, BROKEN, interval=0.9, model="small")["users"]
    assert None not in young["outcomes"].values()
    assert (broken["outcomes"]["letter"], broken["effects"]["letter"]) == (None, None)
    assert broken["intervals"]["letter"] is None
    assert broken["effects"]["coupon"] is not None
    assert "non_finite:letter" in broken["warnings"]
    assert broken["recommended"] is None  # of what is left, coupons are too rare at this age
    assert counted() == before + 1


def test_no_interval_is_null_with_a_warning(client: httpx.Client) -> None:
    user = answer(client, interval=0.9)["users"][0]  # the bundle has nothing to make one of
    assert user["intervals"] == {"coupon": None, "letter": None}
    assert user["warnings"] == ["no_interval:coupon", "no_interval:letter"]
    assert "intervals" not in answer(client)["users"][0]


def test_a_method_that_the_bundle_lacks_gives_no_interval(client: httpx.Client) -> None:
    user = answer(client, model="small", interval={"level": 0.9, "method": "conformal"})["users"][0]
    assert user["intervals"] == {"coupon": None, "letter": None}


def test_an_arm_with_few_rows_gets_no_interval_from_dropout(client: httpx.Client) -> None:
    reply = answer(client, model="small", interval=0.9)
    assert reply["warnings"] == ["low_support:letter"]
    low, high = reply["users"][0]["intervals"]["coupon"]
    assert low < reply["users"][0]["effects"]["coupon"] < high
    assert reply["users"][0]["intervals"]["letter"] is None
    assert reply["users"][0]["warnings"] == ["no_interval:letter"]


def test_an_arm_that_training_never_saw_is_not_answered(client: httpx.Client) -> None:
    reply = answer(client, model="empty")
    assert reply["warnings"] == ["no_rows:letter"]
    assert reply["users"][0]["outcomes"]["letter"] is None
    assert reply["users"][0]["recommended"]["treatment"] == "coupon"
    (alone,) = answer(client, model="empty", treatments=["letter"])["users"]
    assert alone["recommended"] is None


# --- budgets ---------------------------------------------------------------------------------------------------------


def budget(total: float, *, base: float = 1.0, per_dose: float = 0.0, value: float = 10.0) -> dict[str, Any]:
    costs = {"coupon": {"base": base, "per_dose": per_dose}, "letter": {"base": base}}
    return {"total": total, "costs": costs, "value_per_outcome": value}


def people(count: int) -> list[dict[str, Any]]:
    cities = tiny_uplift.CITIES
    return [
        {"user_id": f"p{i:03}", "features": {"age": 20 + 40 * i / count, "city": cities[i % 3]}} for i in range(count)
    ]


@pytest.mark.parametrize("model", ["incentive", "dosed"])
def test_no_money_leaves_everybody_in_the_control(client: httpx.Client, model: str) -> None:
    reply = answer(
        client, *people(6), model=model, budget=budget(0, base=0.0 if model == "dosed" else 1.0, per_dose=1.0)
    )
    assert {user["recommended"]["treatment"] for user in reply["users"]} == {"control"}
    spent = {key: reply["budget"][key] for key in ("spent", "expected_gain", "treated")}
    assert spent == {"spent": 0.0, "expected_gain": 0.0, "treated": 0}


@pytest.mark.parametrize("total", [0, 5])
def test_when_everything_is_free_the_budget_does_not_bind(client: httpx.Client, total: float) -> None:
    free = answer(client, *people(6), budget=budget(total, base=0.0, value=1.0))
    best = answer(client, *people(6))
    assert [user["recommended"] for user in free["users"]] == [user["recommended"] for user in best["users"]]
    assert (free["budget"]["spent"], free["budget"]["shadow_price"]) == (0.0, 0.0)


@pytest.mark.parametrize("model", ["incentive", "dosed", "strata"])
@pytest.mark.parametrize("total", [0.5, 3, 7.5, 1e6])
def test_a_budget_is_kept_and_adds_up(client: httpx.Client, model: str, total: float) -> None:
    asked = budget(total, base=0.5, per_dose=0.3)
    reply = answer(client, *people(30), model=model, budget=asked)
    chosen = [user["recommended"] for user in reply["users"]]
    costs = [
        0.0
        if one["treatment"] == "control"
        else 0.5 + (0.3 * (one["dose"] or 0.0) if one["treatment"] == "coupon" else 0)
        for one in chosen
    ]
    assert math.fsum(costs) <= total + 1e-9
    assert reply["budget"]["spent"] == pytest.approx(math.fsum(costs))
    assert reply["budget"]["expected_gain"] == pytest.approx(math.fsum(one["expected_gain"] for one in chosen))
    assert reply["budget"]["treated"] == sum(one["treatment"] != "control" for one in chosen)
    assert all(one["expected_gain"] >= 0 for one in chosen)
    assert (reply["budget"]["shadow_price"] > 0) == (total < 1e6)


def test_costs_that_are_not_named_are_remarked_on(client: httpx.Client) -> None:
    reply = answer(client, budget={"total": 5, "costs": {"coupon": {"base": 1}}})
    assert reply["warnings"] == ["no_cost:letter"]


# --- the store -------------------------------------------------------------------------------------------------------


def test_without_its_store_the_answer_says_so_and_recommends_nothing(tmp_path: Path) -> None:
    tiny_uplift.publish(tmp_path / "models")
    settings = {"models.dir": tmp_path / "models", "store.url": "redis://127.0.0.1:9", "log.requests": False}
    with service_process(tmp_path, settings) as service, httpx.Client(base_url=service.url, timeout=10) as client:
        reply = answer(client, {"user_id": "1"}, {"user_id": "2", "features": {"age": 30}}, budget=budget(5))
        assert reply["degraded"] == ["no_history"]
        assert [user["recommended"] for user in reply["users"]] == [None, None]
        assert all("features_unknown" in user["warnings"] for user in reply["users"])
        assert all(user["outcomes"]["coupon"] is not None for user in reply["users"])
        assert reply["budget"] == {"spent": 0.0, "expected_gain": 0.0, "shadow_price": 0.0, "treated": 0}
        # Who brings everything that the model reads does not need the store.
        whole = answer(client, YOUNG, {"user_id": "2"})
        assert [user["recommended"] is None for user in whole["users"]] == [False, True]
        assert answer(client, YOUNG)["degraded"] == []


def test_damaged_features_are_left_out_and_said(tmp_path: Path) -> None:
    tiny_uplift.publish(tmp_path / "models")
    stored = {"1": b'{"age":30,"city":"oslo"}', "2": b'{"age":30,"city":', "3": b'{"age":30,"city":"os\\u006co"}'}

    async def run() -> dict[str, Any]:
        async with running(quiet_settings(tmp_path / "models", "memory://")) as drill:
            drill.app.state.container.store.features.update(stored)  # type: ignore[attr-defined]
            found: dict[str, Any] = (
                await drill.post("/uplift", json={"users": [{"user_id": n} for n in "123"]})
            ).json()
            return found

    reply = asyncio.run(run())
    whole, damaged, escaped = reply["users"]
    assert reply["degraded"] == ["corrupt_history"]
    assert (damaged["recommended"], damaged["warnings"][-1]) == (None, "features_unknown")
    assert (whole["outcomes"], whole["recommended"]) == (escaped["outcomes"], escaped["recommended"])
    assert whole["recommended"]["treatment"] == "coupon"
    assert whole["warnings"] == []


def test_a_copy_from_before_the_store_went_away_is_answered_and_not_acted_on(tmp_path: Path) -> None:
    tiny_uplift.publish(tmp_path / "models")

    async def run() -> tuple[dict[str, Any], dict[str, Any]]:
        async with running(quiet_settings(tmp_path / "models", "memory://")) as drill:
            await drill.post("/users", json={"users": [{"user_id": "1", "features": {"age": 30, "city": "oslo"}}]})
            before = await drill.post("/uplift", json={"users": [{"user_id": "1"}]})
            store = drill.app.state.container.histories.store  # type: ignore[attr-defined]

            async def away(_: object) -> object:
                from service.behaviours import StoreError

                raise StoreError("gone")

            store.read_features = away
            after = await drill.post("/uplift", json={"users": [{"user_id": "1"}]})
            return before.json(), after.json()

    before, after = asyncio.run(run())
    assert before["users"][0]["recommended"]["treatment"] == "coupon"
    assert after["degraded"] == ["stale_history"]
    assert after["users"][0]["outcomes"] == before["users"][0]["outcomes"]
    assert after["users"][0]["recommended"] is None


def test_until_an_uplift_bundle_is_loaded(published: Path) -> None:
    async def run() -> httpx.Response:
        async with running(quiet_settings(published, "memory://")) as drill:
            return await drill.post("/uplift", json={"users": [YOUNG]})

    sent = asyncio.run(run())
    assert (sent.status_code, sent.json()["code"]) == (404, "model_unknown")

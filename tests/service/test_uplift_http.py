"""POST /uplift over real HTTP: the shape of the reply, and treatments, doses and campaigns that do not fit."""

from typing import Any

import httpx
import pytest

from tests.service.asking import OLD, YOUNG, answer, pointers, refused

# --- the shape -------------------------------------------------------------------------------------------------------


def test_the_reply_has_the_documented_members_in_their_order(client: httpx.Client) -> None:
    reply = answer(client, model="dosed")
    assert list(reply) == ["request_id", "model", "users", "degraded", "warnings"]
    assert reply["model"] == {"name": "dosed", "version": "1.0.0"}
    (user,) = reply["users"]
    members = ["user_id", "outcomes", "effects", "propensity", "overlap", "recommended", "warnings"]
    assert list(user) == members
    assert (list(user["outcomes"]), list(user["effects"])) == (["control", "coupon", "letter"], ["coupon", "letter"])
    full = answer(
        client, model="dosed", dose_grid=3, interval=0.9, budget={"total": 1, "costs": {"coupon": {"base": 1}}}
    )
    assert list(full) == ["request_id", "model", "users", "budget", "degraded", "warnings"]
    assert list(full["users"][0]) == [*members[:3], "intervals", *members[3:5], "dose_response", *members[5:]]
    assert list(full["budget"]) == ["spent", "expected_gain", "shadow_price", "treated"]


def test_users_come_back_in_order_and_treatments_as_asked(client: httpx.Client) -> None:
    reply = answer(client, OLD, YOUNG, YOUNG, treatments=["letter", "control"])
    assert [user["user_id"] for user in reply["users"]] == ["8", "7", "7"]
    assert all(list(user["outcomes"]) == ["control", "letter"] for user in reply["users"])
    assert all(list(user["overlap"]) == ["letter"] for user in reply["users"])


def test_ids_with_quotes_commas_and_other_scripts_survive(client: httpx.Client) -> None:
    names = ['a","b', "],[", "ü\n\\", "null", "東京"]
    reply = answer(client, *({"user_id": name, "features": YOUNG["features"]} for name in names))
    assert [user["user_id"] for user in reply["users"]] == names


# --- treatments and doses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"treatments": ["coupon", "flyer"]}, "/treatments/1"),
        ({"doses": {"flyer": 1.0}}, "/doses/flyer"),
        ({"budget": {"total": 1, "costs": {"fly/er": {"base": 1}}}}, "/budget/costs/fly~1er"),
    ],
)
def test_an_unknown_treatment_is_refused_with_the_known_ones(
    client: httpx.Client, asked: dict[str, Any], pointer: str
) -> None:
    problem = refused(client, 422, {"users": [YOUNG], **asked})
    assert (problem["code"], pointers(problem)) == ("treatment_unknown", [pointer])
    assert "control, coupon, letter" in problem["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"treatments": ["coupon", "coupon"]}, "/treatments/1"),
        ({"treatments": ["control"]}, "/treatments"),
        ({"treatments": []}, "/treatments"),
        ({"doses": {"letter": 1.0}}, "/doses/letter"),
        ({"treatments": ["letter"], "doses": {"coupon": 2.0}}, "/doses/coupon"),
        ({"dose_grid": 1}, "/dose_grid"),
        ({"dose_grid": 202}, "/dose_grid"),
        ({"interval": 1.0}, "/interval"),
        ({"interval": "wide"}, "/interval"),
        ({"interval": {"level": 0.0}}, "/interval/level"),
        ({"interval": {"level": 0.9, "method": "guess"}}, "/interval/method"),
        ({"budget": {"total": -1, "costs": {}}}, "/budget/total"),
        ({"budget": {"total": 1, "costs": {"coupon": {"base": -1}}}}, "/budget/costs/coupon/base"),
        ({"budget": {"costs": {}}}, "/budget/total"),
        ({"users": []}, "/users"),
        ({"users": [{"user_id": 7}]}, "/users/0/user_id"),
        ({"users": [{"user_id": "7", "features": {"age": "old"}}]}, "/users/0/features/age"),
        ({"users": [YOUNG, {"user_id": "8", "features": {"height": 1}}]}, "/users/1/features/height"),
        ({"goal": 1}, "/goal"),
    ],
)
def test_what_does_not_fit_is_named_by_its_pointer(client: httpx.Client, asked: dict[str, Any], pointer: str) -> None:
    problem = refused(client, 422, {"users": [YOUNG], "model": "dosed", **asked})
    assert pointers(problem) == [pointer]


@pytest.mark.parametrize("dose", ["0.99", "5.01", "-1e30"])
def test_a_dose_outside_of_its_range_is_refused(client: httpx.Client, dose: str) -> None:
    body = b'{"users": [{"user_id": "7"}], "model": "dosed", "doses": {"coupon": %s}}' % dose.encode()
    problem = refused(client, 422, body)
    assert (problem["code"], pointers(problem)) == ("dose_out_of_range", ["/doses/coupon"])
    assert "from 1 to 5 USD" in problem["detail"]


@pytest.mark.parametrize("dose", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_dose_that_is_no_number_is_refused(client: httpx.Client, dose: str) -> None:
    body = b'{"users": [{"user_id": "7"}], "model": "dosed", "doses": {"coupon": %s}}' % dose.encode()
    problem = refused(client, 422, body)
    assert (problem["code"], pointers(problem)) == ("not_finite", ["/doses/coupon"])


def test_an_unsupported_stratum_is_answered_and_flagged_and_never_recommended(client: httpx.Client) -> None:
    reply = answer(client, model="strata", dose_grid=9, treatments=["coupon"])
    curve = reply["users"][0]["dose_response"]["coupon"]
    assert curve["dose"] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]
    # Nobody was given [2, 3); a dose on an edge belongs to the stratum above it.
    assert curve["supported"] == [True, True, False, False, True, True, True, True, True]
    assert None not in curve["outcome"]
    assert curve["outcome"][3] == max(curve["outcome"])
    assert reply["users"][0]["recommended"]["dose"] == 3.0
    asked = answer(client, model="strata", doses={"coupon": 2.0})["users"][0]
    assert asked["dose_response"] == {
        "coupon": {"dose": [2.0], "outcome": [asked["outcomes"]["coupon"]], "supported": [False]}
    }
    assert "dose_unsupported:coupon" in asked["warnings"]


def test_a_dose_that_the_user_would_hardly_get_is_not_supported(client: httpx.Client) -> None:
    curve = answer(client, model="dosed", dose_grid=5)["users"][0]["dose_response"]["coupon"]
    assert curve["supported"] == [True, True, True, True, False]  # density .02 above .8 of the range
    for dose, supported in ((4.1, True), (4.3, False)):
        user = answer(client, model="dosed", doses={"coupon": dose})["users"][0]
        assert user["dose_response"]["coupon"]["supported"] == [supported]
        assert ("dose_unsupported:coupon" in user["warnings"]) is not supported


def test_a_grid_where_no_treatment_has_a_dose(client: httpx.Client) -> None:
    reply = answer(client, dose_grid=5)
    assert "dose_response" not in reply["users"][0]
    assert reply["warnings"] == ["no_doses"]


# --- overlap ---------------------------------------------------------------------------------------------------------


def test_an_arm_that_hardly_anybody_was_given_is_flagged_and_not_recommended(client: httpx.Client) -> None:
    (old,) = answer(client, OLD)["users"]
    assert 0.01 <= old["propensity"]["coupon"] < 0.05
    assert old["propensity"]["letter"] < 0.01
    assert old["overlap"] == {"coupon": "weak", "letter": "violated"}
    assert old["effects"]["letter"] > 0 > old["effects"]["coupon"]
    assert old["recommended"] == {"treatment": "control", "dose": None, "expected_gain": 0.0}
    assert "recommendation_withheld:letter" in old["warnings"]
    (bold,) = answer(client, OLD, allow_extrapolation=True)["users"]
    assert bold["recommended"] == {"treatment": "letter", "dose": None, "expected_gain": bold["effects"]["letter"]}
    assert bold["overlap"]["letter"] == "violated"
    (alone,) = answer(client, OLD, treatments=["letter"])["users"]
    assert alone["recommended"] is None


def test_a_budget_does_not_buy_what_is_withheld(client: httpx.Client) -> None:
    budget = {"total": 10, "costs": {"letter": {"base": 0.1}, "coupon": {"base": 0.1}}, "value_per_outcome": 10}
    reply = answer(client, OLD, treatments=["letter"], budget=budget)
    assert (reply["users"][0]["recommended"], reply["budget"]["spent"]) == (None, 0.0)
    bold = answer(client, OLD, treatments=["letter"], budget=budget, allow_extrapolation=True)
    assert bold["users"][0]["recommended"]["treatment"] == "letter"
    assert (bold["budget"]["spent"], bold["budget"]["treated"]) == (0.1, 1)


def test_a_model_that_estimates_no_propensity_says_so(client: httpx.Client) -> None:
    reply = answer(client, model="unknown")
    assert reply["users"][0]["propensity"] is None
    assert reply["users"][0]["overlap"] == {"coupon": "unknown", "letter": "unknown"}
    assert reply["users"][0]["recommended"]["treatment"] == "coupon"
    assert reply["warnings"] == ["propensity_not_estimated"]


# --- campaigns and models --------------------------------------------------------------------------------------------


def test_campaigns_pick_their_model(client: httpx.Client) -> None:
    assert answer(client)["model"]["name"] == "incentive"
    assert answer(client, campaign="autumn")["model"]["name"] == "dosed"
    assert answer(client, campaign="autumn", model="strata")["model"]["name"] == "strata"


@pytest.mark.parametrize("campaign", ["winter", "", "gone", "clicks"])
def test_an_unknown_campaign_or_one_without_an_uplift_model(client: httpx.Client, campaign: str) -> None:
    assert refused(client, 404, {"users": [YOUNG], "campaign": campaign})["code"] == "campaign_not_found"


def test_models_of_another_kind_do_not_answer(client: httpx.Client) -> None:
    assert refused(client, 404, {"users": [YOUNG], "model": "movies"})["code"] == "model_unknown"
    assert refused(client, 404, {"users": [YOUNG], "model": "dosed@9.0.0"})["code"] == "version_unknown"
    sent = client.post("/score", json={"user_id": "1", "candidates": ["1"], "model": "incentive"})
    assert (sent.status_code, sent.json()["code"]) == (404, "model_unknown")

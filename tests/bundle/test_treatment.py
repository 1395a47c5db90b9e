"""The manifest's part on treatments: what it refuses, and that it comes back as it was written."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bundle.encode import Encoder
from bundle.errors import BundleRefused
from bundle.manifest import Manifest, parse_manifest
from bundle.population import rows_from_users
from bundle.treatment import DoseScale, OutcomeScale, Samples, UpliftPart
from bundle.uplift_inputs import default_dose, dose_grid, dose_tensor, graph_inputs
from tests.bundle.campaign import PART, campaign_manifest, fitted_campaign, golden
from tests.bundle.samples import fitted_shop, manifest_for


def changed(**changes: Any) -> dict[str, Any]:
    return PART.model_dump(mode="json") | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"treatments": ["none", "none", "coupon"]}, "listed twice"),
        ({"arms": {"none": {"rows": 1}}}, "exactly one entry for each treatment"),
        ({"doses": {"none": {"low": 0, "high": 1}}}, "no treatments that can have a dose"),
        ({"doses": {"email": {"low": 0, "high": 1}}}, "no treatments that can have a dose"),
        ({"doses": {}, "reference_dose": 1.0}, "no treatment has a dose"),
        ({"propensity_clip": [0.0, 0.9]}, "two probabilities"),
        ({"propensity_clip": [0.9, 0.1]}, "two probabilities"),
        ({"samples": {"method": "mc_dropout", "count": 5}}, "noise_width must be positive"),
        ({"samples": {"method": "ensemble", "count": 5, "noise_width": 3}}, "noise_width must be positive"),
        ({"samples": {"method": "ensemble", "count": 1}}, "count"),
        ({"treatment": 1}, "Extra inputs"),
    ],
)
def test_a_part_that_cannot_be_is_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        UpliftPart.model_validate(changed(**changes))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ({"low": 1, "high": 1}, "low 1 must be below high 1"),
        ({"low": 0, "high": 1, "edges": [0.5, 0.5]}, "increase strictly"),
        ({"low": 0, "high": 1, "edges": [1.0]}, "between low and high"),
        ({"low": 0, "high": 1, "supported": [[0.5, 0.2]]}, "ascending and apart"),
        ({"low": 0, "high": 1, "supported": [[0.0, 0.5], [0.4, 1.0]]}, "ascending and apart"),
        ({"low": 0, "high": 1, "supported": [[0.0, 1.5]]}, "between low and high"),
        ({"low": 0, "high": 1, "default": 2}, "default 2 must lie"),
        ({"low": 0, "high": float("nan")}, "finite"),
    ],
)
def test_a_dose_scale_that_cannot_be_is_refused(scale: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        DoseScale.model_validate(scale)


def test_an_outcome_has_a_scale_only_where_it_is_continuous() -> None:
    assert OutcomeScale(name="y", kind="binary").sd == 1.0
    with pytest.raises(ValidationError, match="neither mean nor sd"):
        OutcomeScale(name="y", kind="binary", mean=0.5)
    with pytest.raises(ValidationError, match="greater than 0"):
        OutcomeScale(name="y", kind="continuous", sd=0.0)


def test_a_manifest_comes_back_as_it_was_written() -> None:
    manifest = campaign_manifest()
    assert parse_manifest(manifest.to_text().encode()) == manifest
    assert manifest.uplift is not None
    assert manifest.uplift.outputs == ("outcome_standardised", "propensity_logits", "curve_standardised")


def test_a_manifest_of_clicks_says_nothing_about_treatments() -> None:
    text = manifest_for(fitted_shop()).to_text()
    assert "uplift" not in json.loads(text)
    assert parse_manifest(text.encode()).uplift is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"uplift": None}, "must be there for a bundle of kind uplift, and only there"),
        ({"kind": "ctr"}, "must be there for a bundle of kind uplift, and only there"),
        ({"tasks": ["visit"]}, "tasks: must be the outcome 'spend' alone"),
        ({"outputs": [{"name": "outcome_logits", "dtype": "float32", "shape": ["U", 3]}]}, "outputs: must be"),
    ],
)
def test_a_manifest_whose_parts_do_not_fit_is_refused(changes: dict[str, Any], expected: str) -> None:
    data = campaign_manifest().model_dump(mode="json") | changes
    with pytest.raises(BundleRefused, match=expected) as caught:
        parse_manifest(json.dumps(data).encode())
    assert caught.value.reason == "manifest_damaged"


def test_a_density_may_follow_a_curve_and_nothing_else() -> None:
    data = campaign_manifest().model_dump(mode="json")
    density = {"name": "dose_density", "dtype": "float32", "shape": ["U", 3, "G"]}
    assert len(Manifest.model_validate(data | {"outputs": [*data["outputs"], density]}).outputs) == 4
    with pytest.raises(ValidationError, match="outputs: must be"):
        Manifest.model_validate(data | {"outputs": [*data["outputs"], {**density, "name": "spare"}]})
    undosed = changed(doses={})
    with pytest.raises(ValidationError, match="outputs: must be"):
        Manifest.model_validate(data | {"outputs": [*data["outputs"][:2], density], "uplift": undosed})


def test_samples_of_an_ensemble_need_no_noise() -> None:
    assert Samples(method="ensemble", count=5).noise_width == 0


def test_doses_reach_the_graph_on_its_own_scale() -> None:
    # (3 - 1) / (5 - 1) = 0.5 in the column of the coupon; the others have no dose
    np.testing.assert_array_equal(dose_tensor(PART, {"coupon": 3.0}, 2), np.float32([[0, 0, 0.5], [0, 0, 0.5]]))
    np.testing.assert_array_equal(dose_tensor(PART, {"coupon": [1.0, 5.0]}, 2)[:, 2], np.float32([0, 1]))
    np.testing.assert_array_equal(dose_tensor(PART, {}, 1), np.float32([[0, 0, 0.25]]))  # the default of 2 EUR
    assert default_dose(DoseScale(low=1.0, high=4.0)) == 2.5
    with pytest.raises(ValueError, match="'letter' has no dose; treatments with one are coupon"):
        dose_tensor(PART, {"letter": 1.0}, 1)
    np.testing.assert_array_equal(dose_grid(3), np.float32([0, 0.5, 1]))
    with pytest.raises(ValueError, match="at least 2 points"):
        dose_grid(1)


def test_the_graph_gets_users_and_doses_in_order() -> None:
    fitted, row = fitted_campaign(), golden(3)[-1]
    encoded = Encoder(fitted).encode(rows_from_users(fitted, row.query).rows)
    inputs = graph_inputs(encoded, PART, row.doses, row.points)
    users = ["user_ids", "user_numbers", "behaviour_ids", "behaviour_numbers", "behaviour_mask"]
    assert list(inputs) == [*users, "doses", "dose_grid"]
    assert inputs["dose_grid"].shape == (4,)
    plain = PART.model_copy(update={"doses": {}})
    assert list(graph_inputs(encoded, plain)) == users
    with pytest.raises(ValueError, match="no treatment of this bundle has a dose"):
        graph_inputs(encoded, plain, {"coupon": 1.0})

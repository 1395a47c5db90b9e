"""What a declaration with treatments may say, and what it may not."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.columns import Rows
from bundle.encode import Encoder
from bundle.errors import SchemaError
from bundle.fitting import FitColumns, FittedSchema, fit
from bundle.schema import FeatureSchema
from tests.bundle.campaign import FEATURES, TREATMENT, campaign_rows, campaign_schema, fitted_campaign, mapping
from tests.bundle.samples import declaration, shop_schema

DOCUMENT = Path(__file__).parents[2] / "docs" / "schema.md"
AGE = {"name": "age", "side": "user", "kind": "number"}


def error_of(declared: dict[str, Any]) -> str:
    with pytest.raises(SchemaError) as caught:
        FeatureSchema.from_toml(declared)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"colum": "x"}, "unknown key treatment.colum, did you mean column?"),
        ({"column": None}, "missing key treatment.column"),
        ({"outcome": None}, "missing key treatment.outcome"),
        ({"outcome": "ordinal"}, "key treatment.outcome"),
        ({"arms": ["none"]}, "key treatment.arms"),
        ({"arms": ["none", "coupon", "coupon"]}, "key treatment.arms: 'coupon' is listed twice"),
        ({"arms": ["none", "", "coupon"]}, "key treatment.arms"),
        ({"values": {"email": "x"}}, "key treatment.values.email: there is no arm of that name"),
        ({"values": {"letter": []}}, "key treatment.values.letter: needs at least one text"),
        ({"values": {"letter": ""}}, "key treatment.values.letter: needs at least one text"),
        ({"values": {"letter": "coupon"}}, "key treatment.values: 'coupon' would mean two arms"),
        ({"values": {"letter": True}}, "key treatment.values.letter"),
        ({"values": {"letter": 1.0}}, "key treatment.values.letter"),
        ({"other_values": "keep"}, "key treatment.other_values"),
        ({"dose_arms": ["none"]}, "key treatment.dose_arms: 'none' is the control and has no dose"),
        ({"dose_arms": ["email"]}, "key treatment.dose_arms: there is no arm named 'email'"),
        ({"dose_arms": ["coupon", "coupon"]}, "key treatment.dose_arms: 'coupon' is listed twice"),
        ({"dose": None}, "key treatment.dose_arms: needs the key treatment.dose"),
        ({"dose": None, "dose_arms": None, "reference_dose": 1.0}, "key treatment.dose_unit: needs the key"),
        ({"dose_range": [2.0, 2.0]}, "key treatment.dose_range: the lowest dose 2 must be below the highest 2"),
        ({"dose_range": [0.0, 1.0], "reference_dose": 1.5}, "key treatment.reference_dose: must lie in dose_range"),
        ({"dose_range": [0.0, float("inf")]}, "key treatment.dose_range"),
        ({"column": "age"}, "key treatment.column: 'age' is already feature[age]"),
        ({"dose": "spend"}, "key treatment.dose: 'spend' is already label.spend"),
        ({"dose": "sent"}, "key treatment.dose: 'sent' is the column of the arms"),
        ({"column": "person"}, "key treatment.column: 'person' is already ids.user"),
    ],
)
def test_a_wrong_key_is_named_in_one_sentence(change: dict[str, Any], expected: str) -> None:
    treatment = {key: value for key, value in ({**TREATMENT, **change}).items() if value is not None}
    assert expected in error_of(mapping(treatment=treatment))


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"label": {"spend": "spend", "visit": "visit"}}, "key label: treatments have exactly one outcome, got 2"),
        ({"ids": {"user": "person"}}, "missing key ids.item: feature[seen] reads behaviours"),
        ({"ids": {"user": "person", "item": "i"}}, "missing key ids.time: feature[seen] reads behaviours"),
        ({"features": [{**AGE, "side": "candidate"}]}, "key feature[age].side: treatments have no candidates"),
        (
            {"features": [{"name": "same", "kind": "history", "stat": "count", "match": "item"}]},
            "key feature[same].match: treatments have no candidates",
        ),
        (
            {"group": [{"name": "g", "pairs": [{"candidate": "x", "history": "seen"}]}]},
            "key group[g]: treatments have no candidates",
        ),
    ],
)
def test_what_needs_candidates_is_refused(sections: dict[str, Any], expected: str) -> None:
    features = sections.pop("features", FEATURES)
    assert expected in error_of(mapping(features, **sections))


@pytest.mark.parametrize("absent", ["item", "time"])
def test_clicks_still_need_their_item_and_time(absent: str) -> None:
    ids = {"user": "user_id", "item": "item_id", "time": "ts"}
    del ids[absent]
    assert error_of(declaration(ids=ids)) == f"missing key ids.{absent}"


def test_a_declaration_of_clicks_is_written_as_before() -> None:
    assert "treatment" not in shop_schema().to_json()
    assert shop_schema().kind == "ctr"
    with pytest.raises(SchemaError, match="missing key treatment"):
        shop_schema().treatments  # noqa: B018


def test_cells_and_dosed_arms() -> None:
    treatment = campaign_schema(treatment={**TREATMENT, "values": {"none": 0, "letter": ["a", 1]}}).treatments
    assert treatment.cells == {"0": 0, "a": 1, "1": 1, "coupon": 2}
    assert treatment.dosed == ("coupon",)
    everyone = {key: value for key, value in TREATMENT.items() if key != "dose_arms"}
    assert campaign_schema(treatment=everyone).treatments.dosed == ("letter", "coupon")
    plain = {"column": "sent", "arms": ["a", "b"], "outcome": "binary"}
    assert campaign_schema(treatment=plain).treatments.dosed == ()


ARM = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.\- ]{0,12}\Z")
FINITE = st.floats(-1e9, 1e9, allow_nan=False)


@st.composite
def treatments(draw: st.DrawFn) -> dict[str, Any]:
    arms = draw(st.lists(ARM, min_size=2, max_size=5, unique=True))
    texts = draw(st.lists(st.text(min_size=1, max_size=8), min_size=len(arms), max_size=2 * len(arms), unique=True))
    values = {arm: texts[place :: len(arms)] for place, arm in enumerate(arms)}
    out: dict[str, Any] = {
        "column": "what was done"[:4],
        "arms": arms,
        "values": {arm: cells if draw(st.booleans()) else cells[0] for arm, cells in values.items()},
        "other_values": draw(st.sampled_from(["refuse", "drop"])),
        "outcome": draw(st.sampled_from(["binary", "continuous"])),
        "allow_missing_arms": draw(st.booleans()),
        "semi_synthetic": draw(st.booleans()),
    }
    if draw(st.booleans()):
        out |= {"dose": "worth", "dose_arms": draw(st.lists(st.sampled_from(arms[1:]), min_size=1, unique=True))}
        low, high = sorted(draw(st.tuples(FINITE, FINITE).filter(lambda pair: pair[0] != pair[1])))
        out |= {"dose_range": [low, high], "reference_dose": draw(st.floats(low, high)), "dose_unit": "mg"}
    return out


@given(treatments())
def test_json_gives_the_same_declaration_back(treatment: dict[str, Any]) -> None:
    schema = campaign_schema(treatment=treatment)
    text = json.dumps(schema.to_json(), allow_nan=False)
    again = FeatureSchema.from_toml(json.loads(text))
    assert again == schema
    assert again.digest() == schema.digest()
    assert again.kind == "uplift"


def test_rows_without_candidates_are_encoded(tmp_path: Path) -> None:
    fitted, rows = fitted_campaign(), campaign_rows(7, seed=1)
    arrays = Encoder(fitted).encode(rows).take()
    assert {name: array.shape[:2] for name, array in arrays.items() if name.startswith("candidate")} == {
        "candidate_ids": (7, 0),
        "candidate_numbers": (7, 0),
    }
    # age and its missing flag, hour, visits; city and two tags
    assert arrays["user_numbers"].shape == (7, 4)
    assert arrays["user_ids"].shape == (7, 3)
    assert arrays["behaviour_mask"].any()
    alone = Encoder(fitted).encode(rows.take(np.array([3], dtype=np.int64))).take()
    for name in ("user_ids", "user_numbers"):
        np.testing.assert_array_equal(alone[name][0], arrays[name][3])
    fitted.save(tmp_path)
    assert FittedSchema.load(tmp_path).schema_hash == fitted.schema_hash


def test_a_declaration_without_behaviours_needs_no_item_and_no_time() -> None:
    schema = FeatureSchema.from_toml(mapping([AGE], ids={"user": "person"}))
    whole = campaign_rows(5)
    rows = Rows(np.zeros(5), whole.items, whole.behaviours.take(slice(0, 5)), {"age": whole.user["age"]})
    arrays = Encoder(fit(schema, FitColumns(rows))).encode(rows).take()
    assert arrays["behaviour_mask"].shape == (5, 1, 1)
    assert not arrays["behaviour_mask"].any()
    np.testing.assert_allclose(arrays["user_numbers"].mean(), 0, atol=1e-6)


def test_the_documented_example_of_treatments_is_valid() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    schema = FeatureSchema.from_toml(tomllib.loads(blocks[1]))
    assert schema.treatments.cells == {"none": 0, "paper": 1, "app": 1}

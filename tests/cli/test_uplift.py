"""`ctrlift uplift`: users in, the same users out, with what the service's own code says about them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bundle.population import Person, UpliftQuery
from service.behaviours import open_store
from service.core import question
from service.core.question import Budget, Cost, Interval, Question
from service.core.treated import Treated, Users
from service.core.treating import treat
from service.core.uplift_version import UpliftVersion, load_uplift
from service.settings import load_settings
from tests.cli.running import assert_one_sentence, ctrlift
from tests.service import tiny_bundle, tiny_uplift
from tests.service.tiny_uplift import Kind

KIND = Kind(doses=True, samples="mc_dropout")
USERS, AGES = [7, 8, 9, 10], [30.0, 84.0, 95.0, None]
CITIES = ["oslo", "lima", "oslo", "atlantis"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_uplift.publish(folder, KIND)
    tiny_bundle.publish(folder)  # of kind ctr: not a candidate here
    return folder


@pytest.fixture(scope="module")
def version(models: Path) -> UpliftVersion:
    return load_uplift(models / "incentive" / "1.0.0")


@pytest.fixture
def rows() -> pl.DataFrame:
    return pl.DataFrame({"note": ["a", "b", "c", "d"], "user_id": USERS, "age": AGES, "city": CITIES})


def expected(version: UpliftVersion, asked: Question) -> Treated:
    people = [
        Person(str(user), {"city": city} if age is None else {"age": age, "city": city})
        for user, age, city in zip(USERS, AGES, CITIES, strict=True)
    ]
    return treat(version, Users(UpliftQuery(people, 0.0)), question.check(asked, version.part))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_rows_come_back_in_order_with_their_answers(
    tmp_path: Path, models: Path, version: UpliftVersion, rows: pl.DataFrame, suffix: str
) -> None:
    from cli.tables import read_table, write_table

    write_table(rows, tmp_path / f"rows.{suffix}")
    out = tmp_path / f"out.{suffix}"
    arguments = ("--out", out, "--models", models, "--interval", 0.9, "--dose", "coupon=3", "--json", "--quiet")
    ran = ctrlift("uplift", tmp_path / f"rows.{suffix}", *arguments)
    assert ran.code == 0, ran.err
    assert {key: ran.json[key] for key in ("rows", "model", "version")} == {
        "rows": 4,
        "model": "incentive",
        "version": "1.0.0",
    }
    assert ran.json["remarks"]["missing_feature:age"] == 1
    assert ran.json["remarks"]["non_finite:letter"] == 1
    found = read_table(out)
    assert found["note"].to_list() == ["a", "b", "c", "d"]
    answers = expected(version, Question(interval=Interval(0.9), doses={"coupon": 3.0}))
    for place, arm in enumerate(tiny_uplift.ARMS):
        np.testing.assert_allclose(found[f"outcome_{arm}"].to_numpy(), answers.outcomes[:, place], atol=1e-12)
    assert answers.intervals is not None
    for place, arm in enumerate(("coupon", "letter")):
        np.testing.assert_allclose(found[f"effect_{arm}"].to_numpy(), answers.effects[:, place], atol=1e-12)
        np.testing.assert_allclose(found[f"lower_{arm}"].to_numpy(), answers.intervals[0][:, place], atol=1e-12)
        np.testing.assert_allclose(found[f"upper_{arm}"].to_numpy(), answers.intervals[1][:, place], atol=1e-12)
    assert found["outcome_letter"].null_count() == 1
    assert found["overlap_letter"].to_list()[:2] == ["ok", "violated"]
    assert found["recommended_treatment"].to_list()[:3] == ["coupon", "control", None]
    assert found["recommended_dose"].to_list()[0] == pytest.approx(2.6, abs=0.02)
    assert set(found["model"]) == {"incentive"}


def test_a_budget_is_allocated_over_the_whole_file(
    tmp_path: Path, models: Path, version: UpliftVersion, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.uplift.BLOCK", 1)
    rows.write_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    costs = ("--budget", 2.5, "--cost", "coupon=0.5+0.2", "--cost", "letter=1", "--value", 10)
    ran = ctrlift("uplift", tmp_path / "rows.parquet", "--out", out, "--models", models, *costs, "--json", "--quiet")
    assert ran.code == 0, ran.err
    answers = expected(version, Question(budget=Budget(2.5, {"coupon": Cost(0.5, 0.2), "letter": Cost(1.0)}, 10.0)))
    assert answers.recommended.budget is not None
    assert ran.json["spent"] == answers.recommended.budget.spent <= 2.5
    found = pl.read_parquet(out)
    np.testing.assert_allclose(found["expected_gain"].to_numpy(), answers.recommended.gain)
    assert ran.json["treated"] == int((answers.recommended.arm > 0).sum())


def test_blocks_do_not_change_the_answers(
    tmp_path: Path, models: Path, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.write_parquet(tmp_path / "rows.parquet")
    frames = []
    for block in (1, 3, 5000):
        monkeypatch.setattr("cli.uplift.BLOCK", block)
        monkeypatch.setattr("service.core.estimates._BLOCK", block)
        out = tmp_path / f"{block}.parquet"
        assert ctrlift("uplift", tmp_path / "rows.parquet", "--out", out, "--models", models, "--quiet").code == 0
        frames.append(pl.read_parquet(out))
    for frame in frames[1:]:
        assert_frame_equal(frame, frames[0], abs_tol=1e-6)


def test_features_that_the_file_lacks_come_from_the_store(
    tmp_path: Path, models: Path, version: UpliftVersion, rows: pl.DataFrame
) -> None:
    url = f"embedded://{tmp_path}/store"

    async def fill() -> None:
        store = open_store(load_settings(None, {"store": {"url": url}}).store)
        try:
            users = zip(USERS, AGES, CITIES, strict=True)
            await store.put_users([(str(user), {"age": age, "city": city}) for user, age, city in users])
        finally:
            await store.close()

    asyncio.run(fill())
    rows.select("user_id").write_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    ran = ctrlift("uplift", tmp_path / "rows.parquet", "--out", out, "--models", models, "--store", url, "--quiet")
    assert ran.code == 0, ran.err
    np.testing.assert_allclose(
        pl.read_parquet(out)["outcome_coupon"].to_numpy(), expected(version, Question()).outcomes[:, 1], atol=1e-12
    )
    alone = ctrlift("uplift", tmp_path / "rows.parquet", "--out", out, "--models", models, "--quiet")
    assert alone.code == 0
    assert "no store: 4 users" in alone.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--treatment", "flyer"), 2, ("control, coupon, letter",)),
        (("--dose", "coupon=9"), 2, ("from 1 to 5 USD",)),
        (("--dose", "coupon"), 2, ("--dose", "TREATMENT=NUMBER")),
        (("--dose", "coupon=much"), 2, ("--dose coupon", "number")),
        (("--interval", 1.5), 2, ("--interval",)),
        (("--cost", "coupon=1"), 2, ("--budget",)),
        (("--budget", 1, "--cost", "coupon=-1"), 2, ("negative",)),
        (("--model", "movies"), 4, ("kind uplift",)),
    ],
)
def test_what_cannot_be_asked_is_said(
    tmp_path: Path, models: Path, rows: pl.DataFrame, arguments: tuple[object, ...], code: int, words: tuple[str, ...]
) -> None:
    rows.write_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    ran = ctrlift("uplift", tmp_path / "rows.parquet", "--out", out, "--models", models, *arguments, "--quiet")
    assert ran.code == code, ran.err
    assert_one_sentence(ran, *words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": [1.0, 2.0, float("inf"), 4.0]}, ("column age", "row 3")),
        ({"age": ["1", "2", "3", "4"]}, ("column age", "row 1")),
        ({"user_id": ["a", None, "b", "c"]}, ("column user_id", "row 2")),
        ({"effect_coupon": [0.0] * 4}, ("column effect_coupon",)),
    ],
)
def test_wrong_values_name_file_column_and_row(
    tmp_path: Path, models: Path, rows: pl.DataFrame, change: dict[str, list[object]], words: tuple[str, ...]
) -> None:
    rows.with_columns(**{name: pl.Series(values) for name, values in change.items()}).write_parquet(
        tmp_path / "rows.parquet"
    )
    out = tmp_path / "out.parquet"
    ran = ctrlift("uplift", tmp_path / "rows.parquet", "--out", out, "--models", models, "--quiet")
    assert ran.code == 3, ran.err
    assert_one_sentence(ran, "rows.parquet", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_verify_checks_uplift_bundles_too(models: Path) -> None:
    ran = ctrlift("verify", models / "incentive" / "1.0.0", "--json")
    assert ran.code == 0, ran.err
    assert [check["result"] for check in ran.json["checks"]] == ["ok", "ok", "absent"]

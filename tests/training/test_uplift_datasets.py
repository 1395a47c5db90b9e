"""Files with treatments: read, split, checked; what does not fit is named with file, column and row."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bundle.encode import Encoder
from bundle.fitting import fit
from tests.training.studies import trial, trial_mapping
from training.config import TrainingConfig, config_from_json
from training.datasets import Dataset, load_dataset
from training.datasets.split import split_at_random, with_validation
from training.errors import ConfigError, DataError

ARMS = "known are 'nothing' (control), 'letter', 'coupon'"


def load(folder: Path, frame: pl.DataFrame, suffix: str = "csv", **sections: Any) -> Dataset:
    if suffix == "csv":
        frame.write_csv(folder / "rows.csv")
    else:
        frame.write_parquet(folder / "rows.parquet")
    data = {"rows": f"rows.{suffix}", **sections.pop("data", {})}
    return load_dataset(TrainingConfig.from_mapping(trial_mapping(data=data, **sections), folder=folder))


def message(folder: Path, frame: pl.DataFrame, **sections: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, frame, **sections)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(folder) + "/")


def put(frame: pl.DataFrame, row: int, column: str, value: Any) -> pl.DataFrame:
    """The frame with one cell changed; rows are counted from 1."""
    cells = frame[column].to_list()
    cells[row - 1] = value
    return frame.with_columns(pl.Series(column, cells, strict=False))


def test_arms_doses_and_outcomes_belong_to_their_rows(tmp_path: Path) -> None:
    frame = trial()
    dataset = load(tmp_path, frame)
    by_person = {row["person"]: row for row in frame.iter_rows(named=True)}
    seen = 0
    for split in ("train", "valid", "test"):
        part = dataset.part(split)  # type: ignore[arg-type]
        seen += len(part)
        for place, person in enumerate(part.user_ids.to_list()):
            row = by_person[person]
            assert ("nothing", "letter", "coupon")[part.treatment[place]] == row["sent"]
            assert part.labels["bought"][place] == row["bought"]
            if row["worth"] is None:
                assert np.isnan(part.dose[place])
            else:
                assert part.dose[place] == row["worth"]
    assert seen == len(frame)
    assert dataset.dose_ranges == {"coupon": (1.0, 5.0)}
    assert dataset.truth("test") == {}
    assert dataset.window["train"] == (0.0, 0.0)


def test_csv_and_parquet_give_the_same_data_set(tmp_path: Path) -> None:
    assert load(tmp_path, trial()).fingerprint == load(tmp_path, trial(), "parquet").fingerprint


@pytest.mark.parametrize(
    ("stored", "values"),
    [
        ([0, 1, 2], {"control": 0, "letter": 1, "coupon": 2}),
        ([0.0, 1.0, 2.0], {"control": 0, "letter": 1, "coupon": 2}),
        (["a", "b", "c"], {"control": "a", "letter": "b", "coupon": "c"}),
    ],
)
def test_the_cells_of_an_arm_may_be_texts_or_whole_numbers(tmp_path: Path, stored: list[Any], values: Any) -> None:
    frame = trial()
    arms = {"nothing": stored[0], "letter": stored[1], "coupon": stored[2]}
    coded = frame.with_columns(pl.Series("sent", [arms[name] for name in frame["sent"]]))
    plain = load(tmp_path, frame, "parquet").whole.treatment
    np.testing.assert_array_equal(load(tmp_path, coded, "parquet", treatment={"values": values}).whole.treatment, plain)


def test_flags_are_arms(tmp_path: Path) -> None:
    frame = trial().with_columns(pl.col("sent") != "nothing")
    treatment = {"arms": ["control", "sent"], "values": {"control": "false", "sent": "true"}, "dose": None}
    dataset = load(tmp_path, frame, "parquet", treatment={**treatment, "dose_arms": None})
    assert dataset.whole.treatment.sum() == frame["sent"].sum()


def test_several_cells_may_mean_one_arm_and_others_be_left_out(tmp_path: Path) -> None:
    frame = trial()
    counts = dict(frame["sent"].value_counts().iter_rows())
    merged = {"arms": ["control", "sent"], "values": {"control": "nothing", "sent": ["letter", "coupon"]}}
    no_dose = {"dose": None, "dose_arms": None}
    dataset = load(tmp_path, frame, treatment={**merged, **no_dose})
    assert np.bincount(dataset.whole.treatment).tolist() == [counts["nothing"], counts["letter"] + counts["coupon"]]
    two = {"arms": ["control", "letter"], "other_values": "drop", **no_dose}
    dropped = load(tmp_path, put(frame, 1, "sent", None), treatment=two)
    left_out = dropped.notes["rows whose treatment is none of the arms, left out"]
    assert left_out == counts["coupon"] + (frame["sent"][0] != "coupon")
    assert len(dropped.whole) == len(frame) - left_out


@pytest.mark.parametrize(
    ("row", "column", "value", "expected"),
    [
        (7, "sent", "email", "rows.csv, column 'sent', row 7: 'email' is none of the arms; " + ARMS),
        (3, "sent", None, "rows.csv, column 'sent', row 3: is empty (got None)"),
        (5, "bought", 2, "rows.csv, column 'bought', row 5: a label must be 0 or 1 (got '2')"),
        (5, "bought", None, "rows.csv, column 'bought', row 5: is empty (got None)"),
        (4, "worth", "much", "rows.csv, column 'worth', row 4: is not a number (got 'much')"),
        (4, "worth", "inf", "rows.csv, column 'worth', row 4: must be finite (got 'inf')"),
    ],
)  # fmt: skip
def test_a_cell_that_does_not_fit_is_named(tmp_path: Path, row: int, column: str, value: Any, expected: str) -> None:
    frame = trial().with_columns(pl.col("worth").cast(pl.String)) if column == "worth" else trial()
    assert message(tmp_path, put(frame, row, column, value)) == expected


@pytest.mark.parametrize("value", ["nan", None, "inf"])
def test_a_continuous_outcome_is_a_finite_number(tmp_path: Path, value: Any) -> None:
    frame = put(trial().with_columns(pl.col("spend").cast(pl.String)), 9, "spend", value)
    outcome = {"label": {"bought": None, "spend": "spend"}, "treatment": {"outcome": "continuous"}}
    assert "column 'spend', row 9: " in message(tmp_path, frame, **outcome)


def test_continuous_outcomes_keep_their_units(tmp_path: Path) -> None:
    frame = trial()
    outcome = {"label": {"bought": None, "spend": "spend"}, "treatment": {"outcome": "continuous"}}
    dataset = load(tmp_path, frame, **outcome)
    np.testing.assert_array_equal(dataset.whole.labels["spend"], frame["spend"].cast(pl.Float32).to_numpy())


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_dose_is_named_with_its_arm(tmp_path: Path, value: float | None) -> None:
    frame = trial()
    row = frame["sent"].to_list().index("coupon")
    expected = f"column 'worth', row {row + 1}: the dose is missing, and arm 'coupon' needs one"
    frame = put(frame, row + 1, "worth", value)
    assert expected in message(tmp_path, frame)


def test_a_dose_outside_the_declared_range_is_named(tmp_path: Path) -> None:
    frame = trial()
    row = int(np.flatnonzero((frame["worth"] == 5).fill_null(False).to_numpy())[0])
    expected = f"row {row + 1}: the dose 5 lies outside treatment.dose_range, 0 to 4"
    assert expected in message(tmp_path, frame, treatment={"dose_range": [0.0, 4.0]})
    assert load(tmp_path, frame, treatment={"dose_range": [0.0, 9.0]}).dose_ranges == {"coupon": (0.0, 9.0)}


def test_doses_of_arms_without_one_are_ignored_and_counted(tmp_path: Path) -> None:
    frame = trial()
    row = frame["sent"].to_list().index("nothing")
    dataset = load(tmp_path, put(frame, row + 1, "worth", 3.0))
    assert dataset.notes["doses of arms without a dose, ignored"] == 1
    assert np.isnan(dataset.whole.dose[row])


def test_an_arm_without_a_curve_is_refused(tmp_path: Path) -> None:
    frame = trial().with_columns(pl.when(pl.col("worth").is_not_null()).then(2.5).alias("worth"))
    assert "every training row of arm 'coupon' has the dose 2.5, so there is no curve" in message(tmp_path, frame)


def test_an_arm_without_rows_is_refused_unless_allowed(tmp_path: Path) -> None:
    arms = {"arms": ["control", "letter", "coupon", "call"]}
    expected = (
        "rows.csv: arm 'call' has no rows to train on; with treatment.allow_missing_arms = true the other arms "
        "are trained"
    )
    assert message(tmp_path, trial(), treatment=arms) == expected
    allowed = load(tmp_path, trial(), treatment={**arms, "allow_missing_arms": True})
    assert allowed.whole.treatment.max() == 2
    dosed = {**arms, "dose_arms": ["coupon", "call"], "allow_missing_arms": True}
    assert set(load(tmp_path, trial(), treatment=dosed).dose_ranges) == {"coupon"}


def test_the_control_may_be_absent_only_where_a_dose_stands_for_it(tmp_path: Path) -> None:
    frame = trial().filter(pl.col("sent") != "nothing")
    for allowed in (False, True):
        found = message(tmp_path, frame, treatment={"allow_missing_arms": allowed})
        assert found == "rows.csv: arm 'control' has no rows to train on, and effects are measured against it"
    assert len(load(tmp_path, frame, treatment={"reference_dose": 1.0}).whole) == len(frame)


def test_no_row_of_any_arm_is_an_error(tmp_path: Path) -> None:
    frame = trial().with_columns(pl.lit("email").alias("sent"))
    assert "column 'sent': no row has one of the arms" in message(tmp_path, frame, treatment={"other_values": "drop"})


@pytest.mark.parametrize(
    ("column", "key"), [("sent", "treatment.column"), ("worth", "treatment.dose"), ("bought", "label.bought")]
)
def test_an_absent_column_is_named_with_its_key(tmp_path: Path, column: str, key: str) -> None:
    assert f"there is no column {column!r} ({key})" in message(tmp_path, trial().drop(column))


# Splits


def codes_of(dataset: Dataset) -> dict[str, int]:
    return dict(zip(dataset.whole.user_ids.to_list(), dataset.split.tolist(), strict=True))


def test_a_random_split_is_that_of_the_seed(tmp_path: Path) -> None:
    dataset = load(tmp_path, trial(), data={"split": {"by": "random", "seed": 3, "test": 0.25}})
    order = np.random.default_rng(3).permutation(200)
    np.testing.assert_array_equal(np.flatnonzero(dataset.split == 2), np.sort(order[150:]))


def test_validation_rows_are_drawn_arm_by_arm_with_the_seed_of_the_training(tmp_path: Path) -> None:
    split = {"split": {"test": 0.25, "valid": 0.2}}
    first, second = (load(tmp_path, trial(), data=split, train={"seed": seed}) for seed in (0, 1))
    assert first.fingerprint == second.fingerprint, "the data are the same"
    np.testing.assert_array_equal(first.split == 2, second.split == 2)
    assert (first.split != second.split).any()
    rest = np.bincount(first.whole.treatment[first.split != 2])
    valid = np.bincount(first.whole.treatment[first.split == 1])
    np.testing.assert_array_equal(valid, np.round(0.2 * rest))


def test_people_stay_on_one_side(tmp_path: Path) -> None:
    frame = trial(300).with_columns(pl.Series("person", [f"p{number % 60}" for number in range(300)]))
    dataset = load(tmp_path, frame, data={"split": {"test": 0.3, "valid": 0.3}})
    sides: dict[str, set[int]] = {}
    for person, code in zip(dataset.whole.user_ids.to_list(), dataset.split.tolist(), strict=True):
        sides.setdefault(person, set()).add(code)
    assert all(len(side) == 1 for side in sides.values())
    assert {min(side) for side in sides.values()} == {0, 1, 2}


def test_a_column_of_the_file_may_split_and_keep_its_own_validation_rows(tmp_path: Path) -> None:
    thirds = trial(90).with_columns(pl.Series("part", ["train", "valid", "test"] * 30))
    dataset = load(tmp_path, thirds, data={"split": "part"})
    np.testing.assert_array_equal(dataset.split, [0, 1, 2] * 30)
    halves = trial(90).with_columns(pl.Series("part", ["train", "train", "test"] * 30))
    drawn = load(tmp_path, halves, data={"split": {"column": "part", "valid": 0.2}})
    np.testing.assert_array_equal(drawn.split == 2, np.array([0, 1, 2] * 30) == 2)
    assert 9 <= (drawn.split == 1).sum() <= 15


def test_rows_with_times_may_be_split_by_time(tmp_path: Path) -> None:
    frame = trial().with_columns(pl.Series("ts", np.random.default_rng(1).permutation(200)))
    data = {"split": {"by": "time", "test": 0.2, "valid": 0.1}}
    dataset = load(tmp_path, frame, ids={"time": "ts"}, data=data)
    assert (np.diff(dataset.whole.rows.time) >= 0).all()
    assert (np.diff(dataset.split) >= 0).all()
    by_person = dict(frame.select("person", "sent").iter_rows())
    names = {"nothing": 0, "letter": 1, "coupon": 2}
    expected = [names[by_person[person]] for person in dataset.whole.user_ids]
    np.testing.assert_array_equal(dataset.whole.treatment, expected)


def test_every_arm_is_trained_on_before_it_is_validated() -> None:
    units = np.arange(10, dtype=np.uint64)
    arm = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
    codes = with_validation(np.zeros(10, np.int8), units, arm, 0.5, 0)
    assert np.bincount(arm[codes == 1], minlength=3).tolist() == [4, 1, 0]
    with pytest.raises(DataError, match="leaves no rows in valid"):
        with_validation(np.zeros(2, np.int8), units[:2], np.array([0, 1]), 0.5, 0)
    with pytest.raises(DataError, match="a random split leaves no rows in test"):
        split_at_random(units[:1], 0.2, 0)


# Histories and environments


def test_behaviours_come_along(tmp_path: Path) -> None:
    frame = trial().with_columns(pl.Series("ts", np.full(200, 1000)))
    pl.DataFrame(
        {"person": ["p0", "p0", "p1"], "item": ["a", "b", "a"], "ts": [10, 2000, 999]},
    ).write_csv(tmp_path / "events.csv")
    frame.write_csv(tmp_path / "rows.csv")
    mapping = trial_mapping(ids={"item": "item", "time": "ts"}, data={"events": "events.csv"})
    mapping["feature"] += [
        {"name": "seen", "kind": "sequence", "of": "item", "max_len": 3},
        {"name": "visits", "kind": "history", "stat": "count", "encoder": {"type": "none"}},
    ]
    dataset = load_dataset(TrainingConfig.from_mapping(mapping, folder=tmp_path))
    lengths = dict(zip(dataset.whole.user_ids.to_list(), dataset.behaviours.lengths.tolist(), strict=True))
    assert (lengths["p0"], lengths["p1"], lengths["p2"]) == (1, 1, 0)
    encoded = Encoder(fit(dataset.features, dataset.fit_columns())).encode(dataset.whole.rows)
    assert encoded.take()["behaviour_mask"].sum() == 2


def test_histories_in_the_rows_are_counted_as_the_file_does(tmp_path: Path) -> None:
    frame = trial().with_columns(pl.lit(1000).alias("ts"), pl.lit("a|b").alias("items"), pl.lit("1|2").alias("times"))
    two = {"arms": ["control", "letter"], "other_values": "drop", "dose": None, "dose_arms": None}
    history = {"history": {"item": "items", "time": "times"}}
    sections: dict[str, Any] = {"ids": {"item": "item", "time": "ts"}, "data": history, "treatment": two}
    dataset = load(tmp_path, frame, **sections)
    assert set(dataset.behaviours.lengths.tolist()) == {2}
    row = len(frame) - frame["sent"].reverse().to_list().index("letter")
    assert f"row {row}: the history must be oldest first" in message(
        tmp_path, put(frame, row, "times", "2|1"), **sections
    )


def test_environments_are_the_texts_of_their_column(tmp_path: Path) -> None:
    frame = put(trial(), 2, "day", None)
    dataset = load(tmp_path, frame, invariance={"column": "day"})
    part = dataset.part("test")
    assert part.environment is not None
    days = dict(frame.select("person", "day").iter_rows())
    assert part.environment.to_list() == [days[person] for person in part.user_ids]
    assert load(tmp_path, trial()).whole.environment is None
    expected = "there is no column 'week' (invariance.column)"
    assert expected in message(tmp_path, trial(), invariance={"column": "week"})


# Configuration


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"sampling": {"negative_rate": 0.5}}, "key sampling: belongs to click models"),
        ({"calibration": {"method": "none"}}, "key calibration: belongs to click models"),
        ({"train": {"epochs": 3}}, "key train.epochs: with treatments [train] holds seed, device, threads"),
        ({"model": {"network": None}}, "missing key model.network"),
        ({"data": {"items": "items.csv"}}, "key data.items: with treatments there are no candidates"),
        ({"data": {"split": {"by": "time"}}}, "key data.split.by: a split by time needs the key ids.time"),
        ({"data": {"split": {"by": "luck"}}}, "key data.split.by"),
        ({"data": {"split": {"by": "time", "seed": 1}}, "ids": {"time": "t"}}, "seed needs by = 'random'"),
        ({"data": {"replication": 1}}, "replication belongs to dataset"),
        ({"evaluation": {"reference": True}}, "unknown key evaluation.reference, did you mean"),
        ({"treatment": {"dose_arms": ["email"]}}, "key treatment.dose_arms: there is no arm named 'email'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(sections: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_mapping(trial_mapping(**sections))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"objective": {"alpha": 1}}, "key objective: needs treatments"),
        ({"evaluation": {"references": True}}, "key evaluation: needs treatments"),
        ({"data": {"split": {"by": "random"}}}, "key data.split.by: 'random' is for treatment effects"),
    ],
)
def test_clicks_refuse_what_is_for_treatments(sections: dict[str, Any], expected: str) -> None:
    mapping = trial_mapping(**{"ids": {"item": "i", "time": "t"}, **sections})
    del mapping["treatment"]
    with pytest.raises(ConfigError, match=expected.replace("(", r"\(")):
        TrainingConfig.from_mapping(mapping)


def test_a_resolved_configuration_is_read_back() -> None:
    mapping = trial_mapping(objective={"learning_rate": 0.1, "nested": {"a": [1, 2]}}, evaluation={"references": True})
    config = TrainingConfig.from_mapping(mapping)
    resolved = config.resolved()
    assert resolved["data"]["split"] == {"by": "random", "seed": 0, "valid": 0.1, "test": 0.1}
    assert resolved["objective"] == {"learning_rate": 0.1, "nested": {"a": [1, 2]}}
    assert resolved["train"] == {"seed": 0, "device": "cpu", "threads": 1, "checkpoint_every": 0}
    assert not {"sampling", "calibration"} & resolved.keys()
    assert config_from_json(json.dumps(resolved)).resolved() == resolved

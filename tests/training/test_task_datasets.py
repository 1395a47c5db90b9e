"""Census-Income, the tutorial's rows and the funnel of MovieLens: rows, splits, labels, and what is no feature."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.training.shop import ML_100K, TEST_DATA, needs_movielens
from training.config import load_config
from training.datasets import Dataset, load_dataset
from training.datasets.census import COLUMNS, LEVELS
from training.errors import ConfigError, DataError, DataUnavailable

CONFIGS = Path(__file__).parents[2] / "configs"
CENSUS, TUTORIAL = TEST_DATA / "ctr" / "census-income", TEST_DATA / "ctr" / "ml-1m-seed"
needs_census = pytest.mark.skipif(not CENSUS.exists(), reason="Census-Income is not in CTRLIFT_TEST_DATA")
needs_tutorial = pytest.mark.skipif(not TUTORIAL.exists(), reason="the tutorial's rows are not in CTRLIFT_TEST_DATA")


def person(number: int, **cells: Any) -> str:
    """One line of the census file; columns that are not given hold the same cell throughout."""
    plain = {name: "0" if name in ("age", "wage_per_hour", "weeks_worked") else "1" for name in COLUMNS}
    return ", ".join(str({**plain, "person": number, "income_class": "- 50000.", **cells}[name]) for name in COLUMNS)


def census(folder: Path, lines: list[str]) -> Dataset:
    (folder / "census_income_part.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return load_dataset(load_config(CONFIGS / "census-income-mmoe.toml", [f"data.path={folder}"]))


def test_census_rows_are_split_by_their_number_and_labelled(tmp_path: Path) -> None:
    cells: dict[int, dict[str, Any]] = {
        13: {"income_class": "50000+."},
        16: {"marital_status": "Never married"},
        8: {"wage_per_hour": 505},
    }
    dataset = census(tmp_path, [person(number, **cells.get(number, {})) for number in range(20)])
    assert {name: dataset.part(name).user_ids.to_list() for name in ("train", "valid", "test")} == {
        "train": [str(number) for number in range(20) if number % 10 < 6],
        "valid": ["6", "7", "16", "17"],
        "test": ["8", "18"],
    }
    train, valid = dataset.part("train"), dataset.part("valid")
    assert dict(zip(train.user_ids.to_list(), train.labels["income"], strict=True))["13"] == 1
    assert train.labels["income"].sum() == 1
    assert valid.labels["never_married"].tolist() == [0, 0, 1, 0]
    assert dataset.frame("test")["wage_per_hour_level"].to_list() == ["level 3", "level 0"]


def test_a_torn_census_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 2: holds 2 cells instead of 43"):
        census(tmp_path, [person(0), "1, 2"])


@pytest.mark.parametrize("column", ["marital_status", "income_class", "survey_weight", "never_married"])
def test_neither_label_nor_survey_weight_can_be_a_census_feature(column: str, tmp_path: Path) -> None:
    (tmp_path / "census_income_part.csv").write_text("\n".join(person(number) for number in range(9)))
    changed = (CONFIGS / "census-income-mmoe.toml").read_text().replace('name = "race"', f'name = "{column}"')
    (tmp_path / "changed.toml").write_text(changed.replace('never_married = "never_married"\n', ""))
    config = load_config(tmp_path / "changed.toml", [f"data.path={tmp_path}"])
    with pytest.raises(ConfigError, match=f"census-income has no column '{column}' in this role"):
        load_dataset(config)


@needs_census
def test_the_census_has_the_rows_and_shares_that_are_known_of_it() -> None:
    dataset = load_dataset(load_config(CONFIGS / "census-income-mmoe.toml", [f"data.path={CENSUS}"]))
    assert [len(dataset.part(name)) for name in ("train", "valid", "test")] == [59_858, 19_952, 9_976]
    assert dataset.whole.labels["income"].mean() == pytest.approx(0.062, abs=0.001)
    assert dataset.whole.labels["never_married"].mean() == pytest.approx(0.433, abs=0.002)
    declared = {feature.name for feature in dataset.features.feature}
    assert set(LEVELS) <= declared
    assert not declared & {"income", "never_married", "marital_status", "survey_weight"}


def tutorial_files(folder: Path) -> None:
    header = "userId,movieId,ratting,timestamp,histHighRatedMovieIds,gender,age,occupation,zipCode,title,genres,label"
    train = [
        f"{user},{film},4,{1000 + user},{history},F,25,3,x,Film (1995),Drama|War,{user % 2}"
        for user, film, history in ((1, 7, "8|9"), (2, 8, "7"), (3, 7, "7|8|7"), (4, 9, ""))
    ]
    test = ["5,7,2,2000,7|8,M,18,4,x,Film (1995),Drama,0"]
    for name, lines in (("train.csv", train), ("test.csv", test)):
        (folder / name).write_text("\n".join([header, *lines]) + "\n")


def test_likes_count_the_histories_of_other_training_rows(tmp_path: Path) -> None:
    from training.datasets.tutorial import likes

    split = np.array([0, 0, 0, 1, 2], dtype=np.int8)
    films = ["7", "8", "7", "9", "7"]
    histories = [["8", "9"], ["7"], ["7", "8", "7"], ["9"], ["7", "8"]]
    # Film 7 is in the histories of training rows 2 and 3; row 3 does not count itself, nor does anybody row 5.
    assert likes(films, histories, split) == [2, 2, 1, 1, 2]


def test_the_tutorial_s_histories_lie_before_their_row(tmp_path: Path) -> None:
    tutorial_files(tmp_path)
    from training.datasets.tutorial import read_rows

    rows, split = read_rows(tmp_path)
    assert split[-1] == 2
    assert set(split[:-1].tolist()) <= {0, 1}
    assert rows["history_items"].to_list() == [["8", "9"], ["7"], ["7", "8", "7"], [], ["7", "8"]]
    assert rows["history_times"].to_list()[0] == [999, 1000]
    assert rows["release_year"].to_list() == [1995] * 5


@needs_tutorial
def test_the_tutorial_s_rows_and_disjoint_users() -> None:
    dataset = load_dataset(load_config(CONFIGS / "movielens-1m-rows.toml", [f"data.path={TUTORIAL}"]))
    parts = {name: dataset.part(name) for name in ("train", "valid", "test")}
    assert len(parts["train"]) + len(parts["valid"]) == 4_832
    assert len(parts["test"]) == 1_208
    users = [set(part.user_ids.to_list()) for part in parts.values()]
    assert not users[0] & users[1]
    assert not (users[0] | users[1]) & users[2]
    behaviours = dataset.behaviours
    newest = behaviours.events["ts"][np.maximum(behaviours.stop - 1, 0)]
    assert (newest < dataset.whole.rows.time)[behaviours.lengths > 0].all()


def test_a_folder_without_the_rows_is_said(tmp_path: Path) -> None:
    for name in ("census-income-mmoe", "movielens-1m-rows"):
        with pytest.raises(DataUnavailable, match="does not hold"):
            load_dataset(load_config(CONFIGS / f"{name}.toml", [f"data.path={tmp_path}"]))


@needs_movielens
def test_loved_films_are_liked_ones_of_the_same_rows() -> None:
    funnel = load_dataset(load_config(CONFIGS / "movielens-100k-funnel.toml", [f"data.path={ML_100K}"]))
    rated = load_dataset(load_config(CONFIGS / "movielens-100k-rated.toml", [f"data.path={ML_100K}"]))
    assert np.array_equal(funnel.whole.labels["ctr"], rated.whole.labels["ctr"])
    liked, loved, both = (funnel.whole.labels[name] for name in ("ctr", "cvr", "ctcvr"))
    assert np.array_equal(np.isnan(loved), liked == 0)
    assert both.sum() == np.nansum(loved) > 0
    assert isinstance(funnel.rows, pl.DataFrame)

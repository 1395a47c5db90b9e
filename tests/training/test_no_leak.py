"""Nothing of the future or of the evaluation rows may reach a feature, a vocabulary, a scaler or a statistic."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bundle.behaviours import RECORD, Behaviours
from bundle.encode import Encoder
from bundle.fitting import FittedSchema, fit
from tests.training.shop import ML_100K, needs_movielens, shop_log, shop_mapping, write_shop
from training.config import TrainingConfig, load_config
from training.datasets import Dataset, load_dataset
from training.metrics import auc
from training.references import BOOSTING, ITEM_RATE, references
from training.statistics import ItemRates, View, statistics

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def films() -> Dataset:
    return load_dataset(load_config(CONFIGS / "movielens-100k-rated.toml", [f"data.path={ML_100K}"]))


@pytest.fixture
def shop(tmp_path: Path) -> Dataset:
    return load_shop(tmp_path, shop_log())


def load_shop(folder: Path, tables: dict[str, pl.DataFrame]) -> Dataset:
    write_shop(folder, tables)
    return load_dataset(TrainingConfig.from_mapping(shop_mapping(), folder=folder))


def assert_history_is_earlier(dataset: Dataset) -> None:
    behaviours, time = dataset.behaviours, dataset.whole.rows.time
    has = np.flatnonzero(behaviours.lengths > 0)
    # Slices are sorted by time, so the last event is the newest.
    newest = behaviours.events["ts"][behaviours.stop[has] - 1].astype(np.float64)
    assert len(has) > 0
    assert (newest < np.floor(time[has])).all()
    for row in has[:: max(1, len(has) // 50)]:
        times = behaviours.events["ts"][behaviours.start[row] : behaviours.stop[row]]
        assert (np.diff(times.astype(np.int64)) >= 0).all()


def test_every_behaviour_is_older_than_its_row(shop: Dataset) -> None:
    assert_history_is_earlier(shop)


@needs_movielens
def test_every_film_in_a_history_is_older_than_its_row(films: Dataset) -> None:
    assert_history_is_earlier(films)


@needs_movielens
def test_a_history_is_exactly_the_user_s_earlier_ratings(films: Dataset) -> None:
    rows = films.rows.with_row_index("row")
    sample = rows.sample(200, seed=0)
    every = pl.concat([films.rows.select("user_id", "timestamp")])
    for row, user, time in sample.select("row", "user_id", "timestamp").iter_rows():
        # Rows without an earlier liked film are behaviours but no rows, so the count is a lower bound.
        earlier = every.filter((pl.col("user_id") == user) & (pl.col("timestamp") < time)).height
        assert films.behaviours.lengths[row] >= earlier


def test_no_row_is_in_two_parts(shop: Dataset) -> None:
    windows = shop.window
    assert windows["train"][1] < windows["valid"][0]
    assert windows["valid"][1] < windows["test"][0]
    assert sum(len(shop.part(name)) for name in ("train", "valid", "test")) == len(shop.rows)  # type: ignore[arg-type]


@needs_movielens
def test_no_rating_is_in_two_parts(films: Dataset) -> None:
    parts = [films.frame(name).select("user_id", "item_id") for name in ("train", "valid", "test")]  # type: ignore[arg-type]
    assert pl.concat(parts).is_duplicated().sum() == 0
    assert films.window["train"][1] < films.window["valid"][0]
    assert films.window["valid"][1] < films.window["test"][0]


def fitted_state(fitted: FittedSchema) -> dict[str, Any]:
    vocabularies = {name: table.tolist() for name, table in fitted.vocabularies.items()}
    return vocabularies | {name: repr(scaler) for name, scaler in fitted.scalers.items()}


def test_vocabulary_and_scalers_come_from_training_rows(shop: Dataset, tmp_path: Path) -> None:
    tables = shop_log()
    later = pl.col("ts") > shop.window["train"][1]
    rows = tables["rows"].with_columns(
        price=pl.when(later).then(1e6).otherwise("price"),
        item_id=pl.when(later).then(pl.col("item_id") + 1000).otherwise("item_id"),
        hour=pl.when(later).then(99).otherwise("hour"),
    )
    changed = load_shop(tmp_path, {**tables, "rows": rows})
    before, after = fit(shop.features, shop.fit_columns()), fit(changed.features, changed.fit_columns())
    assert fitted_state(before) == fitted_state(after)


@needs_movielens
def test_ids_of_later_rows_are_unseen(films: Dataset) -> None:
    fitted = fit(films.features, films.fit_columns())
    train = films.columns("train")
    met = np.concatenate([train.items[:, 0], train.behaviours.events["item"][: train.behaviours.stop.max()]])
    assert np.isin(fitted.vocabularies["item"], met).all()
    # Films first rated after the training window exist; not one of them has a row of its own.
    new = np.setdiff1d(films.columns("test").items, np.union1d(train.items, fitted.vocabularies["item"]))
    assert len(new) > 0
    assert not np.isin(new, fitted.vocabularies["item"]).any()


def encoded(dataset: Dataset, fitted: FittedSchema, behaviours: Behaviours, rows: np.ndarray) -> dict[str, np.ndarray]:
    raw = dataclasses.replace(dataset.whole.rows, behaviours=behaviours).take(rows)
    return Encoder(fitted).encode(raw).take()


def with_planted_label(dataset: Dataset) -> Behaviours:
    """Every row's history continued by behaviours in its own second and later that carry the label as value."""
    labels, time = dataset.whole.labels["ctr"], dataset.whole.rows.time
    logs = []
    for row in range(len(labels)):
        own = dataset.behaviours.events[dataset.behaviours.start[row] : dataset.behaviours.stop[row]]
        planted = np.zeros(3, dtype=RECORD)
        planted["item"] = dataset.whole.rows.items[row, 0]
        planted["ts"] = time[row] + np.array([0, 1, 1000])
        planted["value"] = labels[row] * 100
        logs.append(np.concatenate([own, planted]))
    return Behaviours.from_events(logs)


def assert_planting_changes_nothing(dataset: Dataset, rows: np.ndarray) -> None:
    fitted = fit(dataset.features, dataset.fit_columns())
    clean = encoded(dataset, fitted, dataset.behaviours, rows)
    planted = encoded(dataset, fitted, with_planted_label(dataset), rows)
    assert clean.keys() == planted.keys()
    for name, array in clean.items():
        assert np.array_equal(array, planted[name], equal_nan=True), name


def test_a_label_planted_in_a_future_behaviour_changes_no_feature(shop: Dataset) -> None:
    assert_planting_changes_nothing(shop, np.arange(len(shop.rows)))


@needs_movielens
def test_a_label_planted_in_a_future_rating_changes_no_feature(films: Dataset) -> None:
    rows = np.random.default_rng(0).choice(len(films.rows), 400, replace=False).astype(np.int64)
    sample = dataclasses.replace(
        films,
        rows=films.rows[rows],
        split=films.split[rows],
        whole=films.whole.take(rows),
    )
    assert_planting_changes_nothing(sample, np.arange(len(rows)))


def test_an_event_log_that_goes_on_changes_no_feature(shop: Dataset, tmp_path: Path) -> None:
    tables = shop_log()
    future = tables["events"].with_columns(pl.col("ts") + 100_000, paid=pl.lit(1e6))
    longer = load_shop(tmp_path, {**tables, "events": pl.concat([tables["events"], future])})
    rows = np.arange(len(shop.rows))
    before = encoded(shop, fit(shop.features, shop.fit_columns()), shop.behaviours, rows)
    after = encoded(longer, fit(longer.features, longer.fit_columns()), longer.behaviours, rows)
    for name, array in before.items():
        assert np.array_equal(array, after[name]), name


def shuffled(dataset: Dataset, split: int, seed: int) -> Dataset:
    labels = dataset.whole.labels["ctr"].copy()
    rows = dataset.split == split
    labels[rows] = np.random.default_rng(seed).permutation(labels[rows])
    return dataclasses.replace(dataset, whole=dataclasses.replace(dataset.whole, labels={"ctr": labels}))


def test_references_do_not_look_at_the_labels_they_are_measured_on(shop: Dataset) -> None:
    other = shuffled(shuffled(shop, 1, seed=0), 2, seed=0)
    for before, after in zip(references(shop), references(other), strict=True):
        assert np.array_equal(before.scores, after.scores), before.name


def test_a_row_s_own_label_is_not_in_its_statistics(shop: Dataset) -> None:
    view = View.of(shop)
    labels = shop.whole.labels["ctr"].astype(np.float64)
    weights = np.ones(len(labels))
    row = np.array([3])
    flipped = labels.copy()
    flipped[3] = 1 - flipped[3]
    before = statistics(view, ItemRates.fit(view, labels, weights), row)
    after = statistics(view, ItemRates.fit(view, flipped, weights), row)
    assert np.array_equal(before, after, equal_nan=True)


@needs_movielens
def test_shuffled_training_labels_predict_nothing(films: Dataset) -> None:
    truth = films.part("test").labels["ctr"]
    found: dict[str, list[float]] = {}
    for seed in range(2):
        for reference in references(shuffled(films, 0, seed), names=(ITEM_RATE, BOOSTING)):
            found.setdefault(reference.name, []).append(auc(truth, reference.scores))
    # A linear model of a few columns points in a random direction here, which is not random as a ranking; the item
    # rates and the boosting have enough of them to average out.
    for name in (ITEM_RATE, BOOSTING):
        assert np.mean(found[name]) == pytest.approx(0.5, abs=0.02), name

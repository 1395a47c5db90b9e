from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.training.shop import ML_100K, needs_movielens, shop_log, shop_mapping, write_shop
from training.config import TrainingConfig, load_config
from training.datasets import Dataset, load_dataset
from training.metrics import auc, gauc, logloss
from training.references import BOOSTING, EVERY, ITEM_RATE, LOGISTIC, references
from training.statistics import SMOOTHING, ItemRates, View, statistics

LIKED = Path(__file__).parents[2] / "configs" / "movielens-100k-liked.toml"


@pytest.fixture
def shop(tmp_path: Path) -> Dataset:
    write_shop(tmp_path, shop_log(rows=900))
    return load_dataset(TrainingConfig.from_mapping(shop_mapping(), folder=tmp_path))


@needs_movielens
def test_references_of_the_liked_input() -> None:
    dataset = load_dataset(load_config(LIKED, [f"data.path={ML_100K}"]))
    part = dataset.part("test")
    labels = part.labels["ctr"]
    scores = {reference.name: reference.scores for reference in references(dataset, names=(LOGISTIC, BOOSTING))}
    rate = scores[ITEM_RATE]
    assert auc(labels, rate) == pytest.approx(0.7066, abs=5e-5)
    assert logloss(labels, rate) == pytest.approx(0.6175, abs=5e-5)
    assert gauc(labels, rate, part.groups).value == pytest.approx(0.7107, abs=5e-5)
    # The two fits depend on how users fall into folds and on the library's version, by about .001.
    assert auc(labels, scores[LOGISTIC]) == pytest.approx(0.713, abs=0.002)
    assert auc(labels, scores[BOOSTING]) == pytest.approx(0.714, abs=0.003)
    assert logloss(labels, scores[BOOSTING]) == pytest.approx(0.611, abs=0.002)


def test_every_data_set_gets_every_reference(shop: Dataset) -> None:
    found = references(shop)
    assert [reference.name for reference in found] == list(EVERY)
    for reference in found:
        assert reference.scores.shape == (len(shop.part("test")),)
        assert ((reference.scores > 0) & (reference.scores < 1)).all()


def test_item_rates_leave_the_row_s_fold_out(shop: Dataset) -> None:
    view = View.of(shop)
    labels = shop.whole.labels["ctr"].astype(np.float64)
    found = statistics(view, ItemRates.fit(view, labels, np.ones(len(labels))), np.arange(len(labels)))
    train = shop.split == 0
    for row in (0, len(labels) - 1):
        others = train & (view.fold != view.fold[row])
        base = labels[others].mean()
        same = others & (view.item == view.item[row])
        expected = (labels[same].sum() + SMOOTHING * base) / (same.sum() + SMOOTHING)
        assert found[row, 0] == pytest.approx(expected)


def test_history_statistics_by_hand(shop: Dataset) -> None:
    view = View.of(shop)
    labels = shop.whole.labels["ctr"].astype(np.float64)
    rates = ItemRates.fit(view, labels, np.ones(len(labels)))
    row = int(np.flatnonzero(view.history.lengths == 10)[-1])
    found = statistics(view, rates, np.array([row]))[0]
    behaved = view.event_item[view.history.start[row] : view.history.stop[row]]
    rate = rates.rate[view.fold[row], behaved]
    genre = view.columns["genre"].values[:, 0]
    newest = view.history.events["ts"][view.history.stop[row] - 1]
    assert found == pytest.approx(
        [
            rates.rate[view.fold[row], view.item[row]],
            np.mean(np.log(rate / (1 - rate))),
            np.mean(genre[behaved] == genre[view.item[row]]),
            np.log1p(rates.count[view.item[row]]),
            np.mean(np.log1p(rates.count[behaved])),
            10,
            np.log1p(view.time[row] - newest),
        ]
    )


def test_one_class_leaves_the_item_rate(tmp_path: Path) -> None:
    tables = shop_log()
    tables["rows"] = tables["rows"].with_columns(click=0)
    write_shop(tmp_path, tables)
    dataset = load_dataset(TrainingConfig.from_mapping(shop_mapping(), folder=tmp_path))
    assert [reference.name for reference in references(dataset)] == [ITEM_RATE]


def test_a_second_task_is_fitted_where_it_has_labels(tmp_path: Path) -> None:
    tables = shop_log(rows=900)
    tables["rows"] = tables["rows"].with_columns(buy=pl.when(pl.col("click") == 1).then("buy"))
    write_shop(tmp_path, tables)
    mapping = {**shop_mapping(), "label": {"ctr": "click", "cvr": "buy"}}
    dataset = load_dataset(TrainingConfig.from_mapping(mapping, folder=tmp_path))
    rate = {reference.task: reference.scores for reference in references(dataset) if reference.name == ITEM_RATE}
    bought = dataset.part("train").labels["cvr"]
    assert rate["cvr"].mean() == pytest.approx(np.nanmean(bought), abs=0.05)

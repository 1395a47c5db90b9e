"""Slicing: every row once an epoch, like lengths together, lost histories exactly as the service would see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.inputs import INPUT_NAMES
from tests.tiny import ITEMS, tiny_config, tiny_mapping
from training.batches import MEGA_BATCH, Batches, epoch_order
from training.config import TrainingConfig
from training.preparation import Prepared, open_run, prepare

LENGTHS = np.random.default_rng(0).integers(0, 50, size=1_037)


@pytest.mark.parametrize("by_length", [True, False])
def test_an_epoch_holds_every_row_once(by_length: bool) -> None:
    batches = epoch_order(LENGTHS, 32, seed=1, epoch=0, by_length=by_length)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(LENGTHS)))
    assert len(batches) == -(-len(LENGTHS) // 32)
    assert all(len(batch) == 32 for batch in batches if len(batch) != len(LENGTHS) % 32)


def test_rows_of_like_length_come_together_but_not_in_order_of_length() -> None:
    grouped = epoch_order(LENGTHS, 32, 1, 0, by_length=True)
    shuffled = epoch_order(LENGTHS, 32, 1, 0, by_length=False)

    def padding(batches: list[np.ndarray]) -> int:
        return sum(int((LENGTHS[batch].max() - LENGTHS[batch]).sum()) for batch in batches)

    assert padding(grouped) < padding(shuffled) / 5
    means = [LENGTHS[batch].mean() for batch in grouped]
    assert means != sorted(means)


def test_lengths_are_grouped_within_mega_batches_only() -> None:
    lengths = np.arange(2 * MEGA_BATCH * 4)
    first = np.concatenate(epoch_order(lengths, 4, 0, 0, by_length=True)[:MEGA_BATCH])
    # A mega-batch is a random half of the rows, not the shorter half.
    assert lengths[first].max() > 1.5 * MEGA_BATCH * 4


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in epoch_order(LENGTHS, 32, seed, epoch, by_length=True)]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_rows_inside_a_batch_are_not_sorted_by_length() -> None:
    batch = epoch_order(LENGTHS, 512, 0, 0, by_length=True)[0]
    assert LENGTHS[batch].tolist() != sorted(LENGTHS[batch].tolist())


@pytest.fixture(scope="module")
def prepared(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    config = tiny_config(tiny_data, "dien", sequence_dropout=0.5)
    return prepare(config, open_run(config, tmp_path_factory.mktemp("run"), False, None))


def test_a_batch_holds_the_network_s_inputs_in_their_order(prepared: Prepared) -> None:
    batches = prepared.batches
    rows = batches.order(0)[0]
    batch = batches.build(rows, 0, 0)
    assert len(batch.inputs) == len(INPUT_NAMES)
    assert [tensor.shape[0] for tensor in batch.inputs] == [len(rows)] * 7
    assert batch.inputs[6].dtype == torch.bool
    assert batch.negatives is not None
    assert batch.negatives.shape == batch.inputs[4].shape
    assert torch.equal(batch.labels, torch.from_numpy(batches.targets.labels[rows]))


def test_a_lost_history_is_what_the_service_would_see(prepared: Prepared) -> None:
    batches = prepared.batches
    assert batches.emptied is not None
    rows = np.arange(len(batches.lengths) - 200, len(batches.lengths))  # late rows, which all have a history
    lost_share = 0
    built = dict(zip(INPUT_NAMES, (t.numpy() for t in batches.build(rows, 0, 0).inputs), strict=True))
    full, empty = batches.rows.take(rows), batches.emptied.take(rows)
    for place in range(len(rows)):
        lost = not built["behaviour_mask"][place].any() and full["behaviour_mask"][place].any()
        expected = empty if lost else full
        lost_share += lost
        for name in ("user_ids", "user_numbers", "candidate_ids", "candidate_numbers"):
            np.testing.assert_array_equal(built[name][place], expected[name][place])
        for name in ("behaviour_ids", "behaviour_numbers", "behaviour_mask"):
            steps = expected[name].shape[1]
            np.testing.assert_array_equal(built[name][place][:steps], expected[name][place])
            assert not built[name][place][steps:].any()
    assert 0.3 < lost_share / len(rows) < 0.7
    # The counts over the history are lost with it, not only the sequence.
    assert not np.array_equal(full["user_numbers"], built["user_numbers"])


def test_which_histories_are_lost_changes_from_epoch_to_epoch(prepared: Prepared) -> None:
    rows = np.arange(64)
    masks = [prepared.batches.build(rows, epoch, 0).inputs[6] for epoch in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_a_negative_is_never_an_item_of_the_row_s_past(prepared: Prepared) -> None:
    batches: Batches = prepared.batches
    fitted = prepared.fitted
    field = prepared.options["layout"]["behaviour_ids"][0]
    assert field["name"] == "hist_item"
    rows = np.arange(len(batches.lengths))
    behaviours = prepared.dataset.part("train").rows.behaviours
    negatives = batches.build(rows, 0, 0).negatives
    assert negatives is not None
    drawn = negatives[:, :, field["column"]].numpy()
    table = fitted.items.behaviour_columns(fitted.items.rows(behaviours.events["item"]))[0][:, field["column"]]
    checked = 0
    for row in rows:
        met = set(table[behaviours.start[row] : behaviours.stop[row]].tolist())
        mine = set(drawn[row][drawn[row] > 0].tolist())
        assert not mine & met
        checked += len(mine)
    assert checked > 1_000
    assert drawn.max() < fitted.tables()["item"]
    assert not (drawn == 1).any()


def test_items_that_the_vocabulary_does_not_know_are_never_drawn(tiny_data: Path, tmp_path: Path) -> None:
    mapping = tiny_mapping(tiny_data, "dien")
    item = next(feature for feature in mapping["feature"] if feature["name"] == "item_id")
    item["encoder"] = {"type": "vocab", "min_count": 45}
    config = TrainingConfig.from_mapping(mapping)
    prepared = prepare(config, open_run(config, tmp_path, False, None))
    known = prepared.fitted.tables()["item"] - 2
    assert 0 < known < ITEMS
    sampler = prepared.batches.sampler
    assert sampler is not None
    assert len(sampler.population) == known

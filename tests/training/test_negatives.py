"""Drawn negatives: never an item met before the row, seeded, and with the drawn item's own columns."""

from __future__ import annotations

import numpy as np
import pytest

from training.batches import Stream, generator_for
from training.negatives import History, NegativeSampler

ITEMS = 12


def sampler(log: list[int], start: list[int], stop: list[int], population: list[int] | None = None) -> NegativeSampler:
    rows = np.array(log, dtype=np.int64)
    columns = np.stack([np.arange(ITEMS) + 2, np.arange(ITEMS) % 3 + 2, np.zeros(ITEMS)], axis=1).astype(np.int64)
    return NegativeSampler(
        history=History.from_log(rows, np.array(start), np.array(stop)),
        population=np.array(population if population is not None else range(ITEMS), dtype=np.int64),
        columns=columns,
        derived=np.array([True, True, False]),
        streams=np.array([0, 0, 1]),
    )


def test_an_item_met_before_the_row_is_never_drawn_and_every_other_one_is() -> None:
    # One log of two users; the rows see different stretches of it.
    log = [0, 1, 2, 3, 4, 5, 6, 6, 7]
    drawn = sampler(log, [0, 0, 5], [3, 5, 9]).draw(np.array([0, 1, 2]), 400, np.random.default_rng(0))
    for row, met in enumerate([{0, 1, 2}, {0, 1, 2, 3, 4}, {5, 6, 7}]):
        assert set(drawn[row]) == set(range(ITEMS)) - met


def test_membership_equals_a_plain_search_of_each_history() -> None:
    generator = np.random.default_rng(3)
    log = generator.integers(-1, ITEMS, size=200)
    start = generator.integers(0, 150, size=40)
    stop = start + generator.integers(0, 50, size=40)
    history = History.from_log(log, start, stop)
    rows, items = generator.integers(0, 40, size=3000), generator.integers(0, ITEMS, size=3000)
    expected = [items[i] in log[start[rows[i]] : stop[rows[i]]] for i in range(3000)]
    assert 300 < sum(expected) < 2700
    assert history.holds(rows, items).tolist() == expected


def test_what_the_user_does_after_the_row_may_still_be_drawn() -> None:
    # The row sees items 0..9; of the two others, item 10 comes later in the same log.
    drawn = sampler([*range(10), 10], [0], [10]).draw(np.array([0]), 100, np.random.default_rng(0))
    assert set(drawn[0]) == {10, 11}


def test_draws_are_uniform_over_what_is_left() -> None:
    drawn = sampler([0, 1, 2, 3], [0], [4]).draw(np.array([0]), 40_000, np.random.default_rng(1))
    shares = np.bincount(drawn[0], minlength=ITEMS) / 40_000
    # Eight items are left; the standard error of a share is sqrt(1/8 * 7/8 / 40,000) = 0.0017.
    assert np.all(shares[:4] == 0)
    assert np.all(np.abs(shares[4:] - 1 / 8) < 5 * 0.0017)


def test_a_user_who_met_everything_gets_some_item_instead_of_an_endless_loop() -> None:
    drawn = sampler(list(range(ITEMS)), [0], [ITEMS]).draw(np.array([0]), 5, np.random.default_rng(0))
    assert drawn.shape == (1, 5)


def test_columns_follow_the_drawn_item_and_the_others_keep_the_real_step() -> None:
    negatives = sampler([0, 1, 2], [0, 0], [3, 1])
    real = np.array([[[2, 2, 7], [3, 3, 8], [0, 0, 0]], [[2, 2, 9], [0, 0, 0], [0, 0, 0]]], dtype=np.int64)
    mask = np.zeros((2, 3, 2), dtype=bool)
    mask[0, :2], mask[1, :1] = True, True
    drawn = negatives.behaviour_ids(np.array([0, 1]), real, mask, np.random.default_rng(0))
    assert np.all(drawn[~mask.any(axis=-1)] == 0)
    ids = drawn[..., 0][mask[..., 0]]
    assert np.all((ids >= 2) & (ids < ITEMS + 2))
    assert not set(ids[:2] - 2) & {0, 1, 2}
    assert np.array_equal(drawn[..., 1][mask[..., 0]], (ids - 2) % 3 + 2)
    assert drawn[0, :2, 2].tolist() == [7, 8]
    assert drawn[1, 0, 2] == 9


def test_the_same_place_of_a_run_draws_the_same_and_another_place_does_not() -> None:
    negatives = sampler([0, 1, 2], [0], [3])

    def at(*place: int) -> list[int]:
        return negatives.draw(np.array([0]), 50, generator_for(Stream.NEGATIVES, 7, *place))[0].tolist()

    assert at(0, 3) == at(0, 3)
    assert at(0, 3) != at(0, 4)
    assert at(0, 3) != at(1, 3)
    assert generator_for(Stream.ORDER, 7, 0, 3).random() != generator_for(Stream.NEGATIVES, 7, 0, 3).random()


def test_an_empty_item_table_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="item table is empty"):
        sampler([0], [0], [1], population=[])


def test_an_empty_log_has_met_nothing() -> None:
    history = History.from_log(np.zeros(0, dtype=np.int64), np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64))
    assert not history.holds(np.array([0, 2]), np.array([1, 5])).any()

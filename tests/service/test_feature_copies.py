"""Features alone: read in one round trip, remembered by read, and lost with a word about it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from service.behaviours import StoreError
from service.behaviours.base import StoredFeatures
from service.behaviours.feature_copies import FeatureCopies
from service.behaviours.histories import FeatureBlock, Histories
from service.behaviours.memory import MemoryStore
from service.metrics import Metrics
from service.settings import StoreSettings


class Store(MemoryStore):
    """Goes away, and forgets, when it is told to."""

    def __init__(self) -> None:
        super().__init__(max_events=10)
        self.away = False
        self.marker = 5

    async def read_features(self, user_ids: Sequence[str]) -> StoredFeatures:
        if self.away:
            raise StoreError("away")
        return (await super().read_features(user_ids))._replace(marker=self.marker)


class Reader:
    def __init__(self, **options: Any) -> None:
        self.now, self.store = 1000.0, Store()
        self.store.features = {"a": b'{"age":1}', "b": b'{"age":2}'}
        settings = StoreSettings.model_validate({"url": "memory://", **options})
        self.histories = Histories(self.store, settings, Metrics(), lambda: self.now)

    def read(self, *user_ids: str) -> FeatureBlock:
        return asyncio.run(self.histories.read_features(user_ids))


def test_values_come_as_they_are_stored() -> None:
    assert Reader().read("b", "new", "a", "b") == ("store", [b'{"age":2}', None, b'{"age":1}', b'{"age":2}'], (), None)


def test_without_the_store_copies_answer_for_a_while() -> None:
    reader = Reader(cache_ttl_s=300)
    reader.read("a", "new")
    reader.store.away = True
    reader.now += 299
    known = reader.read("a", "new")
    assert known == ("cache", [b'{"age":1}', None], ("stale_history",), [True, True])
    assert reader.read("b") == ("empty", [None], ("no_history",), [True])
    some = reader.read("b", "a")
    assert (some.source, some.values, set(some.degraded)) == (
        "cache",
        [None, b'{"age":1}'],
        {"stale_history", "no_history"},
    )
    reader.now += 2
    assert reader.read("a").source == "empty"


def test_a_deleted_user_has_no_copy() -> None:
    reader = Reader(cache_ttl_s=300)
    reader.read("a", "b")
    reader.histories.forget("a")
    reader.store.away = True
    assert reader.read("a", "b").values == [None, b'{"age":2}']


def test_a_wiped_store_is_told_from_a_new_user() -> None:
    reader = Reader(wiped_hold_s=60)
    assert reader.read("new").lost is None
    reader.store.marker = 6
    reader.store.features = {"b": b'{"age":2}'}
    wiped = reader.read("a", "b")
    assert (wiped.degraded, wiped.lost) == (("store_wiped",), [True, False])
    assert reader.read("b").degraded == ()  # whoever is there was written since
    reader.now += 61
    assert reader.read("a").lost is None


def test_the_breaker_spares_the_store() -> None:
    reader = Reader(breaker={"failures": 2})
    reader.store.away = True
    reader.read("a"), reader.read("a")
    reader.store.away = False
    assert reader.read("a").source == "empty"


@pytest.mark.parametrize(("most", "kept"), [(0, ""), (1, "d"), (2, "cd"), (3, "cd"), (4, "abcd")])
def test_the_newest_copies_stay(most: int, kept: str) -> None:
    copies = FeatureCopies(most)
    for now, users in enumerate(("ab", "cd")):
        copies.remember(list(users), [user.encode() for user in users], now)
    assert copies.find("abcd", 0) == {user: user.encode() for user in kept}


def test_the_newest_of_several_copies_is_found() -> None:
    copies = FeatureCopies(10)
    copies.remember(["a"], [b"old"], 1)
    copies.remember(["a", "b"], [b"new", None], 2)
    assert copies.find(["a", "b", "c"], 0) == {"a": b"new", "b": None}
    assert copies.find(["a"], 3) == {}

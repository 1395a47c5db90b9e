"""The compiled encoder against the ordinary one: the same arrays, counts and names, or none."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.serving.slates import SlateSizes, slates
from benchmarks.serving.speed_config import NOW, SpeedConfig
from bundle.behaviours import MAX_EVENTS, RECORD, pack, records
from bundle.columns import raw_column
from bundle.encode import Encoder
from bundle.errors import FeatureError
from bundle.fitting import FitColumns, FittedSchema, fit
from bundle.ids import id64_column
from bundle.request import StoredUser, rows_from_query
from bundle.schema import FeatureSchema
from service.api import score_body
from service.behaviours.codec import decode_user
from service.compiled.library import CompiledUnavailable
from service.compiled.slate import SlateLimits, SlateReader
from service.compiled.slate_encoding import EncodedSlate, SlateEncoder, Unsupported
from service.settings import Settings
from tests.bundle.samples import FEATURES, declaration, fit_columns, fitted_shop, random_rows
from tests.bundle.test_encode_equality import schemas
from tests.service import tiny_bundle, tiny_uplift
from tests.service.asking import KINDS
from tests.service.bodies import damaged
from tests.service.compiled.slates import ODD_STORED, history, request

SETTINGS = Settings()
LIMITS = SlateLimits.of(SETTINGS.limits)
TIME = 115.0


class BothWays:
    """One declaration, encoded by compiled code and in the ordinary way."""

    def __init__(self, fitted: FittedSchema, library: Path) -> None:
        self.fitted = fitted
        self.reader, self.encoder = SlateReader(library), SlateEncoder(fitted, library)
        self._ordinary = Encoder(fitted)

    def compiled(
        self, body: dict[str, Any], sequence: bytes | None = None, features: bytes | None = None, most: int = 1000
    ) -> EncodedSlate | None:
        slate = self.reader.read(json.dumps(body, ensure_ascii=False).encode(), LIMITS)
        assert slate is not None, body
        return self.encoder.encode(slate, sequence, features, most, TIME)

    def ordinary(
        self, body: dict[str, Any], sequence: bytes | None = None, features: bytes | None = None, most: int = 1000
    ) -> EncodedSlate:
        query = score_body.documented(json.dumps(body).encode(), SETTINGS).query
        query = query if body.get("ts") is not None else replace(query, ts=TIME)
        user = decode_user(sequence, features, most)
        assert user.corrupt == 0
        encoded = self._ordinary.encode(rows_from_query(self.fitted, query, StoredUser(user.behaviours, user.features)))
        unseen = {name: count for name, count in encoded.unseen.items() if count}
        return EncodedSlate(encoded.take(None), int(encoded.lengths[0]), unseen, encoded.missing)

    def agree(self, *asked: Any) -> EncodedSlate:
        """What both give; fails where they differ."""
        found, expected = self.compiled(*asked), self.ordinary(*asked)
        assert found is not None, asked
        assert list(found.inputs) == list(expected.inputs)
        for name, array in expected.inputs.items():
            own = found.inputs[name]
            assert (own.shape, own.dtype) == (array.shape, array.dtype), name
            assert own.flags.c_contiguous
            if array.dtype == np.float32:  # sums, logarithms and powers may differ in a double's last place
                np.testing.assert_allclose(own, array, rtol=3e-7, atol=1e-7, err_msg=name)
            else:
                np.testing.assert_array_equal(own, array, err_msg=name)
        assert found[1:] == expected[1:]
        return found


@pytest.fixture(scope="module")
def shop(compiled_library: Path) -> BothWays:
    return BothWays(fitted_shop(), compiled_library)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=schemas(), seed=st.integers(0, 2**32 - 1))
def test_any_declaration_gives_the_same_arrays(compiled_library: Path, schema: FeatureSchema, seed: int) -> None:
    ways, rng = BothWays(fit(schema, fit_columns(schema, seed % 5)), compiled_library), random.Random(seed)
    for _ in range(10):
        body, stored = request(schema, rng)
        features = rng.choice([None, json.dumps(stored, ensure_ascii=False).encode()])
        ways.agree(body, history(rng), features, rng.choice([3, 10, 1000]))


def test_the_whole_shop_gives_the_same_arrays(shop: BothWays) -> None:
    rng = random.Random(0)
    for _ in range(300):
        body, stored = request(shop.fitted.schema, rng)
        shop.agree(body, history(rng), json.dumps(stored, ensure_ascii=False).encode(), rng.choice([3, 10, 1000]))


def test_damage_is_never_encoded_in_another_way(shop: BothWays) -> None:
    rng, taken, left = random.Random(1), 0, 0
    for _ in range(1500):
        body, stored = request(shop.fitted.schema, rng)
        raw, features = json.dumps(body), json.dumps(stored, ensure_ascii=False)
        raw, features = (damaged(text, rng) if rng.random() < 0.5 else text for text in (raw, features))
        slate = shop.reader.read(raw.encode("utf-8", "replace"), LIMITS)
        asked = (history(rng), features.encode("utf-8", "replace"))
        if slate is None or shop.encoder.encode(slate, *asked, 1000, TIME) is None:
            left += 1
            continue
        taken += 1
        shop.agree(json.loads(raw), *asked)
    assert taken > 300
    assert left > 300


def test_the_tiny_bundle_and_the_network_of_the_benchmarks(compiled_library: Path) -> None:
    from benchmarks.serving.speed_network import build  # it loads torch

    tiny = BothWays(tiny_bundle.fitted(), compiled_library)
    past = pack(records(tiny_bundle.ITEMS[:30], np.arange(30) + 50.0))
    body = {"user_id": "1", "candidates": ["1", "unseen", "7"], "context": {"hour": 3}, "user_features": {"age": 31}}
    found = tiny.agree(body | {"candidate_features": {"price": [1, None, 3]}}, past)
    assert (found.length, found.missing) == (20, ("occupation",))
    assert tiny.agree({"candidates": ["5"]}).inputs["behaviour_mask"].tolist() == [[[False]]]
    speed = BothWays(build(SpeedConfig(items=500)).fitted, compiled_library)
    for slate in slates(SlateSizes(items=600, users=8)):
        past = pack(records(slate.history, NOW - 10_000 + np.arange(len(slate.history))))
        found = speed.agree(json.loads(slate.body) | {"ts": NOW}, past)
        assert found.length == 50
        assert found.unseen["item_id"] > 0


def test_an_empty_history_is_one_masked_step(shop: BothWays) -> None:
    for sequence in (None, b"\x01"):
        found = shop.agree({"candidates": ["a"]}, sequence)
        assert found.length == 0
        assert found.inputs["behaviour_mask"].shape == (1, 1, 2)
        assert not found.inputs["behaviour_mask"].any()
        assert not found.inputs["behaviour_ids"].any()


def test_what_happens_at_the_requests_second_or_later_is_not_looked_at(shop: BothWays) -> None:
    past = pack(records(["a", "b", "unknown", "d"], [100, 110, 120, 120], ["click", "new", "click", "new"], [4.0] * 4))
    for ts, length in ((100, 0), (100.5, 0), (101, 1), (110.9, 1), (120.0, 2), (121, 3), (4294967295, 3)):
        assert shop.agree({"candidates": ["a", "b"], "ts": ts}, past).length == length
    assert shop.agree({"candidates": ["a"]}, past).length == 2  # at TIME


def test_long_histories(shop: BothWays) -> None:
    rng = np.random.default_rng(0)
    many = rng.choice(["a", "b", "c", "unknown"], MAX_EVENTS + 300).tolist()
    past = pack(records(many, np.arange(len(many)) // 20 + 50, ["click"] * len(many), rng.integers(1, 6, len(many))))
    for most in (1, 7, MAX_EVENTS, MAX_EVENTS + 100, 10**6):
        shop.agree({"candidates": ["a", "d", "unlisted"]}, past, None, most)
    # Of two that a filter keeps, the first one happened before everything that is looked at.
    liked = np.where(np.isin(np.arange(len(many)), [10, 1200]), 5.0, 1.0)
    past = pack(records(many, np.arange(len(many)) // 20 + 50, None, liked))
    shop.agree({"candidates": ["a"], "ts": 1000}, past, None, 10**6)


def test_bounds_are_compared_with_values_as_they_are_stored(compiled_library: Path) -> None:
    bound = {"kind": "history", "stat": "count"}
    added = [
        {"name": "low", "where": {"max_value": 0.1}} | bound,
        {"name": "high", "where": {"min_value": 0.7}} | bound,
        {"name": "both", "where": {"min_value": 0.1, "max_value": 0.7, "types": ["click", "buy"]}} | bound,
    ]
    schema = FeatureSchema.from_toml(declaration([*FEATURES, *added]))
    ways = BothWays(fit(schema, fit_columns(schema)), compiled_library)
    values = [0.1, 0.7, np.nan, 0.05, 0.4, 0.9]
    past = pack(records(["a"] * 6, np.arange(6) + 100, ["click", "buy", "buy", None, "rate", "click"], values))
    ways.agree({"candidates": ["a"]}, past)


@pytest.mark.parametrize("place", [0, 3])
def test_corrupt_histories_are_left_to_the_ordinary_way(shop: BothWays, place: int) -> None:
    whole = pack(records(["a", "b", "c", "d"], [100, 101, 102, 103], ["click"] * 4, [4.0] * 4))
    body = {"candidates": ["a"]}
    shop.agree(body, whole)
    at = 1 + place * RECORD.itemsize
    inf, minus_inf = np.float32(np.inf).tobytes(), np.float32(-np.inf).tobytes()
    wrong = [
        *(b"", b"\x02" + whole[1:], whole[:-1], whole + b"x", whole[: at + 5]),
        whole[:at] + bytes(8) + whole[at + 8 :],
        whole[: at + 16] + inf + whole[at + 20 :],
        whole[: at + 16] + minus_inf + whole[at + 20 :],
        whole[: at + 8] + np.uint32(102 - 2 * place + 6 * (place == 0)).tobytes() + whole[at + 12 :],
    ]
    for sequence in wrong:
        assert decode_user(sequence, None, 1000).corrupt == 1
        assert shop.compiled(body, sequence) is None
    # Nobody looks at what is older than the newest ones.
    old = b"\x01" + bytes(RECORD.itemsize) + whole[1:]
    assert shop.compiled(body, old) is None
    assert shop.agree(body, old, None, 4).length == 3


def test_stored_features(shop: BothWays) -> None:
    body = {"candidates": ["a", "b"], "user_features": {"age": None}}
    for features in (
        b"{}",
        b' { "hour" : "1" , "age":2} ',
        b'{"age":"x","hour":5}',
        b'{"hour":["1"],"a":[1,"x",null]}',
    ):
        shop.agree(body, None, features)
        shop.agree({"candidates": ["a"]}, None, features)
    taken = [features for features in ODD_STORED if shop.compiled({"candidates": ["a"]}, None, features) is not None]
    assert taken == []
    told = {"candidates": ["a"], "user_features": {"age": 1}, "context": {"hour": "1"}}
    shop.agree(told, None, b'{"age": "of no use", "hour": 7}')
    assert shop.compiled(told, None, b'{"a": {}}') is None


def test_what_a_declaration_refuses_is_left_to_the_ordinary_way(shop: BothWays) -> None:
    right: dict[str, Any] = {"candidates": ["a", "b"]}
    wrong: list[dict[str, Any]] = [
        *({"context": {"nope": 1}}, {"context": {"age": 1}}, {"user_features": {"hour": "1"}}),
        *({"user_features": {"user_id": "1"}}, {"candidate_features": {"item_id": ["a", "b"]}}),
        *({"user_features": {"h_item": "a"}}, {"user_features": {"n": 3}}, {"candidate_features": {"age": [1, 2]}}),
        *({"user_features": {"age": "old"}}, {"context": {"hour": 5}}, {"candidate_features": {"rank": ["a", None]}}),
        *({"candidate_features": {"genre": [1, None]}}, {"candidate_features": {"genre_mean": [1, 2]}}),
    ]
    for part in wrong:
        with pytest.raises(FeatureError):
            shop.ordinary(right | part)
        assert shop.compiled(right | part) is None, part
    # Right, but of several values.
    for part in ({"user_features": {"tags": "1,2"}}, {"candidate_features": {"genre": ["x|y", None]}}):
        shop.ordinary(right | part)
        assert shop.compiled(right | part) is None


@pytest.mark.parametrize(("letters", "width"), [(1, 1), (64, 1), (65, 1), (300, 1), (10, 3), (300, 3)])
def test_given_columns_go_before_the_item_table(compiled_library: Path, letters: int, width: int) -> None:
    """Also where candidates and behaviours are compared by them: as sets of bits, and beyond 64 values as ids."""
    genre = {"name": "genre", "side": "candidate", "kind": "id", "max_values": width}
    features = [genre if feature["name"] == "genre" else feature for feature in FEATURES]
    schema = FeatureSchema.from_toml(declaration(features))
    rng = random.Random(letters)
    genres = [rng.sample([f"g{n}" for n in range(letters)], rng.randrange(min(width, letters) + 1)) for _ in range(400)]
    columns = {
        "genre": raw_column(schema.named("genre"), [some if width > 1 else "".join(some) or None for some in genres]),  # type: ignore[arg-type]
        "price": np.array([np.nan if item % 5 == 0 else item / 3 for item in range(400)]),
    }
    items = id64_column([str(item) for item in range(400)])
    rows = random_rows(schema, np.random.default_rng(1), 30, 1)
    ways = BothWays(fit(schema, FitColumns(rows, items, columns)), compiled_library)
    for _ in range(60):
        count = rng.randrange(1, 30)
        prices = [rng.choice([None, rng.uniform(0, 200)]) for _ in range(count)]
        own = [rng.choice([None, f"g{rng.randrange(letters + 2)}"]) if width == 1 else None for _ in range(count)]
        given = rng.choice([{}, {"genre": own}, {"price": prices, "rank": prices}])
        past = [str(rng.randrange(420)) for _ in range(rng.randrange(40))]
        values = [rng.choice([np.nan, 1, 5]) for _ in past]
        sequence = pack(records(past, np.arange(len(past)) + 60.0, ["click"] * len(past), values))
        candidates = [str(rng.randrange(420)) for _ in range(count)]
        ways.agree({"candidates": candidates, "candidate_features": given}, sequence)


@pytest.mark.parametrize("shift", [0, 1, 40, 63])
def test_ids_are_found_wherever_they_lie(compiled_library: Path, shift: int) -> None:
    """Searches guess that hashes are spread evenly; where they are not, they take longer and find the same."""
    fitted = fitted_shop()
    texts = [f"user {number}" for number in range(3000)]
    filling = (np.arange(1, 3001, dtype=np.uint64) << np.uint64(shift)) + np.uint64(7)
    known = np.unique(np.concatenate([id64_column(texts[::2]), filling]))
    skewed = replace(fitted, vocabularies={**fitted.vocabularies, "user_id": known})
    ways = BothWays(skewed, compiled_library)
    for text in texts[::11]:
        assert ways.agree({"candidates": ["a"], "user_id": text}).unseen.get("user_id", 0) == int(text.split()[1]) % 2


def test_what_takes_long_is_left_to_the_ordinary_way(shop: BothWays) -> None:
    past = pack(records(["a"] * 500, [100] * 500))
    limits = SlateLimits(30_000, 256)

    def taken(candidates: int, sequence: bytes | None) -> bool:
        slate = shop.reader.read(json.dumps({"candidates": ["a"] * candidates}).encode(), limits)
        assert slate is not None
        return shop.encoder.encode(slate, sequence, None, 1000, TIME) is not None

    assert taken(50, past)
    assert not taken(1000, past)
    assert taken(10_000, None)
    assert not taken(30_000, None)


def test_declarations_without_candidates_are_refused(compiled_library: Path) -> None:
    with pytest.raises(Unsupported, match="no candidates"):
        SlateEncoder(tiny_uplift.fitted(KINDS[0]), compiled_library)


def test_without_the_library_there_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(CompiledUnavailable, match="was not built"):
        SlateEncoder(fitted_shop(), tmp_path / "nothing.so")


def test_arrays_outlive_the_encoder_and_the_request(compiled_library: Path) -> None:
    found = BothWays(fitted_shop(), compiled_library).compiled({"candidates": ["a", "b"]}, history(random.Random(2)))
    assert found is not None
    again = BothWays(fitted_shop(), compiled_library).compiled({"candidates": ["a", "b"]}, history(random.Random(2)))
    assert again is not None
    for name, array in found.inputs.items():
        np.testing.assert_array_equal(array, again.inputs[name])

"""What single features hold, against values worked out by hand."""

from typing import Any

import numpy as np
import pytest

from bundle.behaviours import Behaviours, records
from bundle.columns import Rows, raw_column
from bundle.encode import Encoder
from bundle.errors import FeatureError
from bundle.fitting import FitColumns, FittedSchema, fit
from bundle.ids import id64, id64_column, mix
from bundle.schema import FeatureSchema
from tests.bundle.samples import ITEMS, declaration, fitted_shop, item_columns, random_rows

ITEM = {"name": "item_id", "side": "candidate", "kind": "id"}
GENRE = {"name": "genre", "side": "candidate", "kind": "id", "max_values": 2, "sep": "|"}
RAW = {"type": "none"}


def history(*events: tuple[str, float, str | None, float]) -> Any:
    items, ts, types, values = zip(*events, strict=True) if events else ((), (), (), ())
    return records(list(items), list(ts), list(types), list(values))


def rows_of(time: float, items: list[str], events: Any, user: Any = None, candidate: Any = None) -> Rows:
    return Rows(
        np.array([time]), id64_column(items)[None], Behaviours.from_events([events]), user or {}, candidate or {}
    )


def fitted_with(*features: dict[str, Any], rows: Rows | None = None) -> FittedSchema:
    schema = FeatureSchema.from_toml(declaration([ITEM, GENRE, *features]))
    train = rows or rows_of(1000.0, ["a"], history(("b", 10, "click", 7.0)))
    return fit(schema, FitColumns(train, id64_column(list(ITEMS)), item_columns(schema)))


EVENTS = history(
    ("a", 100, "rate", 1.0), ("b", 3700, "click", np.nan), ("d", 7300, "rate", 5.0), ("a", 10_900, "rate", 3.0)
)
# genres: a = x|y, b = y, d = z|x (its third is cut by max_values = 2)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"stat": "count"}, 4),
        ({"stat": "mean"}, (1 + 5 + 3) / 3),
        ({"stat": "std"}, np.std([1, 5, 3])),
        ({"stat": "last_k_mean", "k": 2}, (5 + 3) / 2),
        ({"stat": "seconds_since"}, 14_500 - 10_900),
        ({"stat": "per_hour"}, 4 / ((14_500 - 100) / 3600)),
        (
            {"stat": "decayed_mean", "half_life_days": 1 / 24},
            (1 * 0.5**3 + 5 * 0.5 + 3) / (0.5**3 + 0.5 + 1),
        ),
        ({"stat": "count", "where": {"types": ["rate"]}}, 3),
        ({"stat": "count", "where": {"min_value": 3}}, 2),
        ({"stat": "count", "where": {"max_value": 3}}, 2),
        ({"stat": "mean", "where": {"min_value": 3, "types": ["rate"]}}, (5 + 3) / 2),
        ({"stat": "count", "match": "item"}, 2),
        ({"stat": "share", "match": "item"}, 2 / 4),
        ({"stat": "mean", "match": "item"}, (1 + 3) / 2),
        ({"stat": "count", "match": "genre"}, 4),
        ({"stat": "mean", "match": "genre"}, (1 + 5 + 3) / 3),  # the click agrees and has no value
        ({"stat": "mean", "match": "genre", "where": {"types": ["rate"]}}, 3),
    ],
)
def test_history_numbers(declared: dict[str, Any], expected: float) -> None:
    fitted = fitted_with({"name": "f", "kind": "history", "encoder": RAW, **declared})
    arrays = Encoder(fitted).encode(rows_of(14_500.9, ["a"], EVENTS)).take()
    side = "candidate_numbers" if "match" in declared else "user_numbers"
    np.testing.assert_allclose(arrays[side].ravel(), [expected], rtol=1e-6)


def test_agreement_overlaps_and_ignores_missing_and_unknown() -> None:
    fitted = fitted_with({"name": "f", "kind": "history", "encoder": RAW, "stat": "count", "match": "genre"})
    encoder = Encoder(fitted)
    # b = y agrees with a and b; c has no genre; e = w agrees with none (d's w was cut); unlisted items have none.
    counts = encoder.encode(rows_of(14_500, ["b", "c", "e", "unlisted"], EVENTS)).take()["candidate_numbers"]
    assert counts.ravel().tolist() == [3, 0, 0, 0]
    given = raw_column(fitted.schema.named("genre"), [["z", "new"], None, ["new"], ["x"]])[None]  # type: ignore[arg-type]
    rows = rows_of(14_500, ["b", "c", "e", "unlisted"], EVENTS, candidate={"genre": given})
    assert encoder.encode(rows).take()["candidate_numbers"].ravel().tolist() == [1, 0, 0, 3]
    # A missing value overrides nothing: b keeps the genre of the item table.
    none = raw_column(fitted.schema.named("genre"), [None, ["y"], None, None])[None]  # type: ignore[arg-type]
    rows = rows_of(14_500, ["b", "c", "e", "unlisted"], EVENTS, candidate={"genre": none})
    assert encoder.encode(rows).take()["candidate_numbers"].ravel().tolist() == [3, 3, 0, 0]


def test_agreement_with_many_values_equals_bit_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    feature = {"name": "f", "kind": "history", "encoder": RAW, "stat": "mean", "match": "genre", "missing_flag": True}
    rng = np.random.default_rng(0)
    as_bits = fitted_with(feature)
    rows = random_rows(as_bits.schema, rng, 20, 4)
    expected = Encoder(as_bits).encode(rows).take()["candidate_numbers"]
    monkeypatch.setattr("bundle.items._BITS", 0)
    as_ids = fitted_with(feature)
    assert as_ids.items.matches["genre"].bits is None
    assert as_bits.items.matches["genre"].bits is not None
    np.testing.assert_array_equal(Encoder(as_ids).encode(rows).take()["candidate_numbers"], expected)


def test_walking_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = fitted_shop()
    rows = random_rows(fitted.schema, np.random.default_rng(4), 15, 3)
    expected = Encoder(fitted).encode(rows).take()
    monkeypatch.setattr("bundle.history_stats._CHUNK", 3)  # less than one history: a chunk is never empty
    for name, array in Encoder(fitted).encode(rows).take().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_empty_history_counts_zero_and_the_rest_is_missing() -> None:
    stats = [
        {"stat": "count"},
        {"stat": "mean"},
        {"stat": "seconds_since"},
        {"stat": "per_hour"},
        {"stat": "count", "match": "item"},
        {"stat": "share", "match": "item"},
        {"stat": "mean", "match": "item"},
    ]
    features = [
        {"name": f"f{n}", "kind": "history", "missing_flag": True, "encoder": RAW, **stat}
        for n, stat in enumerate(stats)
    ]
    train = Rows(
        np.array([500.0, 500.0]),
        id64_column(["a", "b"])[:, None],
        Behaviours.from_events([history(("a", 100, None, 4.0)), history()]),
    )
    encoder = Encoder(fitted_with(*features, rows=train))
    arrays = encoder.encode(rows_of(500, ["a"], history())).take()
    assert arrays["user_numbers"][0, 1::2].tolist() == [0, 1, 1, 1]
    assert arrays["candidate_numbers"][0, 0, 1::2].tolist() == [0, 0, 1]
    # Missing takes the training mean: 4 is the only known mean, 400 the only time since.
    assert arrays["user_numbers"][0, 0::2].tolist() == [0, 4, 400, 9]
    assert arrays["behaviour_mask"].tolist() == [[[False]]]


def test_same_second_behaviours_do_not_see_each_other() -> None:
    fitted = fitted_with({"name": "f", "kind": "history", "encoder": RAW, "stat": "count"})
    burst = history(("a", 99, None, 1), ("b", 100, None, 1), ("d", 100, None, 1))
    arrays = Encoder(fitted).encode(rows_of(100.7, ["a"], burst)).take()
    assert arrays["user_numbers"].tolist() == [[1.0]]


def test_only_the_newest_thousand_behaviours_count() -> None:
    fitted = fitted_with({"name": "f", "kind": "history", "encoder": RAW, "stat": "count"})
    many = records(["a"] * 1500, np.arange(1500) + 1.0)
    assert Encoder(fitted).encode(rows_of(1400, ["a"], many)).take()["user_numbers"].tolist() == [[1000.0]]


def test_sequences_keep_the_newest_after_the_filter() -> None:
    seq = {"kind": "sequence", "max_len": 2, "where": {"types": ["rate"]}, "encoder": RAW}
    fitted = fitted_with(
        {"name": "h", **seq, "of": "item", "encoder": {"type": "vocab"}},
        {"name": "v", **seq, "of": "value"},
        {"name": "t", **seq, "of": "age"},
        {"name": "gap", **seq, "of": "gap", "missing_flag": True},
        rows=rows_of(14_500, ["a"], EVENTS),
    )
    arrays = Encoder(fitted).encode(rows_of(14_500, ["a"], EVENTS)).take()
    table = fitted.id_tables["item_id"]
    assert arrays["behaviour_ids"][0, :, 0].tolist() == table.lookup(id64_column(["d", "a"])).tolist()
    assert arrays["behaviour_numbers"][0, :, 0].tolist() == [5.0, 3.0]
    assert arrays["behaviour_numbers"][0, :, 1].tolist() == [7200.0, 3600.0]
    # The gap reaches back to the behaviour that max_len cut: it happened, it is only not shown.
    assert arrays["behaviour_numbers"][0, :, 2].tolist() == [7200.0, 3600.0]
    assert arrays["behaviour_numbers"][0, :, 3].tolist() == [0.0, 0.0]
    first = Encoder(fitted).encode(rows_of(10_000, ["a"], EVENTS)).take()["behaviour_numbers"][0]
    assert first[:, 3].tolist() == [1.0, 0.0]


def test_buckets_put_a_boundary_into_the_upper_interval() -> None:
    seq = {"kind": "sequence", "max_len": 5, "of": "value", "encoder": {"type": "bucket", "boundaries": [2, 4]}}
    fitted = fitted_with({"name": "v", **seq})
    events = history(("a", 1, None, 1.9), ("a", 2, None, 2), ("a", 3, None, 4), ("a", 4, None, np.nan))
    arrays = Encoder(fitted).encode(rows_of(10, ["a"], events)).take()
    assert arrays["behaviour_ids"][0, :, 0].tolist() == [2, 3, 4, 1]
    assert fitted.tables()["v"] == 5


def test_id_zero_one_and_real() -> None:
    fitted = fitted_with({"name": "h", "kind": "sequence", "of": "item", "max_len": 3})
    encoded = Encoder(fitted).encode(rows_of(1000, ["a", "never", "b"], history(("b", 1, None, 1))))
    arrays = encoded.take(trim=False)
    ids = arrays["candidate_ids"][0, :, 0]
    assert ids[1] == 1
    assert ids[0] >= 2
    assert ids[2] >= 2
    assert ids[2] == arrays["behaviour_ids"][0, 0, 0]
    assert arrays["behaviour_ids"][0, 1:].tolist() == [[0], [0]]
    assert encoded.unseen["item_id"] == 1


def test_hash_encoder_takes_the_mixed_hash() -> None:
    feature = {"name": "zip", "side": "user", "kind": "id", "encoder": {"type": "hash", "buckets": 97, "seed": 5}}
    schema = FeatureSchema.from_toml(declaration([ITEM, feature]))
    train = rows_of(10, ["a"], history(), user={"zip": id64_column(["1000"])})
    fitted = fit(schema, FitColumns(train))
    encoder = Encoder(fitted)
    for value in ("1000", "never seen"):
        ids = encoder.encode(rows_of(10, ["a"], history(), user={"zip": id64_column([value])})).take()["user_ids"]
        assert ids[0, 0] == int(mix(np.array([id64(value)], np.uint64), 5)[0]) % 97 + 2
    missing = encoder.encode(rows_of(10, ["a"], history()))
    assert missing.take()["user_ids"].tolist() == [[1]]
    assert missing.missing == ("zip",)
    assert fitted.tables()["zip"] == 99


def test_several_values_pad_with_zero_and_keep_the_first() -> None:
    fitted = fitted_shop()
    encoder = Encoder(fitted)
    schema = fitted.schema
    tags = raw_column(schema.named("tags"), ["1,2,3", "1", "", None, "1,never"])  # type: ignore[arg-type]
    rows = Rows(np.full(5, 100.0), id64_column(["a"] * 5)[:, None], Behaviours.empty(5), {"tags": tags})
    encoded = encoder.encode(rows)
    one, two = fitted.id_tables["tags"].lookup(id64_column(["1", "2"])).tolist()
    columns = next(f for f in fitted.layout.user_ids if f.name == "tags").column
    assert encoded.take()["user_ids"][:, columns : columns + 2].tolist() == [
        [one, two],
        [one, 0],
        [1, 0],
        [1, 0],
        [one, 1],
    ]
    assert encoded.unseen["tags"] == 1


def test_candidate_values_override_the_item_table_where_given() -> None:
    fitted = fitted_shop()
    price = np.array([[7.0, np.nan]])
    rows = rows_of(100, ["a", "b"], history(), candidate={"price": price})
    column = next(f for f in fitted.layout.candidate_numbers if f.name == "price").column
    got = Encoder(fitted).encode(rows).take()["candidate_numbers"][0, :, column]
    np.testing.assert_array_equal(got, fitted.scalers["price"].encode(np.array([7.0, 2.5])))


def test_wrong_columns_are_named() -> None:
    encoder = Encoder(fitted_shop())
    wrong = {"age": np.array([1], dtype=np.int64), "hour": np.array([1.0]), "nobody": np.array([1.0])}
    with pytest.raises(FeatureError) as caught:
        encoder.encode(rows_of(100, ["a"], history(), user=wrong))
    assert {problem.pointer for problem in caught.value.problems} == {"/age", "/hour", "/nobody"}
    with pytest.raises(FeatureError, match="side 'user'"):
        encoder.encode(rows_of(100, ["a"], history(), candidate={"age": np.array([[1.0]])}))


def test_extreme_numbers_stay_finite() -> None:
    encoder = Encoder(fitted_shop())
    for value in (1e308, -1e308, 5e-324, np.nan):
        user = {"age": np.array([value])}
        candidate = {"rank": np.array([[value]]), "price": np.array([[value]])}
        arrays = encoder.encode(rows_of(4e9, ["a"], EVENTS, user, candidate)).take()
        for name, array in arrays.items():
            assert np.isfinite(array.astype(np.float64)).all(), name
            assert np.abs(array.astype(np.float64)).max(initial=0) < 1e10


def test_negative_sampling_columns_follow_from_the_item() -> None:
    fitted = fitted_shop()
    rows = fitted.items.rows(id64_column(["b", "unlisted"]))
    ids, of_item = fitted.items.behaviour_columns(rows[None])
    names = [f.name for f in fitted.layout.behaviour_ids for _ in range(f.width)]
    assert ids.shape == (1, 2, len(names))
    assert [name for name, known in zip(names, of_item, strict=True) if not known] == [
        "h_type",
        "liked_gap",
        "liked_age",
    ]
    behaved = Encoder(fitted).encode(rows_of(500, ["a"], history(("b", 100, "click", 5.0)))).take()
    np.testing.assert_array_equal(ids[0, 0][of_item], behaved["behaviour_ids"][0, 0][of_item])
    assert rows.tolist()[1] == -1


def test_an_item_that_is_not_listed_keeps_its_row_of_the_vocabulary() -> None:
    sequence = {"name": "past", "kind": "sequence", "of": "item", "max_len": 3, "table": "item_id"}
    train = rows_of(1000.0, ["unlisted"], history(("b", 10, None, np.nan), ("gone", 20, None, np.nan)))
    fitted = fitted_with(sequence, rows=train)
    known = fitted.vocabularies["item_id"].tolist()
    events = history(("gone", 10, None, np.nan), ("b", 20, None, np.nan), ("never", 30, None, np.nan))
    encoded = Encoder(fitted).encode(rows_of(1000.0, ["unlisted", "b", "a", "never"], events))

    def rows(*items: str) -> list[int]:
        codes = id64_column(list(items)).tolist()
        return [known.index(code) + 2 if code in known else 1 for code in codes]

    arrays = encoded.take()
    assert arrays["candidate_ids"][0, :, 0].tolist() == rows("unlisted", "b", "a", "never")
    assert arrays["behaviour_ids"][0, :, 0].tolist() == rows("gone", "b", "never")
    assert rows("unlisted", "gone", "never") != [1, 1, 1]
    assert encoded.unseen["item_id"] == rows("unlisted", "b", "a", "never").count(1)

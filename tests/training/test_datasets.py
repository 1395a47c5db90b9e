import dataclasses
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bundle.encode import Encoder
from bundle.fitting import fit
from bundle.ids import id64
from tests.training.shop import shop_log, shop_mapping, write_shop
from training.config import SamplingSection, TrainingConfig, load_config
from training.datasets import Dataset, load_dataset
from training.datasets.sampling import kept_rows
from training.errors import DataError

RATED = Path(__file__).parents[2] / "configs" / "movielens-100k-rated.toml"


def load_shop(folder: Path, mapping: dict[str, Any]) -> Dataset:
    return load_dataset(TrainingConfig.from_mapping(mapping, folder=folder))


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write_shop(tmp_path, shop_log())
    return tmp_path


# Files of one's own


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_csv_and_parquet_give_the_same_data_set(tmp_path: Path, shop: Path, suffix: str) -> None:
    write_shop(tmp_path, shop_log(), suffix)
    text, binary = load_shop(tmp_path, shop_mapping(suffix)), load_shop(shop, shop_mapping())
    assert text.fingerprint == binary.fingerprint


def test_compressed_csv_is_read(shop: Path) -> None:
    rows = shop_log()["rows"].write_csv()
    (shop / "rows.csv.gz").write_bytes(gzip.compress(rows.encode()))
    assert load_shop(shop, shop_mapping(rows="rows.csv.gz")).fingerprint == load_shop(shop, shop_mapping()).fingerprint


def test_only_declared_columns_are_read(shop: Path) -> None:
    dataset = load_shop(shop, shop_mapping())
    assert "buy" not in dataset.rows.columns
    assert dataset.items is not None
    assert dataset.items.columns == ["item_id", "genre"]


def test_the_data_set_can_be_fitted_and_encoded(shop: Path) -> None:
    dataset = load_shop(shop, shop_mapping())
    encoded = Encoder(fit(dataset.features, dataset.fit_columns())).encode(dataset.columns("test"))
    batch = encoded.take()
    assert batch["candidate_ids"].shape == (len(dataset.part("test")), 1, 2)
    assert batch["behaviour_mask"].any()
    assert encoded.missing == ()


def test_fingerprint_follows_content(shop: Path) -> None:
    before = load_shop(shop, shop_mapping()).fingerprint
    tables = shop_log()
    write_shop(shop, {"rows": tables["rows"].select(sorted(tables["rows"].columns))})
    assert load_shop(shop, shop_mapping()).fingerprint == before
    write_shop(shop, {"items": tables["items"].with_columns(genre=pl.col("genre").replace({"g0": "g1"}))})
    assert load_shop(shop, shop_mapping()).fingerprint != before


def test_item_columns_may_live_in_the_rows(shop: Path) -> None:
    tables = shop_log()
    genre = tables["items"].with_columns(pl.col("item_id").cast(pl.Int64))
    write_shop(shop, {"rows": tables["rows"].join(genre, on="item_id", how="left", maintain_order="left")})
    apart, inside = load_shop(shop, shop_mapping()), load_shop(shop, shop_mapping(items=None))
    assert np.array_equal(apart.item_ids, inside.item_ids)
    known = np.isin(inside.item_ids, inside.columns("train").items)
    assert np.array_equal(apart.item_columns["genre"][known], inside.item_columns["genre"][known])
    assert inside.columns("test").candidate["genre"].shape == (len(inside.part("test")), 1)


def test_users_missing_from_their_table_are_counted(shop: Path) -> None:
    write_shop(shop, {"users": shop_log()["users"].filter(pl.col("user_id") != "u3")})
    dataset = load_shop(shop, shop_mapping())
    assert dataset.notes == {"users without a row in the user table": 1}
    assert np.isnan(dataset.whole.rows.user["age"][(dataset.whole.user_ids == "u3").to_numpy()]).all()


def test_a_split_column_is_taken(shop: Path) -> None:
    rows = shop_log()["rows"]
    part = pl.Series("part", ["train", "valid", "test"] * (len(rows) // 3))
    write_shop(shop, {"rows": rows.with_columns(part)})
    dataset = load_shop(shop, shop_mapping(split="part"))
    assert [len(dataset.part(name)) for name in ("train", "valid", "test")] == [200, 200, 200]  # type: ignore[arg-type]


def test_dates_and_milliseconds_are_times(shop: Path) -> None:
    expected = load_shop(shop, shop_mapping()).fingerprint
    tables = shop_log()
    millis = {name: tables[name].with_columns(pl.col("ts") * 1000) for name in ("rows", "events")}
    write_shop(shop, millis)
    assert load_shop(shop, shop_mapping(time_unit="ms")).fingerprint == expected
    dates = {name: frame.with_columns(pl.from_epoch("ts", time_unit="ms")) for name, frame in millis.items()}
    write_shop(shop, dates)
    assert load_shop(shop, shop_mapping()).fingerprint == expected


def spoil(table: str, column: str, value: Any, row: int = 4) -> dict[str, pl.DataFrame]:
    """The shop with one cell replaced (its column takes the type of the value)."""
    frame = shop_log()[table]
    values = frame[column].to_list()
    values[row] = value
    return {table: frame.with_columns(pl.Series(column, values, strict=False))}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"rows": shop_log()["rows"].with_columns(pl.col("item_id").cast(pl.Float64))}, "column 'item_id', row 1: ids"),
        ({"rows": shop_log()["rows"].with_columns(pl.col("item_id") > 3)}, "column 'item_id', row 1: ids"),
        (spoil("rows", "click", 2), "column 'click', row 5: a label must be 0 or 1"),
        (spoil("rows", "click", float("nan")), "column 'click', row 5: must not be NaN"),
        (spoil("rows", "click", None), "column 'click', row 5: is empty"),
        (spoil("rows", "user_id", None), "column 'user_id', row 5: is empty"),
        (spoil("rows", "ts", -1), "column 'ts', row 5: must lie in"),
        (spoil("rows", "ts", 1_700_000_000_000), "data.time_unit"),
        (spoil("rows", "price", float("inf")), "column 'price', row 5: must be finite"),
        ({"rows": shop_log()["rows"].drop("click")}, "there is no column 'click' (label.ctr)"),
        ({"rows": shop_log()["rows"].rename({"hour": "hours"})}, "column 'hour' (a feature), did you mean hours?"),
        (spoil("items", "item_id", 3, row=9), "column 'item_id', row 10: '3' is listed twice"),
        ({"events": shop_log()["events"].drop("paid")}, "there is no column 'paid' (the value of a behaviour)"),
        ({"rows": shop_log()["rows"].head(0)}, "there are no rows"),
        ({"rows": shop_log()["rows"].head(2)}, "leaves no rows in"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(shop: Path, tables: dict[str, pl.DataFrame], message: str) -> None:
    write_shop(shop, tables)
    with pytest.raises(DataError) as caught:
        load_shop(shop, shop_mapping())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.col("price").cast(pl.String).replace({"0.5": "cheap"}), "is not a number (got 'cheap')"),
        (pl.format("{}.0", "item_id").alias("item_id"), "looks like a float"),
    ],
)
def test_csv_cells_are_checked_too(tmp_path: Path, change: pl.Expr, message: str) -> None:
    tables = shop_log()
    tables["rows"] = tables["rows"].with_columns(pl.lit(0.5).alias("price")).with_columns(change)
    write_shop(tmp_path, tables, "csv")
    with pytest.raises(DataError) as caught:
        load_shop(tmp_path, shop_mapping("csv"))
    assert message in str(caught.value)


def test_ids_of_csv_files_keep_their_zeros(tmp_path: Path) -> None:
    tables = shop_log()
    zeros = pl.format("00{}", "item_id").alias("item_id")
    tables = {
        name: frame.with_columns(zeros) if "item_id" in frame.columns else frame for name, frame in tables.items()
    }
    write_shop(tmp_path, tables, "csv")
    assert load_shop(tmp_path, shop_mapping("csv")).part("train").item_ids.str.starts_with("00").all()


@pytest.mark.parametrize("name", ["rows.xlsx", "none.parquet", "torn.parquet"])
def test_unreadable_files_are_data_errors(shop: Path, name: str) -> None:
    (shop / "rows.xlsx").write_bytes(b"")
    (shop / "torn.parquet").write_bytes(b"PAR1torn")
    with pytest.raises(DataError, match=name):
        load_shop(shop, shop_mapping(rows=name))


def test_a_second_task_may_lack_labels(shop: Path) -> None:
    rows = shop_log()["rows"].with_columns(buy=pl.when(pl.col("click") == 1).then("buy"))
    write_shop(shop, {"rows": rows})
    dataset = load_shop(shop, {**shop_mapping(), "label": {"ctr": "click", "cvr": "buy"}})
    part = dataset.part("train")
    assert np.array_equal(np.isnan(part.labels["cvr"]), part.labels["ctr"] == 0)


def test_weights_are_read(shop: Path) -> None:
    dataset = load_shop(shop, {**shop_mapping(), "weight": {"ctr": "price"}})
    assert dataset.part("test").weights["ctr"] == pytest.approx(dataset.frame("test")["price"].to_list())


# Histories inside the rows

HISTORY = {"item": "h_item", "time": "h_ts", "value": "h_paid", "type": "h_kind"}


def with_lists(rows: pl.DataFrame) -> pl.DataFrame:
    """Every row with two earlier behaviours and one in its own second."""
    ts = pl.col("ts")
    return rows.with_columns(
        h_item=pl.concat_list(pl.lit("1"), pl.lit("2"), pl.lit("3")),
        h_ts=pl.concat_list(ts - 20, ts - 10, ts),
        h_paid=pl.concat_list(pl.lit(1.0), pl.lit(None, dtype=pl.Float64), pl.lit(3.0)),
        h_kind=pl.concat_list(pl.lit("view"), pl.lit(None, dtype=pl.String), pl.lit("buy")),
    )


def test_lists_in_the_rows_drop_and_count_what_is_not_earlier(shop: Path) -> None:
    rows = with_lists(shop_log()["rows"])
    write_shop(shop, {"rows": rows})
    dataset = load_shop(shop, shop_mapping(events=None, event_type=None, event_value=None, history=HISTORY))
    assert dataset.notes == {"behaviours at or after their row's time, dropped": len(rows)}
    assert set(dataset.behaviours.lengths) == {2}
    first = dataset.behaviours.events[dataset.behaviours.start[0] : dataset.behaviours.stop[0]]
    assert first["item"].tolist() == [id64("1"), id64("2")]
    assert first["value"][0] == 1.0
    assert np.isnan(first["value"][1])
    assert first["type"][1] == 0


def test_lists_as_text_equal_real_lists(shop: Path, tmp_path: Path) -> None:
    rows = with_lists(shop_log()["rows"])
    write_shop(shop, {"rows": rows})
    text = pl.col("h_item", "h_ts", "h_paid", "h_kind").cast(pl.List(pl.String)).list.eval(pl.element().fill_null(""))
    rows.with_columns(text.list.join("|")).write_csv(shop / "rows.csv")
    none = {"events": None, "event_type": None, "event_value": None, "history": HISTORY}
    as_lists, as_text = load_shop(shop, shop_mapping(**none)), load_shop(shop, shop_mapping(rows="rows.csv", **none))
    assert np.array_equal(as_lists.behaviours.lengths, as_text.behaviours.lengths)
    for field in ("item", "ts", "type"):
        assert np.array_equal(as_lists.behaviours.events[field], as_text.behaviours.events[field])
    assert np.array_equal(as_lists.behaviours.events["value"], as_text.behaviours.events["value"], equal_nan=True)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"h_ts": [[30, 10, 20]]}, "column 'h_ts', row 8: the history must be oldest first"),
        ({"h_ts": [[10, 20]]}, "column 'h_ts', row 8: holds 2 values but 'h_item' 3"),
        ({"h_item": [["1", None, "2"]]}, "column 'h_item', row 8: is empty"),
    ],
)
def test_malformed_histories_are_named(shop: Path, lists: dict[str, Any], message: str) -> None:
    rows = with_lists(shop_log()["rows"])
    for name, value in lists.items():
        column = rows[name].to_list()
        column[7] = value[0]
        rows = rows.with_columns(pl.Series(name, column))
    write_shop(shop, {"rows": rows})
    with pytest.raises(DataError) as caught:
        load_shop(shop, shop_mapping(events=None, event_type=None, event_value=None, history=HISTORY))
    assert message in str(caught.value)


# Negative down-sampling


def test_down_sampling_keeps_positives_and_a_share_of_the_negatives(shop: Path) -> None:
    dataset = load_shop(shop, shop_mapping())
    whole = dataset.part("train")
    sampling = SamplingSection(negative_rate=0.5, mode="serving")
    part, again = dataset.training_part(sampling, seed=1), dataset.training_part(sampling, seed=1)
    assert part.user_ids.equals(again.user_ids)
    assert part.labels["ctr"].sum() == whole.labels["ctr"].sum()
    negatives = (whole.labels["ctr"] == 0).sum()
    assert (part.labels["ctr"] == 0).sum() == pytest.approx(negatives / 2, abs=4 * np.sqrt(negatives / 4))
    assert part.negative_rate is not None
    assert set(part.negative_rate["ctr"]) == {0.5}
    assert len(dataset.training_part(sampling, seed=2)) != 0


def test_a_higher_rate_keeps_a_superset() -> None:
    labels = np.zeros(1000, dtype=np.float32)
    assert set(kept_rows(labels, 0.2, 3)) < set(kept_rows(labels, 0.6, 3))


def test_upstream_sampling_drops_nothing(shop: Path) -> None:
    dataset = load_shop(shop, shop_mapping())
    part = dataset.training_part(SamplingSection(negative_rate=0.1, mode="training", upstream=True), seed=0)
    assert len(part) == len(dataset.part("train"))
    assert part.negative_rate is not None
    assert set(part.negative_rate["ctr"]) == {np.float32(0.1)}


def test_without_history_empties_every_history(shop: Path) -> None:
    part = load_shop(shop, shop_mapping()).part("valid")
    assert part.rows.behaviours.lengths.sum() > 0
    emptied = part.without_history()
    assert emptied.rows.behaviours.lengths.sum() == 0
    kept = {field.name for field in dataclasses.fields(part)} - {"rows"}
    assert all(getattr(emptied, name) is getattr(part, name) for name in kept)


# The example of the repository


def test_the_example_configuration_reads_files_of_its_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    users, items = random.integers(0, 20, 400), random.integers(0, 30, 400)
    times = pl.from_epoch(pl.Series(1_700_000_000 + np.arange(400) * 60), time_unit="s")
    seen = pl.DataFrame({"user_id": users, "item_id": items, "ts": times})
    tables = {
        "rows": seen.with_columns(
            click=pl.Series(random.integers(0, 2, 400)),
            hour=pl.col("ts").dt.hour(),
            price=pl.Series(random.random(400)),
        ),
        "items": pl.DataFrame(
            {
                "item_id": range(30),
                "category": [f"c{item % 4}" for item in range(30)],
                "tags": [f"t{item % 3}|t{item % 5}" for item in range(30)],
            }
        ),
        "users": pl.DataFrame({"user_id": range(20), "age": [None, *range(20, 39)], "city": ["x", "y"] * 10}),
        "events": seen.with_columns(action=pl.lit("view"), dwell_seconds=pl.Series(random.random(400))),
    }
    write_shop(tmp_path, tables)
    (tmp_path / "example.toml").write_text(RATED.with_name("example-parquet.toml").read_text())
    dataset = load_dataset(load_config(tmp_path / "example.toml"))
    encoded = Encoder(fit(dataset.features, dataset.fit_columns())).encode(dataset.columns("test"))
    assert encoded.missing == ()
    assert encoded.take()["behaviour_mask"].any()
    assert dataset.item_columns["tags"].shape == (30, 5)

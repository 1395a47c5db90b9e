"""Files as columns: what cannot be used is named with file, column and row."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from cli import tables
from cli.batch.cells import Ragged
from cli.exits import InputProblem

FILE = Path("events.parquet")


def test_ids_of_a_csv_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("user_id,item_id,age\n007,1,3\n8,2,4\n")
    frame = tables.read_table(path, text=("user_id", "item_id", "absent"))
    assert tables.text_ids(frame, "user_id", path).to_list() == ["007", "8"]
    assert frame["age"].to_list() == [3, 4]


def test_whole_numbers_of_a_parquet_file_become_decimal_text() -> None:
    assert tables.text_ids(pl.DataFrame({"user_id": [7, 12]}), "user_id", FILE).to_list() == ["7", "12"]


@pytest.mark.parametrize("values", [[1.0, 2.0], [True, False], [[1], [2]]])
def test_floats_and_truth_values_are_no_ids(values: list[object]) -> None:
    with pytest.raises(InputProblem, match=r"events\.parquet: column user_id"):
        tables.text_ids(pl.DataFrame({"user_id": values}), "user_id", FILE)


@pytest.mark.parametrize("missing", [None, ""])
def test_a_missing_id_is_named_with_its_row(missing: str | None) -> None:
    with pytest.raises(InputProblem, match=r"column user_id, row 2"):
        tables.text_ids(pl.DataFrame({"user_id": ["a", missing]}), "user_id", FILE)


def test_times_may_be_dates() -> None:
    moment = datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    assert tables.seconds(pl.DataFrame({"ts": [moment]}), "ts", FILE).to_list() == [1e9]


@pytest.mark.parametrize("wrong", [None, float("nan"), float("inf"), -1.0])
def test_a_wrong_time_is_named_with_its_row(wrong: float | None) -> None:
    with pytest.raises(InputProblem, match=r"column ts, row 3"):
        tables.seconds(pl.DataFrame({"ts": [1.0, 2.0, wrong]}), "ts", FILE)


def test_text_is_no_time() -> None:
    with pytest.raises(InputProblem, match=r"column ts: expected seconds"):
        tables.seconds(pl.DataFrame({"ts": ["now"]}), "ts", FILE)


def test_numbers_may_be_missing_but_not_infinite() -> None:
    frame = pl.DataFrame({"value": [1.5, None, float("nan")]})
    assert tables.optional_numbers(frame, "value", FILE) == [1.5, None, None]
    with pytest.raises(InputProblem, match=r"column value, row 1"):
        tables.optional_numbers(pl.DataFrame({"value": [float("inf")]}), "value", FILE)


def test_a_missing_column_is_named_beside_those_there() -> None:
    with pytest.raises(InputProblem, match=r"column item_id is missing; it has user_id, ts"):
        tables.require_columns(["user_id", "ts"], ("user_id", "item_id"), FILE)


@pytest.mark.parametrize(("name", "content"), [("a.parquet", b"no parquet"), ("a.txt", b"user_id\n1\n")])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputProblem, match=name):
        tables.read_table(path)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson"])
def test_writing_leaves_the_old_file_or_the_new_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    tables.write_table(pl.DataFrame({"a": [1, 2], "history": [["x", "y"], []]}), path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    back = tables.read_table(path)
    assert back["a"].to_list() == [1, 2]
    found = Ragged.of(back["history"])
    assert (found.members.to_list(), found.lengths.tolist()) == (["x", "y"], [2, 0])

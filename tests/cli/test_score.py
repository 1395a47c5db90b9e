"""`ctrlift score`: rows in, the same rows out, with what the service's own code gives for them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import polars as pl
import pytest

from bundle.request import Behaviour, ScoreQuery, StoredUser
from service.behaviours import Event, open_store
from service.core.version import ServedVersion, load_version
from service.settings import load_settings
from tests.cli.running import assert_one_sentence, ctrlift
from tests.service import tiny_bundle

NOW = tiny_bundle.NOW
HISTORY = [("3", NOW - 30), ("4", NOW - 20), ("5", NOW - 10)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_bundle.publish(folder, "1.0.0")
    return folder


@pytest.fixture(scope="module")
def version(models: Path) -> ServedVersion:
    return load_version(models / "movies" / "1.0.0")


@pytest.fixture
def rows() -> pl.DataFrame:
    """Two blocks of user a (two moments), one of b, and again one of a."""
    return pl.DataFrame(
        {
            "user_id": ["a", "a", "a", "b", "b", "a"],
            "item_id": [1, 2, 3, 2, 40, 9],
            "ts": [NOW, NOW, NOW + 5, NOW, NOW, NOW],
            "age": [31.0, 31.0, 31.0, None, None, 31.0],
            "hour": [20, 20, 20, 8, 8, 20],
            "price": [9.5, 3.0, None, 2.0, 1.0, 7.0],
            "note": ["kept", "as", "it", "was", "in", "order"],
        }
    )


def with_history(rows: pl.DataFrame) -> pl.DataFrame:
    items, times = [item for item, _ in HISTORY], [ts for _, ts in HISTORY]
    lists = [items if user == "a" else [] for user in rows["user_id"]]
    moments = [times if user == "a" else [] for user in rows["user_id"]]
    return rows.with_columns(
        pl.Series("behaviour_item_id", lists, dtype=pl.List(pl.String)),
        pl.Series("behaviour_ts", moments, dtype=pl.List(pl.Int64)),
    )


def expected(version: ServedVersion, stored: StoredUser | None = None, *, lost: bool = False) -> list[float]:
    """The four blocks as four requests."""
    given = [Behaviour(item, ts) for item, ts in HISTORY] if stored is None and not lost else None
    none: list[Behaviour] | None = [] if given is not None else None
    age, blocks = {"age": 31.0}, []
    blocks.append((ScoreQuery("a", ["1", "2"], NOW, {"hour": 20}, age, {"price": [9.5, 3.0]}, given), stored))
    blocks.append((ScoreQuery("a", ["3"], NOW + 5, {"hour": 20}, age, {"price": [None]}, given), stored))
    blocks.append((ScoreQuery("b", ["2", "40"], NOW, {"hour": 8}, {}, {"price": [2.0, 1.0]}, none), None))
    blocks.append((ScoreQuery("a", ["9"], NOW, {"hour": 20}, age, {"price": [7.0]}, given), stored))
    found: list[float] = []
    for query, user in blocks:
        found += list(version.score(query, user, without_history=lost).probabilities["ctr"][0])
    return found


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_rows_with_their_own_history(
    tmp_path: Path, models: Path, version: ServedVersion, rows: pl.DataFrame, suffix: str
) -> None:
    from cli.tables import read_table, write_table

    write_table(with_history(rows), tmp_path / f"rows.{suffix}")
    out = tmp_path / f"scored.{suffix}"
    ran = ctrlift("score", tmp_path / f"rows.{suffix}", "--out", out, "--models", models, "--json", "--quiet")
    assert ran.code == 0, ran.err
    assert {key: ran.json[key] for key in ("rows", "blocks", "model", "version")} == {
        "rows": 6,
        "blocks": 4,
        "model": "movies",
        "version": "1.0.0",
    }
    scored = read_table(out)
    assert scored["note"].to_list() == rows["note"].to_list()
    assert scored["pctr"].to_list() == pytest.approx(expected(version), abs=1e-12)
    assert set(scored.columns) - set(with_history(rows).columns) == {"pctr", "pcvr", "pctcvr", "model", "version"}
    assert set(scored["version"]) == {"1.0.0"}


def test_histories_come_from_the_store(
    tmp_path: Path, models: Path, version: ServedVersion, rows: pl.DataFrame
) -> None:
    url = f"embedded://{tmp_path}/store"

    async def fill() -> StoredUser:
        store = open_store(load_settings(None, {"store": {"url": url}}).store)
        try:
            await store.append([Event("a", item, ts) for item, ts in HISTORY])
            await store.put_users([("a", {"occupation": "writer"})])
            data = (await store.read(["a"])).users[0]
            return StoredUser(data.behaviours, dict(data.features))
        finally:
            await store.close()

    stored = asyncio.run(fill())
    rows.write_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "scored.parquet"
    ran = ctrlift("score", tmp_path / "rows.parquet", "--out", out, "--models", models, "--store", url, "--quiet")
    assert ran.code == 0, ran.err
    assert pl.read_parquet(out)["pctr"].to_list() == pytest.approx(expected(version, stored), abs=1e-12)


def test_without_store_and_history_it_says_so_and_scores_as_the_service_without_its_store(
    tmp_path: Path, models: Path, version: ServedVersion, rows: pl.DataFrame
) -> None:
    rows.write_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "scored.parquet"
    ran = ctrlift("score", tmp_path / "rows.parquet", "--out", out, "--models", models, "--quiet")
    assert ran.code == 0, ran.err
    assert "without history" in ran.err
    assert pl.read_parquet(out)["pctr"].to_list() == pytest.approx(expected(version, lost=True), abs=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"price": [9.5, 3.0, 1.0, 2.0, float("inf"), 7.0]}, ("column price", "row 5")),
        ({"age": ["31", "31", "31", "x", "x", "31"]}, ("column age", "row 1")),
        ({"user_id": ["a", "a", None, "b", "b", "a"]}, ("column user_id", "row 3")),
        ({"item_id": [1.0, 2.0, 3.0, 2.0, 4.0, 9.0]}, ("column item_id",)),
        ({"pctr": [0.0] * 6}, ("column pctr",)),
        ({"behaviour_item_id": [["1"]] * 6}, ("behaviour_ts",)),
    ],
)
def test_wrong_values_name_file_column_and_row(
    tmp_path: Path, models: Path, rows: pl.DataFrame, change: dict[str, list[object]], words: tuple[str, ...]
) -> None:
    rows.with_columns(**{name: pl.Series(values) for name, values in change.items()}).write_parquet(
        tmp_path / "rows.parquet"
    )
    out = tmp_path / "scored.parquet"
    ran = ctrlift("score", tmp_path / "rows.parquet", "--out", out, "--models", models, "--quiet")
    assert ran.code == 3
    assert_one_sentence(ran, "rows.parquet", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_the_model_has_to_be_said_where_there_are_several(tmp_path: Path, rows: pl.DataFrame) -> None:
    rows.write_parquet(tmp_path / "rows.parquet")
    models = tmp_path / "models"
    arguments = ("score", tmp_path / "rows.parquet", "--out", tmp_path / "out.parquet", "--models", models, "--quiet")
    none = ctrlift(*arguments)
    assert none.code == 2
    assert_one_sentence(none, "no bundle")
    tiny_bundle.publish(models, "1.0.0", name="movies")
    tiny_bundle.publish(models, "1.0.0", name="books")
    several = ctrlift(*arguments)
    assert several.code == 2
    assert_one_sentence(several, "books, movies")
    assert ctrlift(*arguments, "--model", "books@1.0.0").code == 0
    unknown = ctrlift(*arguments, "--model", "films")
    assert unknown.code == 2
    assert_one_sentence(unknown, "films")

"""Scores of whole files: equal to one request after the other, in bounded parts, by any number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from bundle.loading import open_bundle
from bundle.request import Behaviour, ScoreQuery, StoredUser
from cli.batch import past, reading, slates
from cli.batch.scoring import Opening, score_chunk, scored
from cli.exits import CheckFailed, InputProblem
from service.core.version import ServedVersion
from tests.bundle import samples
from tests.cli.running import assert_one_sentence, ctrlift
from tests.service import tiny_bundle

NOW = 126.0
FILE = Path("rows.parquet")


class EveryInputCounts:
    """An engine whose logits depend on every input of their user and candidate, and on nothing else."""

    inputs: Mapping[str, str] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        mask = inputs["behaviour_mask"].any(axis=2)[..., None]
        sums = [
            (np.sin(inputs[name] + np.arange(inputs[name].shape[-1])) * (mask if "behaviour" in name else 1))
            .reshape(len(mask), inputs[name].shape[1] if "candidate" in name else 1, -1)
            .sum(axis=-1, keepdims=True)
            for name in sorted(inputs)
            if name != "behaviour_mask"
        ]
        steps = np.cos(np.arange(mask.shape[1]))[None, :, None] * mask  # the order of behaviours counts too
        sums.append((steps * np.sin(inputs["behaviour_ids"])).sum(axis=(1, 2))[:, None, None])
        return np.asarray(sum(sums), dtype=np.float32)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> ServedVersion:
    folder = tmp_path_factory.mktemp("shop")
    samples.write_shop(folder, samples.fitted_shop())
    return ServedVersion(open_bundle(folder), EveryInputCounts())  # type: ignore[arg-type]


def some(rng: np.random.Generator, values: list[Any], count: int) -> list[Any]:
    """Values and gaps."""
    return [None if rng.random() < 0.2 else values[rng.integers(len(values))] for _ in range(count)]


def random_frame(rng: np.random.Generator, *, histories: bool) -> pl.DataFrame:
    """Rows of few users at few times, so that runs of every length come up; any optional column may be absent."""
    rows = int(rng.integers(0, 60))
    columns: dict[str, pl.Series] = {
        "hour": pl.Series(some(rng, ["7", "20"], rows), dtype=pl.String),
        "age": pl.Series(some(rng, [31, 40.5], rows), dtype=pl.Float64),
        "tags": pl.Series(some(rng, [["1", "4"], [], ["2"]], rows), dtype=pl.List(pl.String)),
        "genre": pl.Series(some(rng, ["x|y", "w", "", "||z"], rows), dtype=pl.String),
        "price": pl.Series(some(rng, [1, 7], rows), dtype=pl.Int64),
        "rank": pl.Series(rng.normal(size=rows)),
        "ts": pl.Series(rng.integers(118, 121, rows)),
        "note": pl.Series(rng.normal(size=rows)),
    }
    kept = {name: column for name, column in columns.items() if rng.random() < 0.8}
    kept |= {
        "user_id": pl.Series(np.sort(rng.integers(0, 4, rows)) if rng.random() < 0.7 else rng.integers(0, 4, rows)),
        "item_id": pl.Series(rng.choice([*samples.ITEMS, "unlisted"], rows).tolist(), dtype=pl.String),
    }
    # A user's feature mostly does not change within a run.
    frame = pl.DataFrame(kept).with_columns(pl.col(n).first().over("user_id") for n in kept if n in {"hour", "age"})
    return frame.hstack(random_histories(rng, rows)) if histories else frame


def random_histories(rng: np.random.Generator, rows: int) -> list[pl.Series]:
    """A few histories that rows share, some without types and values, some not in order."""
    pool: list[dict[str, list[Any]]] = []
    for _ in range(3):
        count = int(rng.integers(0, 6))
        made: dict[str, list[Any]] = {
            past.ITEM: rng.choice([*samples.ITEMS, "new"], count).tolist(),
            past.TIME: rng.integers(100, 125, count).tolist(),
            past.TYPE: some(rng, ["click", "buy"], count) if rng.random() < 0.7 else [],
            past.VALUE: some(rng, [1.0, 4.0], count) if rng.random() < 0.7 else [],
        }
        pool.append(made)
    owner = np.sort(rng.integers(0, len(pool), rows))
    kinds = {past.ITEM: pl.String, past.TIME: pl.Int64, past.TYPE: pl.String, past.VALUE: pl.Float64}
    return [pl.Series(name, [pool[o][name] for o in owner], dtype=pl.List(kind)) for name, kind in kinds.items()]


def random_store(rng: np.random.Generator) -> dict[str, StoredUser]:
    """Some users, with features of the right type, of a wrong one, and of no interest."""
    features: list[dict[str, Any]] = [{"age": 50, "tags": ["1"]}, {"age": "old", "hour": "7"}, {"colour": "red"}, {}]
    known = [str(user) for user in range(4) if rng.random() < 0.8]
    return {user: StoredUser(samples.random_log(rng, int(rng.integers(0, 8))), features[int(user)]) for user in known}


def one_at_a_time(frame: pl.DataFrame, version: ServedVersion, stored: Mapping[str, StoredUser]) -> list[float]:
    """Each row as a request of its own."""
    sides = {feature.name: feature.side for feature in version.bundle.fitted.schema.feature if hasattr(feature, "side")}
    found = []
    for row in frame.iter_rows(named=True):
        of: dict[str, dict[str, Any]] = {"user": {}, "context": {}, "candidate": {}}
        for name, value in row.items():
            if name in sides and name not in {"user_id", "item_id"} and value is not None:
                of[sides[name]][name] = value
        query = ScoreQuery(
            user_id=str(row["user_id"]),
            candidates=[row["item_id"]],
            ts=row.get("ts", NOW),
            context=of["context"],
            user_features=of["user"],
            candidate_features={name: [value] for name, value in of["candidate"].items()},
            behaviours=behaviours_of(row) if past.ITEM in row else None,
        )
        found.append(float(version.score(query, stored.get(str(row["user_id"]))).probabilities["ctr"][0, 0]))
    return found


def behaviours_of(row: Mapping[str, Any]) -> list[Behaviour]:
    items = row[past.ITEM]
    kinds, values = (row[name] or [None] * len(items) for name in (past.TYPE, past.VALUE))
    return [Behaviour(*each) for each in zip(items, row[past.TIME], kinds, values, strict=True)]


@pytest.mark.parametrize("seed", range(40))
def test_blocks_of_users_give_what_each_row_alone_gives(
    shop: ServedVersion, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    histories = bool(rng.random() < 0.5)
    frame = random_frame(rng, histories=histories)
    stored = {} if histories else random_store(rng)
    if seed % 2:
        monkeypatch.setattr(slates, "LONGEST_SLATE", 3)
        monkeypatch.setattr(slates, "BLOCK_CELLS", 8)
    found = score_chunk(shop, slates.Chunk(frame, FILE, 0, NOW, stored), lost=False).columns
    expected = one_at_a_time(frame, shop, stored)
    np.testing.assert_allclose(found.get("pctr", np.empty(0)), expected, rtol=0, atol=1e-6)
    assert len(set(expected)) > 0.5 * len(frame), "scores that are all alike show nothing"


def slates_in(frame: pl.DataFrame, version: ServedVersion) -> slates.Slates:
    return slates.slates_of(slates.Chunk(frame, FILE, 0, NOW, {}), version.bundle.fitted.schema)


def impressions(users: list[str]) -> pl.DataFrame:
    """One row a user in the list, all with the same history."""
    past_items = pl.Series(past.ITEM, [["a", "b"]] * len(users))
    past_times = pl.Series(past.TIME, [[1, 2]] * len(users))
    return pl.DataFrame({"user_id": users, "item_id": ["a"] * len(users)}).hstack([past_items, past_times])


def test_rows_of_one_user_are_one_slate_and_slates_of_one_size_one_block(shop: ServedVersion) -> None:
    found = slates_in(impressions(["a", "a", "b", "c", "c", "a"]), shop)
    assert found.runs == 4
    blocks = [(rows.tolist(), len(block.behaviours.events)) for rows, block in found.blocks(3)]
    # Histories that are equal but belong to different users are kept apart; a block holds its own events only.
    assert blocks == [([[2], [5]], 4), ([[0, 1], [3, 4]], 4)]


def test_blocks_are_bounded_and_hold_every_row_once(shop: ServedVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slates, "LONGEST_SLATE", 4)
    monkeypatch.setattr(slates, "BLOCK_CELLS", 12)
    found = slates_in(impressions([*"aaaaaaaaa", *"bbbb", *"cdefghijk"]), shop)
    blocks = [rows for rows, _ in found.blocks(3)]
    assert sorted(np.concatenate([rows.reshape(-1) for rows in blocks]).tolist()) == list(range(22))
    assert all(rows.shape[1] <= 4 for rows in blocks)
    assert all(rows.size * 2 <= 12 or len(rows) == 1 for rows in blocks)


def test_a_history_that_many_rows_share_is_kept_once(shop: ServedVersion) -> None:
    stored = {"a": StoredUser(samples.random_log(np.random.default_rng(0), 7))}
    frame = pl.DataFrame({"user_id": ["a"] * 30, "item_id": ["b"] * 30, "ts": range(500, 530)})
    found = slates.slates_of(slates.Chunk(frame, FILE, 0, NOW, stored), shop.bundle.fitted.schema)
    ((rows, block),) = found.blocks(3)
    assert rows.shape == (30, 1)
    assert len(block.behaviours.events) == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"age": [1.0, None, float("nan"), 2.0]}, "column age, row 13: must be finite"),
        ({"age": [True, True, True, True]}, "column age, row 11: must be a number, got bool"),
        ({"hour": [None, 1.5, None, None]}, "column hour, row 12: must be a string, got float"),
        ({"tags": [["1"], ["1"], ["1", None], []]}, "column tags, row 13: must be a string, got null"),
        ({"rank": ["1", "2", "3", "4"]}, "column rank, row 11: must be a number, got str"),
        ({"price": [1.0, 2.0, 3.0, float("-inf")]}, "column price, row 14: must be finite"),
        ({"ts": [1.0, 2.0, 3.0, 2.0**32]}, "column ts, row 14: must be seconds in [0, 2^32)"),
        ({"ts": [1.0, 2.0, None, 4.0]}, "column ts, row 13: expected seconds since 1970"),
        ({"user_id": ["a", "", "c", "d"]}, "column user_id, row 12: the id is missing"),
        (
            {past.TIME: [[1, 2], [1], [1, 2], [1]]},
            "column behaviour_ts, row 12: 1 entries, but behaviour_item_id has 2",
        ),
        ({past.TIME: [[1, 2], [1, 2], [1, 2], [1, -2]]}, "column behaviour_ts, row 14: must be seconds"),
        ({past.TIME: [[1, 2], ["1", "x"], [1, 2], [1, 2]]}, "column behaviour_ts, row 12: must be a number, got str"),
        ({past.TIME: [[1, 2], [1, None], [1, 2], [1, 2]]}, "column behaviour_ts, row 12: must be seconds"),
        ({past.ITEM: [["a", "b"], ["a", None], ["a"], []]}, "column behaviour_item_id, row 12: must be a string"),
        ({past.ITEM: [[1.5, 2.0], [1.0, 2.0], [1.0], []]}, "column behaviour_item_id, row 11: must be a string, got"),
        ({past.VALUE: [[1.0], [], [], []]}, "column behaviour_value, row 11: 1 entries, but behaviour_item_id has 2"),
        ({past.VALUE: [[1.0, 2.0], [1.0, float("nan")], [], []]}, "column behaviour_value, row 12: must be finite"),
        ({past.VALUE: [[1e39, 2.0], [], [], []]}, "column behaviour_value, row 11: must be finite in 32 bits"),
        ({past.TYPE: [[1, 2], [], [], []]}, "column behaviour_type, row 11: must be a string"),
        ({past.ITEM: [1, 2, 3, 4]}, "column behaviour_item_id, row 11: must be a list, got int"),
    ],
)
def test_the_first_wrong_value_is_named(shop: ServedVersion, change: dict[str, list[Any]], words: str) -> None:
    frame = impressions(["a", "b", "c", "d"]).with_columns(
        **{name: pl.Series(values, strict=False) for name, values in change.items()}
    )
    with pytest.raises(InputProblem) as caught:
        score_chunk(shop, slates.Chunk(frame, FILE, 10, NOW, {}), lost=False)
    assert words in str(caught.value)
    assert str(caught.value).startswith("rows.parquet: ")


def test_of_several_wrong_values_the_first_row_is_named(shop: ServedVersion) -> None:
    frame = impressions(["a", "b", "c"]).with_columns(
        age=pl.Series([1.0, 2.0, float("inf")]), rank=pl.Series([1.0, float("inf"), 3.0])
    )
    with pytest.raises(InputProblem, match="column rank, row 2"):
        score_chunk(shop, slates.Chunk(frame, FILE, 0, NOW, {}), lost=False)


def test_whole_numbers_are_ids_too(shop: ServedVersion) -> None:
    texts = impressions(["a", "b"]).with_columns(hour=pl.Series(["7", "20"]))
    numbers = texts.with_columns(hour=pl.Series([7, 20]))
    found = [score_chunk(shop, slates.Chunk(each, FILE, 0, NOW, {}), lost=False) for each in (texts, numbers)]
    assert found[0].columns["pctr"].tolist() == found[1].columns["pctr"].tolist()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_bundle.publish(folder, "1.0.0")
    return folder


def ratings(rows: int) -> pl.DataFrame:
    """Rows of users with a few candidates each, and their histories."""
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, rows // 3, rows))
    items = [[str(n) for n in rng.integers(1, 40, n % 6)] for n in range(rows // 3)]
    times = [sorted(rng.integers(1, tiny_bundle.NOW, len(each)).tolist()) for each in items]
    return pl.DataFrame(
        {
            "user_id": [f"user {n}" for n in owner],
            "item_id": rng.integers(1, 60, rows),
            "ts": np.full(rows, float(tiny_bundle.NOW)),
            "category": rng.choice(["drama", "007", 'a "b",\nc'], rows).tolist(),
            "price": rng.normal(size=rows),
            past.ITEM: pl.Series([items[n] for n in owner], dtype=pl.List(pl.String)),
            past.TIME: pl.Series([times[n] for n in owner], dtype=pl.List(pl.Int64)),
        }
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson"])
def test_a_file_in_many_chunks_is_the_same_file_scored(
    tmp_path: Path, models: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.tables import read_table, write_table

    rows = ratings(200)
    write_table(rows, tmp_path / f"rows.{suffix}")

    def run(name: str) -> pl.DataFrame:
        out = tmp_path / f"{name}.{suffix}"
        arguments = ("score", tmp_path / f"rows.{suffix}", "--out", out, "--models", models, "--workers", 1)
        assert ctrlift(*arguments, "--quiet").code == 0
        return read_table(out, text=rows.columns)

    whole = run("whole")
    monkeypatch.setattr(reading, "CHUNK_ROWS", 7)
    monkeypatch.setattr(reading, "TEXT_BYTES", 300)
    parts = run("parts")
    assert parts.drop("pctr", "pcvr", "pctcvr").equals(whole.drop("pctr", "pcvr", "pctcvr"))
    for task in ("pctr", "pcvr", "pctcvr"):
        np.testing.assert_allclose(parts[task], whole[task], rtol=0, atol=1e-9)
    assert parts["item_id"].cast(pl.Int64).to_list() == rows["item_id"].to_list()
    assert parts["category"].to_list() == rows["category"].to_list()


def test_processes_answer_in_order_and_name_the_row(models: Path) -> None:
    rows = ratings(120).with_columns(price=pl.Series([*[1.0] * 90, float("inf"), *[2.0] * 29]))
    chunks = [slates.Chunk(each, FILE, 20 * n, NOW, {}) for n, each in enumerate(rows.iter_slices(20))]
    opening = Opening(models / "movies" / "1.0.0")
    version = opening.open()
    found = scored(iter(chunks), version, opening, lost=False, workers=2)
    for chunk in chunks[:4]:
        answered, scores = next(found)
        assert answered is chunk
        expected = score_chunk(version, chunk, lost=False)
        assert scores.slates == expected.slates
        for name, column in expected.columns.items():
            assert scores.columns[name].tolist() == column.tolist()
    with pytest.raises(InputProblem, match=r"rows\.parquet: column price, row 91: must be finite"):
        next(found)


def test_a_run_that_fails_leaves_the_file_of_the_run_before_it(tmp_path: Path, models: Path) -> None:
    path, out = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    arguments = ("score", path, "--out", out, "--models", models, "--quiet")
    ratings(50).write_parquet(path)
    assert ctrlift(*arguments).code == 0
    before = out.read_bytes()
    ratings(50).with_columns(price=float("inf")).write_parquet(path)
    ran = ctrlift(*arguments)
    assert ran.code == 3
    assert_one_sentence(ran, "rows.parquet: column price, row 1: must be finite")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.parquet", "rows.parquet"]
    assert out.read_bytes() == before


@dataclass(frozen=True)
class OpeningThatDies(Opening):
    """Takes its process with it, as a lack of memory would."""

    def open(self) -> ServedVersion:
        import os

        os._exit(9)


def test_a_worker_that_dies_is_said_and_not_waited_for(shop: ServedVersion) -> None:
    chunks = (slates.Chunk(impressions(["a"]), FILE, n, NOW, {}) for n in range(5))
    with pytest.raises(CheckFailed, match="a worker process died"):
        list(scored(chunks, shop, OpeningThatDies(FILE), lost=False, workers=2))


def test_chunks_are_taken_as_they_are_needed(shop: ServedVersion) -> None:
    taken = []

    def chunks() -> Any:
        for number in range(10):
            taken.append(number)
            yield slates.Chunk(impressions(["a"]), FILE, number, NOW, {})

    answers = scored(chunks(), shop, Opening(FILE), lost=False, workers=1)
    for number in range(3):
        assert next(answers)[0].offset == number
    assert len(taken) <= 4


@pytest.mark.parametrize("text", ['a,b\n"1,2\n3,4\n' + "5,6\n" * 200])
def test_a_quote_that_is_never_closed_does_not_fill_the_memory(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "TEXT_BYTES", 64)
    monkeypatch.setattr(reading, "LONGEST_LINE", 200)
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(InputProblem, match=r"rows\.csv"):
        list(reading.RowFile(path).chunks())


def test_a_file_without_rows_stays_one(tmp_path: Path, models: Path) -> None:
    ratings(30).clear().write_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    ran = ctrlift("score", tmp_path / "rows.parquet", "--out", out, "--models", models, "--quiet", "--json")
    assert (ran.code, ran.json["rows"]) == (0, 0)
    assert pl.read_parquet(out).columns[-5:] == ["pctr", "pcvr", "pctcvr", "model", "version"]

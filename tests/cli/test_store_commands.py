"""Filling the store from files, against a real Valkey server in a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from cli import behaviours, loading
from service.behaviours import UserData, open_store
from service.settings import load_settings
from tests.cli.running import assert_one_sentence, ctrlift

Read = Callable[[str], UserData]


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"embedded://{tmp_path}/store"


@pytest.fixture
def read(store: str) -> Read:
    async def one(user: str) -> UserData:
        opened = open_store(load_settings(None, {"store": {"url": store}}).store)
        try:
            return (await opened.read([user])).users[0]
        finally:
            await opened.close()

    return lambda user: asyncio.run(one(user))


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.parquet"
    rows = [(f"u{row % 3}", row, 1000 + row, "view", row / 2) for row in range(30)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "ts", "type", "value"], orient="row").write_parquet(path)
    return path


def test_behaviours_are_loaded_counted_and_kept(events: Path, store: str, read: Read) -> None:
    first = ctrlift("behaviours", "load", events, "--store", store, "--batch", 7, "--json", "--quiet")
    assert first.code == 0, first.err
    assert first.json == {"rows": 30, "resumed_at": 0, "accepted": 30, "duplicates": 0}
    again = ctrlift("behaviours", "load", events, "--store", store, "--json", "--quiet")
    assert again.json == {"rows": 30, "resumed_at": 0, "accepted": 0, "duplicates": 30}
    assert [int(ts) for ts in read("u1").behaviours["ts"]] == [1000 + row for row in range(1, 30, 3)]


def test_an_interrupted_load_goes_on_where_it_was(
    events: Path, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load_settings(None, {"store": {"url": store}})
    found = behaviours.read_events(events)
    written: list[int] = []

    class Stops:
        """A store that takes two batches; the third meets Ctrl-C."""

        async def append(self, batch: list[object]) -> object:
            if len(written) == 2:
                raise KeyboardInterrupt
            written.append(len(batch))
            from service.behaviours import Appended

            return Appended(len(batch), 0)

        async def close(self) -> None:
            return None

    with monkeypatch.context() as patched:
        patched.setattr("cli.behaviours.open_patiently", lambda _settings: Stops())
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(behaviours.load_events(found, events, settings, batch=10, quiet=True))
    assert written == [10, 10]
    note = events.with_name(f"{events.name}.loading.json")
    assert '"rows": 20' in note.read_text()
    ran = ctrlift("behaviours", "load", events, "--store", store, "--json", "--quiet")
    assert ran.json == {"rows": 10, "resumed_at": 20, "accepted": 10, "duplicates": 0}
    assert not note.exists()


def test_a_note_about_another_file_or_store_is_not_believed(events: Path, tmp_path: Path) -> None:
    note = loading.Bookmark(events, "redis://a:secret@host", "p")
    note.write(12)
    text = events.with_name(f"{events.name}.loading.json").read_text()
    assert "secret" not in text
    assert loading.Bookmark(events, "redis://a:secret@host", "p").read() == 12
    assert loading.Bookmark(events, "redis://elsewhere", "p").read() == 0
    pl.DataFrame({"user_id": ["a"], "item_id": ["b"], "ts": [1]}).write_parquet(events)
    assert loading.Bookmark(events, "redis://a:secret@host", "p").read() == 0


def test_users_are_loaded_replaced_and_deleted(tmp_path: Path, store: str, read: Read) -> None:
    users = tmp_path / "users.csv"
    users.write_text("user_id,age,job\n007,31,writer\n8,,doctor\n")
    ran = ctrlift("users", "load", users, "--store", store, "--json", "--quiet")
    assert ran.code == 0, ran.err
    assert ran.json["accepted"] == 2
    assert dict(read("007").features) == {"age": 31, "job": "writer"}
    assert dict(read("8").features) == {"job": "doctor"}
    assert ctrlift("users", "delete", "007", "--store", store, "--json").json == {"user_id": "007", "deleted": True}
    assert dict(read("007").features) == {}
    assert ctrlift("users", "delete", "007", "--store", store).out == "user 007: nothing was stored\n"


def test_a_user_listed_twice_is_named_with_both_rows(tmp_path: Path, store: str) -> None:
    users = tmp_path / "users.csv"
    users.write_text("user_id,age\n1,3\n2,4\n1,5\n")
    ran = ctrlift("users", "load", users, "--store", store)
    assert ran.code == 3
    assert_one_sentence(ran, "users.csv", "row 3", "row 1")


def test_a_store_that_would_vanish_is_refused(events: Path) -> None:
    for url in ("embedded://", "memory://"):
        ran = ctrlift("behaviours", "load", events, "--store", url)
        assert ran.code == 2
        assert_one_sentence(ran, "--store")


def test_a_store_that_is_down_is_exit_code_5(events: Path, tmp_path: Path) -> None:
    ran = ctrlift("behaviours", "load", events, "--store", f"unix://{tmp_path}/nobody.sock", "--quiet")
    assert ran.code == 5
    assert_one_sentence(ran)


def test_wrong_events_are_named(tmp_path: Path, store: str) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,ts\na,1,5\nb,2,soon\n")
    ran = ctrlift("behaviours", "load", path, "--store", store)
    assert ran.code == 3
    assert_one_sentence(ran, "events.csv", "column ts")

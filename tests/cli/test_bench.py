"""`ctrlift bench`: its file, its table, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import speed_run
from benchmarks.serving.running import ScoresDiffer
from tests.cli.running import assert_one_sentence, ctrlift


def test_an_unknown_part_is_a_usage_error() -> None:
    ran = ctrlift("bench", "--quick", "--only", "nothing")
    assert ran.code == 2
    assert_one_sentence(ran, "'nothing'", "graph, service, alone, workers, memory, uplift")


def test_peers_are_no_part_of_a_quick_run() -> None:
    assert ctrlift("bench", "--quick", "--only", "peers").code == 2


def test_a_file_in_no_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    ran = ctrlift("bench", "--quick", "--json", tmp_path / "absent" / "bench.json")
    assert ran.code == 2
    assert_one_sentence(ran, "--json", "does not exist")


def test_the_file_holds_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(options: Any, tell: Any) -> dict[str, Any]:
        for part in ("networks", *speed_run.chosen(options)):
            tell(part)
        return speed_run.result(options, {})

    monkeypatch.setattr(speed_run, "run", empty)
    ran = ctrlift("bench", "--quick", "--json", tmp_path / "bench.json", "--quiet")
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "bench.json").read_text())
    for key in ("graph_over_repeated_100", "kernel_over_repeated_500", "service_overhead_us", "uplift_over_direct"):
        assert found[key] is None
        assert found["notes"][key]
        assert key in ran.out
    assert {"machine", "libraries", "date", "command", "kernel"} <= set(found["environment"])


def test_scores_that_differ_end_with_1_and_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differ(*_: object) -> dict[str, Any]:
        raise ScoresDiffer("the scores of mosec differ by 0.01, allowed is 1e-05: nothing was timed")

    monkeypatch.setattr(speed_run, "run", differ)
    ran = ctrlift("bench", "--json", tmp_path / "bench.json", "--record", tmp_path, "--quiet")
    assert ran.code == 1
    assert_one_sentence(ran, "mosec", "nothing was timed")
    assert list(tmp_path.iterdir()) == []

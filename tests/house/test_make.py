"""The two entry points of a machine that builds this: make and .ci/run."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS

ROOT = Path(__file__).parents[2]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def dry(*arguments: str) -> str:
    """What make would run, were nothing installed."""
    command = ["make", "--dry-run", "--assume-new=pyproject.toml", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@needs_make
def test_make_alone_explains_itself() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("install", "demo", "serve", "test", "check", "bench", "break"):
        assert f"make {target}" in shown


@needs_make
@pytest.mark.parametrize("target", ["install", "demo", "serve", "test", "check", "bench", "break"])
def test_every_target_installs_first_with_the_arguments_for_pip(target: str) -> None:
    lines = dry(target, "PIP_ARGS=--no-cache-dir")
    assert "pip install" in lines
    assert "--no-cache-dir" in lines
    assert "--constraint constraints.txt" in lines


def test_ci_runs_make_test_and_stops_at_the_first_error() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in text
    assert "make test" in text


def test_ci_ends_with_pytests_closing_line_and_status(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    closing = "=== 1 failed, 41 passed, 2 skipped in 12.34s ==="
    (tmp_path / "Makefile").write_text(f"test:\n\t@echo '{closing}'; echo trailing noise; exit 1\n")
    done = subprocess.run(["bash", str(tmp_path / ".ci" / "run")], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == closing


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_every_benchmark_can_be_started(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").main)


def test_every_benchmark_is_in_the_table() -> None:
    found = {
        ".".join(path.relative_to(ROOT / "benchmarks").with_suffix("").parts)
        for path in (ROOT / "benchmarks").glob("*/*.py")  # one folder a room
        if "\ndef main()" in path.read_text(encoding="utf-8") and not path.stem.endswith("_worker")
    }
    assert found == set(BENCHMARKS)

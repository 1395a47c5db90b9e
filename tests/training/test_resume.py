"""Killing a training for real, at a step or in the middle of writing, and going on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_config
from training.checkpoint import read_state
from training.errors import Interrupted, RunError
from training.fit import train
from training.run import RunFolder

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "checkpoint_every": 5,
    "patience": 0,
    "ema_decay": 0.9,
    "schedule": "one_cycle",
    "warmup": 0.3,
    "weight_decay": {"item": 0.1},
}
ROOT = Path(__file__).resolve().parents[2]

# The child kills itself by the signal named, at the place named, so that the place is exact.
CHILD = """
import os, signal, sys
from pathlib import Path
import torch
import training.checkpoint, training.fit
from tests.tiny import tiny_config
from tests.training.test_resume import SETTINGS

place, at, number, data, run = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5])
if place == "step":
    advance = training.fit.advance
    def stop_after(position, *rest):
        advance(position, *rest)
        if position.step == at:
            os.kill(os.getpid(), number)
    training.fit.advance = stop_after
else:
    write, written = training.checkpoint.write_bytes, []
    def stop_within(path, content):
        written.append(path)
        if len(written) == at:
            path.with_name(f".{path.name}.tmp-0").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), number)
        write(path, content)
    training.checkpoint.write_bytes = stop_within
try:
    training.fit.train(tiny_config(data, "dien", **SETTINGS), run, progress=False)
except training.fit.Interrupted as error:
    print(error, error.checkpoint, error.step)
    sys.exit(130)
"""


def run_child(place: str, at: int, number: int, data: Path, run: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, place, str(at), str(number), str(data), str(run)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def uninterrupted(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(tiny_config(tiny_data, "dien", **SETTINGS), tmp_path_factory.mktemp("whole") / "run", progress=False)


def flat(state: Any, at: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{at}/{key}").items()}
    if isinstance(state, list):
        return {k: v for key, value in enumerate(state) for k, v in flat(value, f"{at}/{key}").items()}
    return {at: state}


def assert_same_end(first: RunFolder, second: RunFolder) -> None:
    """Every tensor and number of the last checkpoint, the kept weights, and the logged losses are bit-equal."""
    for file in ("last_checkpoint", "best_checkpoint"):
        one, two = flat(read_state(getattr(first, file))), flat(read_state(getattr(second, file)))
        assert one.keys() == two.keys()
        for key, value in one.items():
            if key == "/position/seconds":
                continue
            assert torch.equal(value, two[key]) if isinstance(value, torch.Tensor) else value == two[key], key

    def lines(run: RunFolder) -> list[dict[str, Any]]:
        return [{key: value for key, value in line.items() if key != "seconds"} for line in run.history()]

    assert lines(first) == lines(second)


@pytest.mark.parametrize(
    ("place", "at"),
    [
        ("step", 3),  # before the first checkpoint: begins again
        ("step", 17),  # inside an epoch, between two checkpoints
        ("write", 4),  # in the middle of a write: the file before it must be whole
    ],
)
def test_a_killed_run_ends_with_the_weights_it_would_have_had(
    place: str, at: int, tiny_data: Path, tmp_path: Path, uninterrupted: RunFolder
) -> None:
    folder = tmp_path / "run"
    child = run_child(place, at, signal.SIGKILL, tiny_data, folder)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert RunFolder.open(folder).index().state == "running"
    resumed = train(tiny_config(tiny_data, "dien", **SETTINGS), folder, resume=True, progress=False)
    assert_same_end(uninterrupted, resumed)


def test_a_terminated_run_saves_says_where_and_goes_on(
    tiny_data: Path, tmp_path: Path, uninterrupted: RunFolder
) -> None:
    folder = tmp_path / "run"
    child = run_child("step", 8, signal.SIGTERM, tiny_data, folder)
    assert child.returncode == 130, child.stderr
    assert f"interrupted after step 8; continue with --resume from {folder / 'checkpoints' / 'last.pt'}" in child.stdout
    assert RunFolder.open(folder).index().state == "interrupted"
    assert read_state(RunFolder(folder).last_checkpoint)["position"]["step"] == 8
    resumed = train(tiny_config(tiny_data, "dien", **SETTINGS), folder, resume=True, progress=False)
    assert_same_end(uninterrupted, resumed)
    assert resumed.index().state == "finished"


def interrupted_here(data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, step: int = 7) -> None:
    import training.fit

    advance = training.fit.advance

    def stop(position: Any, *rest: Any) -> None:
        advance(position, *rest)
        if position.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(training.fit, "advance", stop)
        with pytest.raises(Interrupted):
            train(tiny_config(data, "dien", **SETTINGS), folder, progress=False)


def test_ctrl_c_saves_and_puts_the_handlers_back(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupted_here(tiny_data, tmp_path / "run", monkeypatch)
    assert read_state(RunFolder(tmp_path / "run").last_checkpoint)["position"]["step"] == 7
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_another_configuration_or_other_data_are_not_resumed(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupted_here(tiny_data, folder, monkeypatch)
    other = {**SETTINGS, "learning_rate": 0.5}
    with pytest.raises(RunError, match=r"another configuration: train\.learning_rate differs"):
        train(tiny_config(tiny_data, "dien", **other), folder, resume=True, progress=False)
    run = RunFolder.open(folder)
    run.write_index(run.index().model_copy(update={"data_fingerprint": "1" * 64}))
    with pytest.raises(RunError, match="trained on other data"):
        train(tiny_config(tiny_data, "dien", **SETTINGS), folder, resume=True, progress=False)


def test_there_must_be_something_to_resume(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run to resume"):
        train(tiny_config(tiny_data, "dien"), tmp_path / "absent", resume=True, progress=False)


def test_a_damaged_checkpoint_is_one_sentence(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    interrupted_here(tiny_data, folder, monkeypatch)
    file = RunFolder(folder).last_checkpoint
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RunError, match="not a readable checkpoint") as caught:
        train(tiny_config(tiny_data, "dien", **SETTINGS), folder, resume=True, progress=False)
    assert "\n" not in str(caught.value)

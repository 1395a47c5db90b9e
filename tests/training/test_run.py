"""The run folder and its checkpoints: atomic, and every reading error one sentence."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from training.checkpoint import (
    Position,
    generator_states,
    position_of,
    read_state,
    restore_generators,
    save_checkpoint,
    write_state,
)
from training.errors import RunError
from training.preparation import first_difference
from training.run import RunFolder, RunIndex, finite, write_bytes


def index() -> RunIndex:
    return RunIndex(
        bundle_name="m",
        network="din",
        tasks=("ctr",),
        seed=0,
        created="2020-01-01",
        run_id="r",
        dataset="d",
        data_fingerprint="0" * 64,
        rows={"train": 1},
        window={"train": (0.0, 1.0)},
        libraries={},
        machine={},
        parameters=1,
    )


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, {}, None)
    run.write_index(index())
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.create(tmp_path, {}, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "run.json cannot be read: the file: Invalid JSON"),
        (b"{", "run.json cannot be read"),
        (b"[]", "run.json cannot be read"),
        (b"{}", "run.json cannot be read: bundle_name: Field required"),
    ],
)
def test_a_torn_index_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=message) as caught:
        RunFolder.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_index_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(index().model_copy(update={"schema_version": 2}).model_dump_json())
    with pytest.raises(RunError, match="schema version 2, this version reads 1"):
        RunFolder.open(tmp_path)


def test_no_folder_and_no_index_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        RunFolder.open(tmp_path / "absent")
    with pytest.raises(RunError, match=r"run\.json cannot be read"):
        RunFolder.open(tmp_path)


def test_a_history_line_torn_by_a_kill_is_left_out_but_a_broken_middle_is_an_error(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.append_history({"step": 1})
    run.append_history({"step": 2})
    run.history_file.write_text(run.history_file.read_text() + '{"step": 3, "lo')
    assert [line["step"] for line in run.history()] == [1, 2]
    run.rewind_history(1)
    assert [line["step"] for line in run.history()] == [1]
    run.history_file.write_text('{"st\n{"step": 2}\n')
    with pytest.raises(RunError, match="line 1"):
        run.history()


def test_metrics_of_an_unfinished_run_say_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_index(index())
    with pytest.raises(RunError, match="the run is running"):
        run.metrics()


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    position = Position(epoch=2, batch=3, step=17, rows=5, loss_sum=1.5, best=0.7, best_step=9, seconds=4.0)
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    save_checkpoint(tmp_path / "c.pt", {"network": {"w": torch.arange(3.0)}}, position)
    drawn = (torch.rand(2).tolist(), np.random.rand(), random.random())
    state = read_state(tmp_path / "c.pt")
    assert position_of(state) == position
    assert torch.equal(state["network"]["w"], torch.arange(3.0))
    restore_generators(state["generators"])
    assert (torch.rand(2).tolist(), np.random.rand(), random.random()) == drawn


def test_generator_states_survive_a_json_like_round_trip() -> None:
    first = generator_states()
    restore_generators(first)
    second = generator_states()
    assert torch.equal(first["torch"], second["torch"])
    assert first["python"] == second["python"]


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("pwned"),))


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"schema": 1, "x": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(RunError, match="not a readable checkpoint") as caught:
        read_state(tmp_path / "evil.pt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_every_truncation_of_a_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    write_state(file, {"w": torch.arange(100.0)})
    content = file.read_bytes()
    for length in range(0, len(content), max(1, len(content) // 40)):
        file.write_bytes(content[:length])
        with pytest.raises(RunError) as caught:
            read_state(file)
        assert "\n" not in str(caught.value)
    for garbage in (b"torn", b"\x80\x02.", bytes(range(256))):
        file.write_bytes(garbage)
        with pytest.raises(RunError, match="is not a"):
            read_state(file)
    with pytest.raises(RunError, match="does not exist"):
        read_state(tmp_path / "absent.pt")


def test_a_file_is_exchanged_by_a_rename_and_never_written_in_place(tmp_path: Path) -> None:
    file = tmp_path / "f"
    write_bytes(file, b"old")
    with file.open("rb") as reader:
        write_bytes(file, b"new")
        assert reader.read() == b"old"
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    write_state(file, {"w": 1})
    with pytest.raises(TypeError):
        write_state(file, {"w": (i for i in range(2))})
    assert read_state(file)["w"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b"),
        ({"a": {"b": 1}}, {"a": {}}, "a.b"),
        ({"a": (1, 2)}, {"a": [1, 2]}, None),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a"),
        ({"t": {"threads": 1}}, {"t": {"threads": 2}}, None),
    ],
)
def test_the_first_difference_of_two_configurations(
    first: dict[str, object], second: dict[str, object], expected: str | None
) -> None:
    assert first_difference(first, second, ignored=("t.threads",)) == expected


def test_json_has_no_nan() -> None:
    assert finite(float("nan")) is None
    assert json.dumps(finite(0.5)) == "0.5"

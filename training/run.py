"""The run folder: everything one training leaves behind, found by name and readable without torch.

run.json                 the index: schema version, state, network, tasks, files, what made the run
config.toml              the configuration as it was given (absent where there was no file)
config.json              the same, resolved: every default written out
schema/                  the fitted FeatureSchema
metrics.jsonl            one line a logged step and a validation, in order
metrics.json             the summary of a finished run
evaluation-<split>.json  what ``evaluate`` found
checkpoints/last.pt      where ``resume`` continues
checkpoints/best.pt      the weights that are evaluated and exported
plots/                   loss and AUC as offline HTML
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from training.errors import RunError

INDEX_SCHEMA: Final = 1
RunState = Literal["running", "interrupted", "finished"]


class RunIndex(BaseModel):
    """What ``run.json`` says.

    Attributes:
        state: ``running`` also stands for a run that was killed: nothing could change it any more.
        libraries: name to version of what the numbers depend on.
        data_fingerprint: SHA-256 of the data set's rows.
        window: first and last time of each split, in seconds since 1970.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = INDEX_SCHEMA
    state: RunState = "running"
    bundle_name: str
    network: str
    tasks: tuple[str, ...]
    seed: int
    created: str
    run_id: str
    dataset: str
    data_fingerprint: str
    rows: dict[str, int]
    window: dict[str, tuple[float, float]]
    libraries: dict[str, str]
    machine: dict[str, str]
    parameters: int


class RunFolder:
    """One run on disk. Paths are attributes; nothing is cached."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.index_file = path / "run.json"
        self.config_file = path / "config.json"
        self.schema_dir = path / "schema"
        self.history_file = path / "metrics.jsonl"
        self.metrics_file = path / "metrics.json"
        self.last_checkpoint = path / "checkpoints" / "last.pt"
        self.best_checkpoint = path / "checkpoints" / "best.pt"
        self.plots_dir = path / "plots"

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], config_text: str | None) -> Self:
        """Make a fresh folder with its configuration.

        Raises:
            RunError: if the folder already holds a run.
        """
        run = cls(path)
        if run.index_file.exists():
            raise RunError(f"{path} already holds a run: resume it, or train into another folder")
        for folder in (run.last_checkpoint.parent, run.plots_dir):
            folder.mkdir(parents=True, exist_ok=True)
        # A run that was killed before its index was written leaves parts that must not mix with this one's.
        run.history_file.unlink(missing_ok=True)
        run.last_checkpoint.unlink(missing_ok=True)
        run.best_checkpoint.unlink(missing_ok=True)
        shutil.rmtree(run.schema_dir, ignore_errors=True)
        write_json(run.config_file, config)
        if config_text is not None:
            (path / "config.toml").write_text(config_text, encoding="utf-8")
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing folder.

        Raises:
            RunError: if it does not exist, has no index or one that this version cannot read.
        """
        run = cls(path)
        if not path.is_dir():
            raise RunError(f"{path} is not a run folder: no such folder")
        run.index()
        return run

    def index(self) -> RunIndex:
        """Read ``run.json``.

        Raises:
            RunError: if it is absent, torn or of another schema version.
        """
        try:
            text = self.index_file.read_bytes()
        except OSError as error:
            raise RunError(f"{self.path} is not a run folder: run.json cannot be read ({error.strerror})") from error
        try:
            index = RunIndex.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = "/".join(str(part) for part in first["loc"]) or "the file"
            raise RunError(f"{self.index_file} cannot be read: {where}: {first['msg']}") from error
        if index.schema_version != INDEX_SCHEMA:
            raise RunError(
                f"{self.index_file} has schema version {index.schema_version}, this version reads {INDEX_SCHEMA}"
            )
        return index

    def write_index(self, index: RunIndex) -> None:
        """Replace ``run.json`` atomically."""
        write_json(self.index_file, index.model_dump(mode="json"))

    def set_state(self, state: RunState) -> None:
        """Replace the state in the index."""
        self.write_index(self.index().model_copy(update={"state": state}))

    def config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises:
            RunError: if it cannot be read.
        """
        return read_json(self.config_file)

    def metrics(self) -> dict[str, Any]:
        """The summary of a finished run.

        Raises:
            RunError: if the run has not finished, or the file is torn.
        """
        if not self.metrics_file.exists():
            raise RunError(f"{self.path} has no metrics yet: the run is {self.index().state}")
        return read_json(self.metrics_file)

    def append_history(self, line: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``."""
        with self.history_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last line torn by a kill is left out.

        Raises:
            RunError: if a line before the last one cannot be read.
        """
        if not self.history_file.exists():
            return []
        lines = self.history_file.read_text(encoding="utf-8").splitlines()
        records: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                if number == len(lines):
                    break
                raise RunError(f"{self.history_file} cannot be read: line {number}: {error.msg}") from error
        return records

    def rewind_history(self, step: int) -> None:
        """Forget lines after ``step``: a resumed run writes them again."""
        kept = [line for line in self.history() if int(line["step"]) <= step]
        write_bytes(self.history_file, "".join(json.dumps(line) + "\n" for line in kept).encode())


def finite(value: float) -> float | None:
    """The value, or None where JSON has no number for it."""
    return value if math.isfinite(value) else None


def write_json(path: Path, value: Any) -> None:
    """Write JSON through a temporary sibling, so a reader sees the old text or the new one."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically and durably."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunError: if the file is absent, torn or not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path} cannot be read: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} cannot be read: expected an object, got {type(value).__name__}")
    return value

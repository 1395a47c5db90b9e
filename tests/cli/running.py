"""Run a command in this process as a person would type it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from typer.testing import CliRunner

from cli.main import app


@dataclass(frozen=True)
class Ran:
    """What a command left: its exit code and the two outputs."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def ctrlift(*arguments: object) -> Ran:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return Ran(result.exit_code, result.stdout, result.stderr)


def assert_one_sentence(ran: Ran, *words: str) -> None:
    """Standard error ends with one sentence of ours that holds the words, and there is no traceback."""
    assert "Traceback" not in ran.err + ran.out
    last = ran.err.rstrip("\n").splitlines()[-1]
    assert last.startswith("ctrlift: "), ran.err
    for word in words:
        assert word in last, last

"""Help is quick and complete: no command's help loads torch."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cli.running import ctrlift

ROOT = Path(__file__).parents[2]
COMMANDS = [
    ["train"],
    ["evaluate"],
    ["export"],
    ["verify"],
    ["serve"],
    ["score"],
    ["uplift"],
    ["behaviours", "load"],
    ["users", "load"],
    ["users", "delete"],
    ["data", "list"],
    ["data", "fetch"],
    ["doctor"],
    ["bench"],
    ["demo"],
]
REPORTING = [command for command in COMMANDS if command not in (["serve"], ["demo"])]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command: list[str]) -> None:
    ran = ctrlift(*command, "--help")
    assert ran.code == 0
    assert "Usage" in ran.out


@pytest.mark.parametrize("command", REPORTING, ids=" ".join)
def test_everything_that_reports_takes_json(command: list[str]) -> None:
    assert "--json" in ctrlift(*command, "--help").out


@pytest.mark.parametrize("command", ["serve", "score", "uplift", "train"])
def test_help_does_not_import_torch(command: str) -> None:
    code = (
        "import sys; from cli.main import app\n"
        f"try: app(['{command}', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'fastapi', 'polars', 'onnxruntime', 'redis'} & set(sys.modules)\n"
        "sys.stderr.write(' '.join(sorted(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Usage" in done.stdout


def test_version() -> None:
    assert ctrlift("--version").out == f"ctrlift {version('ctrlift')}\n"


def test_every_registered_command_is_listed_here() -> None:
    from cli.main import app

    single = {info.name for info in app.registered_commands}
    grouped = {
        (group.name, command.name)
        for group in app.registered_groups
        for command in group.typer_instance.registered_commands
    }
    assert {" ".join(command) for command in COMMANDS} == single | {f"{group} {name}" for group, name in grouped}


def test_no_colours_where_nobody_reads_them() -> None:
    ran = ctrlift("data", "list")
    assert ran.code == 0
    assert not re.search(r"\x1b\[", ran.out)

"""The documents: links resolve, every command and exit code is told, and what they name exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cli.exits import EXIT_CODES
from service.settings import PREFIX, described

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("docker/*.md")])
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")
VARIABLE = re.compile(rf"\b{PREFIX}[A-Z]+__[A-Z_]+\b")
COMMAND_LINE = re.compile(r"(?:^|[`\s])ctrlift ([a-z]+)(?: ([a-z]+))?")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://127.0.0.1", "https://", "http://")):
            assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_named_in_documents_exist(page: Path) -> None:
    known = {f"{PREFIX}{key.upper().replace('.', '__')}" for key in described()}
    assert set(VARIABLE.findall(page.read_text(encoding="utf-8"))) <= known


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_named_in_documents_exist(page: Path) -> None:
    known = set(commands())
    groups = {command.split()[0] for command in known if " " in command}
    for first, second in COMMAND_LINE.findall(page.read_text(encoding="utf-8")):
        assert first in known or (first in groups and (not second or f"{first} {second}" in known)), f"{first} {second}"


def commands() -> list[str]:
    from cli.main import app

    single = [str(info.name) for info in app.registered_commands]
    grouped = [
        f"{group.name} {command.name}"
        for group in app.registered_groups
        for command in group.typer_instance.registered_commands
    ]
    return single + grouped


def test_the_readme_tells_every_command() -> None:
    table = re.findall(r"^\| `ctrlift ([a-z]+(?: [a-z]+)?)", README, re.MULTILINE)
    assert sorted(table) == sorted(commands())


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md", "cli/exits.py"])
def test_exit_codes_are_told(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for code in {0, 130, *EXIT_CODES.values()}:
        assert re.search(rf"\b{code}\b", text), code


def test_make_targets_are_documented_and_print_themselves() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = dict(re.findall(r"^([a-z]+):.*## (.+)$", makefile, re.MULTILINE))
    assert {"install", "demo", "serve", "test", "check", "bench", "break"} <= targets.keys()
    for named in re.findall(r"`?make ([a-z]+)", README):
        assert named in targets
    assert re.search(r"^\.DEFAULT_GOAL := help$", makefile, re.MULTILINE)


def test_the_changelog_has_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_decision_is_listed() -> None:
    listed = set(re.findall(r"\((\d{4}-[a-z0-9-]+\.md)\)", (ROOT / "docs/adr/README.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")}
    for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"):
        text = path.read_text(encoding="utf-8")
        for part in ("Status: ", "## Context", "## Decision", "## Consequences"):
            assert part in text, f"{path.name} lacks {part}"


def test_constraints_pin_every_direct_dependency_and_name_no_index() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(line.split("==") for line in text.splitlines() if line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(line for extra in extras for line in extra)]
    names = {re.split(r"[<>=;\[ ]", line)[0].lower() for line in wanted}
    assert names <= pinned.keys()
    assert pinned["torch"] == "2.13.0"
    assert "://" not in text

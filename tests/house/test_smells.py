"""The shape of the tree: file and function sizes, names, and words that belong elsewhere."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("bundle", "models", "training", "service", "cli")
FILE_LINES = 400
FUNCTION_LINES = 60
LARGEST_BYTES = 200_000
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
# Where the people who write this project work, and addresses of package indexes: a reader elsewhere has neither.
FOREIGN_WORDS = re.compile(
    r"/(?:work|farm|tmp/team)/|/\.library\b|\bissue #?\d+\b|\bthis session\b|subagent"
    r"|pypi\.org|pythonhosted|download\.pytorch|registry\.npmjs",
    re.IGNORECASE,
)


def source_files() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def tracked() -> list[Path]:
    """Files under version control, or those that would be: what .gitignore leaves."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git work tree")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_files_are_short() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in source_files()}
    assert {name: count for name, count in lines.items() if count > FILE_LINES} == {}


def test_functions_are_short() -> None:
    long = []
    for path in source_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_a_file_is_named_for_what_it_holds() -> None:
    assert [str(path) for path in source_files() if path.stem in VAGUE_NAMES] == []


def test_no_words_of_another_place() -> None:
    found = []
    for path in tracked():
        if path.name in {"LICENSE", Path(__file__).name}:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if match := FOREIGN_WORDS.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
    assert found == []


def test_no_data_or_binaries_in_the_tree() -> None:
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked()}
    assert {name: size for name, size in sizes.items() if size > LARGEST_BYTES} == {}


def test_every_type_ignore_has_a_code_and_every_noqa_too() -> None:
    bare = re.compile(r"#\s*type:\s*ignore(?!\[)|#\s*noqa(?!:)")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in source_files()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if bare.search(line)
    ]
    assert found == []

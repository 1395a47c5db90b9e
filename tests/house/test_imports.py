"""Which room may import which, seen twice: in a fresh interpreter and in the import statements themselves."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("bundle", "models", "training", "service", "cli")

# Import this, and none of these packages may be loaded.
LOADS = {
    "service.app": {"torch", "models", "training", "cli", "onnx", "sklearn", "pandas"},
    "service.core.scorer": {"torch", "models", "training", "cli", "fastapi"},
    "service.server": {"torch", "models", "training"},
    "bundle.loading": {"torch", "fastapi", "polars", "onnxruntime", "redis", "models", "training", "service", "cli"},
    "bundle.encode": {"torch", "fastapi", "polars", "onnxruntime", "redis", "models", "training", "service", "cli"},
    "bundle.correct": {"torch", "fastapi", "polars", "onnxruntime", "redis", "models", "training", "service", "cli"},
    "models.catalog": {"bundle", "training", "service", "cli", "fastapi", "polars", "onnxruntime"},
    "models.layers": {"bundle", "training", "service", "cli", "fastapi", "polars", "onnxruntime"},
    "training.fit": {"service", "cli", "fastapi", "redis"},
    "training.export": {"service", "cli", "fastapi", "redis"},
    "training.config": {"torch", "service", "cli", "fastapi"},
    "cli.main": {"torch", "fastapi", "polars", "onnxruntime", "redis", "models", "training", "service"},
}

# Import statements that each room may not hold, wherever they stand in it.
SHUT_OUT = {
    "bundle": {"torch", "fastapi", "polars", "models", "training", "service", "cli", "onnxruntime", "redis"},
    "models": {"bundle", "training", "service", "cli", "fastapi", "polars", "numpy"},
    "training": {"service", "cli", "fastapi", "redis"},
    "service": {"models", "training", "cli", "torch", "polars", "pandas"},
    "cli": {"torch", "onnxruntime", "redis"},
}
ALLOWED_FILES = {("service", "torch"): {"service/engines/torchscript.py"}}


@pytest.mark.parametrize("module", sorted(LOADS))
def test_importing_a_module_loads_nothing_it_must_not(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({LOADS[module]!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"import {module} also loaded these"


def imports_of(path: Path) -> Iterator[str]:
    """The top-level name of every import statement of a file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_no_file_of_a_room_imports_what_the_room_may_not(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in set(imports_of(path)) & SHUT_OUT[room]
        if str(path.relative_to(ROOT)) not in ALLOWED_FILES.get((room, name), set())
    ]
    assert wrong == []


def test_commands_import_the_other_rooms_inside_their_functions() -> None:
    wrong = []
    for path in sorted((ROOT / "cli").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            wrong += [f"{path.name}: {name}" for name in names if name.split(".")[0] in {*ROOMS, "polars"} - {"cli"}]
    assert [line for line in wrong if not line.startswith("tables.py: polars")] == []


def test_packages_are_exactly_the_rooms() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks", "breakages"}
    assert found == set(ROOMS)


def declared() -> dict[str, set[str]]:
    """Distributions that pyproject names, by part; names as importlib.metadata normalises them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = {"base": project["dependencies"], **project["optional-dependencies"]}
    return {part: {re.split(r"[<>=;\[ ]", line)[0].lower() for line in lines} for part, lines in parts.items()}


@cache
def known_distributions() -> dict[str, set[str]]:
    """Which distributions bring each importable name."""
    found = packages_distributions()
    return {name: {each.lower().replace("_", "-") for each in distributions} for name, distributions in found.items()}


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_every_library_that_a_room_imports_is_declared_for_it(room: str) -> None:
    """A library that only comes along with another one is gone the day that one stops needing it."""
    parts = declared()
    allowed = set(parts["base"])
    if room in {"models", "training", "cli", "tests"}:
        allowed |= parts["train"]
    if room == "service":
        allowed |= parts["torchscript"]
    if room == "tests":
        allowed |= parts["dev"]
    distributions = known_distributions()
    ours = {*ROOMS, "tests", "benchmarks", "breakages"}
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / room).rglob("*.py")
        for name in set(imports_of(path)) - ours - sys.stdlib_module_names
        if not distributions.get(name, set()) & allowed
    }
    assert sorted(wrong) == []

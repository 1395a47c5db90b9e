"""Which room may import which, seen twice: in a fresh interpreter and in the import statements themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
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

"""How every benchmark says where its numbers come from.

A number without its machine, versions, date and command cannot be checked by anyone, so each benchmark hands its
results to :func:`write_record`, which puts those four beside them.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"
LIBRARIES = ("numpy", "torch", "onnx", "onnxruntime", "scikit-learn", "lightgbm", "deepctr-torch", "fastapi", "redis")


def environment() -> dict[str, Any]:
    """The machine, the library versions, the date (UTC) and the command of this run."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([*_program(), *map(_portable, sys.argv[1:])]),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "python": platform.python_version(),
        "libraries": _versions(LIBRARIES),
    }


def write_record(name: str, results: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``<folder>/<name>.json``: the results with the environment that produced them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(_standard({"environment": environment(), **results}), indent=2, allow_nan=False) + "\n")
    return path


def _standard(value: Any) -> Any:
    """The same with null for numbers that JSON does not have: an interval over users of rows that have none."""
    if isinstance(value, Mapping):
        return {key: _standard(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_standard(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _portable(argument: str) -> str:
    """An argument without the folders of this machine: a path from the root keeps its last name."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _program() -> list[str]:
    """How this was started: as a module, or as an installed command."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return ["python", "-m", spec.name] if spec is not None else [Path(sys.argv[0]).name]


def _processor() -> str:
    """The processor's model as the kernel names it, with the vector extensions that decide speed here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = set(facts.get("flags", "").split())
    extensions = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if flag in flags]
    return f"{facts.get('model name', platform.machine())} ({' '.join(extensions) or 'no avx2'})"


def _versions(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

"""Which peers there are, and the environments that they are installed into."""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COMMON: Final = ("numpy", "onnxruntime", "redis[hiredis]", "pydantic", "xxhash")
FOLDER: Final = Path("runs/peers")


@dataclass(frozen=True, slots=True)
class Peer:
    """A framework.

    Attributes:
        title: as it is called.
        packages: to install beside the common ones; the first is the framework.
        module: of the server, in this folder.
        full: a framework for serving models, not only for HTTP.
    """

    title: str
    packages: tuple[str, ...]
    module: str
    full: bool = True


PEERS: Final[Mapping[str, Peer]] = {
    "fastapi": Peer("plain FastAPI", ("fastapi", "uvicorn[standard]"), "fastapi_server", full=False),
    "mosec": Peer("mosec", ("mosec",), "mosec_server"),
    "litserve": Peer("LitServe", ("litserve",), "litserve_server"),
    "bentoml": Peer("BentoML", ("bentoml",), "bentoml_server"),
    "mlserver": Peer("MLServer", ("mlserver",), "mlserver_server"),
    "rayserve": Peer("Ray Serve", ("ray[serve]",), "ray_server"),
}


class NotInstalled(RuntimeError):
    """A peer cannot be run here; the message says why."""


def python_of(folder: Path, name: str) -> Path:
    """The interpreter of a peer's environment.

    Raises:
        NotInstalled: if there is none.
    """
    python = folder.absolute() / name / "bin" / "python"
    if not python.exists():
        raise NotInstalled(f"not installed: python -m benchmarks.serving.peers install {name} --peers {folder}")
    return python


def install(folder: Path, name: str) -> None:
    """Make a peer's environment and install it by name from whatever index pip is set up for.

    Raises:
        NotInstalled: if pip cannot.
    """
    place = folder.absolute() / name
    venv.create(place, with_pip=True)
    command = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", *PEERS[name].packages, *COMMON]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalled((done.stderr.strip().splitlines() or ["pip failed"])[-1])


def versions(folder: Path, name: str) -> dict[str, str]:
    """What is installed of the things that decide a peer's speed."""
    wanted = [part.split("[")[0] for part in (*PEERS[name].packages, *COMMON)]
    code = "import sys; from importlib.metadata import version\nfor n in sys.argv[1:]: print(n, version(n))"
    done = subprocess.run(
        [str(python_of(folder, name)), "-c", code, *wanted], capture_output=True, text=True, check=True
    )
    return dict(line.split() for line in done.stdout.splitlines())


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Variables for a peer's process: this tree to import from, one thread, nothing reported to anybody."""
    root = str(Path(__file__).resolve().parents[3])
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1"}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    kept = {key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "PYTHONHOME"}}
    return kept | quiet | threads | {"PYTHONPATH": root} | dict(extra)

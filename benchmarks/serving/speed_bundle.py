"""A published bundle of the speed network, its history-repeated twin, and a cache of both.

Exporting takes seconds and the same network is asked for again and again, so what was made is kept in a folder named
after everything that decides it: the configuration, the libraries, and the code that exports. Where it is kept already,
torch is not loaded.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks.serving.speed_config import NAME, VERSION, SpeedConfig

REPEATED: Final = "repeated.onnx"
_ROOT: Final = Path(__file__).resolve().parents[2]
# Code that decides what is in the files: a change of any of it makes them anew.
_SOURCES: Final = (
    "models/**/*.py",
    "bundle/*.py",
    "training/graph/*.py",
    "benchmarks/graph/tiled.py",
    "benchmarks/serving/speed_config.py",
    "benchmarks/serving/speed_linear.py",
    "benchmarks/serving/speed_network.py",
)
_LIBRARIES: Final = ("ctrlift", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
_COMPLETE: Final = "complete"


@dataclass(frozen=True, slots=True)
class SpeedFiles:
    """Where one network lies.

    Attributes:
        store: the model store with the bundle alone.
        bundle: its folder.
        repeated: the graph with the same weights that repeats the history for every candidate; None if not wanted.
    """

    store: Path
    bundle: Path
    repeated: Path | None


def speed_bundle(store: Path, config: SpeedConfig | None = None) -> Path:
    """Publish the speed network in a model store and return the bundle's folder; about ten seconds.

    Raises:
        BundleRefused: version_immutable, if the store has it already.
    """
    from benchmarks.serving.speed_network import build, publish  # they load torch

    return publish(store, build(config or SpeedConfig()))


def cached(folder: Path, config: SpeedConfig | None = None, *, repeated: bool = True) -> SpeedFiles:
    """The bundle and, if wanted, its history-repeated graph; made once for a configuration and kept in the folder."""
    chosen = config or SpeedConfig()
    place = folder / f"{fingerprint(chosen)}{'-repeated' if repeated else ''}"
    if not (place / _COMPLETE).exists():
        _make(folder, place, chosen, repeated)
    bundle = place / "models" / NAME / VERSION
    return SpeedFiles(place / "models", bundle, place / REPEATED if repeated else None)


def _make(folder: Path, place: Path, config: SpeedConfig, repeated: bool) -> None:
    """Make it beside its place, so that a run that is ended half way leaves nothing that looks complete."""
    from benchmarks.serving.speed_network import build, publish, publish_repeated

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        speed = build(config)
        publish(made / "models", speed)
        if repeated:
            publish_repeated(made / REPEATED, speed)
        (made / _COMPLETE).touch()
        shutil.rmtree(place, ignore_errors=True)
        made.rename(place)


def fingerprint(config: SpeedConfig) -> str:
    """A name for everything that decides the files."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for library in _LIBRARIES:
        try:
            digest.update(f"{library} {version(library)}".encode())
        except PackageNotFoundError:
            continue
    for pattern in _SOURCES:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]

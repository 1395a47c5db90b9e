"""A small speed network, exported once for all tests here, and the load generators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serving.cache import default_cache
from benchmarks.serving.load_program import PYTHON, Program, compiled
from benchmarks.serving.speed_bundle import SpeedFiles, cached
from benchmarks.serving.speed_config import SpeedConfig
from tests.benchmarks.answering import Put
from tests.conftest import build_once

TINY = SpeedConfig(items=300, steps=6)


@pytest.fixture(scope="session")
def speed_files(tmp_path_factory: pytest.TempPathFactory) -> SpeedFiles:
    return cached(tmp_path_factory.mktemp("cache"), TINY)


@pytest.fixture(scope="session", autouse=True)
def own_cache(shared_folder: Path) -> Iterator[None]:
    """Nothing is left in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared_folder / "cache"))
        yield


@pytest.fixture(scope="session")
def compiled_program(shared_folder: Path, own_cache: None, compiler: list[str]) -> Program:
    """The compiled load generator, built once a run from the source as it is."""

    def make(_: Path) -> None:
        compiled(default_cache())

    build_once(shared_folder / "load-program", make)
    return compiled(default_cache())


@pytest.fixture(params=["python", "compiled"])
def program(request: pytest.FixtureRequest) -> Program:
    """Each load generator."""
    if request.param == "python":
        return PYTHON
    found: Program = request.getfixturevalue("compiled_program")
    return found


@pytest.fixture
def put(program: Program, tmp_path: Path) -> Put:
    """Puts a load on with each of them."""
    return Put(program, tmp_path)

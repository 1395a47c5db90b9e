"""A small speed network, exported once for all tests here."""

from __future__ import annotations

import pytest

from benchmarks.serving.speed_bundle import SpeedFiles, cached
from benchmarks.serving.speed_config import SpeedConfig

TINY = SpeedConfig(items=300, steps=6)


@pytest.fixture(scope="session")
def speed_files(tmp_path_factory: pytest.TempPathFactory) -> SpeedFiles:
    return cached(tmp_path_factory.mktemp("cache"), TINY)

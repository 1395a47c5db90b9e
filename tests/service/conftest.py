"""Fixtures of the service's tests: a model store, a Valkey server, a running app."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.behaviours import EmbeddedServer
from service.behaviours.server_binary import find_server
from tests.service import tiny_bundle


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with movies 1.0.0; read only."""
    store = tmp_path_factory.mktemp("published")
    tiny_bundle.publish(store)
    return store


@pytest.fixture
def models(published: Path, tmp_path: Path) -> Path:
    """A copy of the model store that a test may change."""
    return Path(shutil.copytree(published, tmp_path / "models"))


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(None) as server:
        yield server


def _programs() -> list[str]:
    own = find_server()
    on_path = shutil.which("redis-server")
    return [str(own)] + ([on_path] if on_path is not None and Path(on_path) != own else [])


@pytest.fixture(scope="session", params=_programs(), ids=lambda path: Path(path).name)
def real_store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A private server of each kind that this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.behaviours.embedded.find_server", lambda: Path(request.param))
        with EmbeddedServer(None) as server:
            yield server.url

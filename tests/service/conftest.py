"""Fixtures of the service's tests: a model store, a Valkey server, a running app."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from benchmarks.serving.process import Service, service_process
from service.behaviours import EmbeddedServer
from service.behaviours.server_binary import find_server
from service.compiled.build import build
from tests.conftest import build_once
from tests.service import asking, tiny_bundle, tiny_uplift


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
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # over before any other test looks for a server
            patch.setattr("service.behaviours.embedded.find_server", lambda: Path(request.param))
            server = stack.enter_context(EmbeddedServer(None))
        yield server.url


@pytest.fixture(scope="session")
def run_sanitized(shared_folder: Path, compiler: list[str]) -> Callable[[str], None]:
    """Runs a module as a program, with the path of a sanitized library: any finding in the C++ ends it and the test."""
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    probe = subprocess.run([*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    runtime = Path(probe.stdout.strip())
    if not runtime.is_absolute():
        pytest.skip(f"{compiler[0]} has no address sanitizer that can be loaded first")

    def make(folder: Path) -> None:
        build(folder / "_compiled.so", flags)

    def run(module: str) -> None:
        library = build_once(shared_folder / "compiled-sanitized", make) / "_compiled.so"
        # Python's own allocator would hand out pieces of its arenas, whose ends the sanitizer cannot see.
        environment = {**os.environ, "LD_PRELOAD": str(runtime), "ASAN_OPTIONS": "detect_leaks=0"}
        environment["PYTHONMALLOC"] = "malloc"
        command = [sys.executable, "-m", module, str(library)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    return run


@pytest.fixture(scope="session")
def uplift_service(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Iterator[Service]:
    """A service with one uplift bundle of each kind, and one of kind ctr."""
    folder = tmp_path_factory.mktemp("uplift")
    (folder / "models").mkdir()
    (folder / "models" / "movies").symlink_to(published / "movies")
    for kind in asking.KINDS:
        tiny_uplift.publish(folder / "models", kind)
    settings = {
        "models.dir": folder / "models",
        "models.required": [kind.name for kind in asking.KINDS],
        "store.url": "memory://",
        "log.requests": False,
        "routes.uplift": "incentive",
        "routes.campaigns": asking.CAMPAIGNS,
    }
    with service_process(folder, settings) as service:
        yield service


@pytest.fixture
def client(uplift_service: Service) -> Iterator[httpx.Client]:
    """A client of that service."""
    with httpx.Client(base_url=uplift_service.url, timeout=10) as opened:
        yield opened

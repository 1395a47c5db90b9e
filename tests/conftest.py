"""Material for the whole run of tests: a tiny data set, a tiny trained run of DIN and of DIEN, and a bundle of each.

Every worker of pytest-xdist finds them in one folder; a lock makes the first that asks the one that builds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.tiny import tiny_config, write_tiny_data

TEST_DATA = Path(os.environ.get("CTRLIFT_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Build into a folder unless another worker has; a build that failed is not tried again by every test."""
    with FileLock(target.with_name(f"{target.name}.lock")):
        failure = target.with_name(f"{target.name}.failed")
        if failure.exists():
            pytest.fail(f"{target.name} could not be built: {failure.read_text()}", pytrace=False)
        if not target.exists():
            target.mkdir(parents=True)
            try:
                build(target)
            except BaseException as error:
                failure.write_text(f"{type(error).__name__}: {error}")
                raise
    return target


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of this run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def tiny_data(shared_folder: Path) -> Path:
    """Folder of the tiny data set's Parquet files."""
    return build_once(shared_folder / "tiny-data", write_tiny_data)


def tiny_run(shared_folder: Path, data: Path, network: str) -> Path:
    from training.fit import train

    def build(folder: Path) -> None:
        train(tiny_config(data, network), folder / "run", progress=False)

    return build_once(shared_folder / f"tiny-{network}", build) / "run"


def tiny_bundle(shared_folder: Path, run: Path, network: str) -> Path:
    from training.export import export_run

    def build(folder: Path) -> None:
        export_run(run, folder, version="1.0.0")

    return build_once(shared_folder / f"store-{network}", build) / f"tiny-{network}" / "1.0.0"


@pytest.fixture(scope="session")
def tiny_din_run(shared_folder: Path, tiny_data: Path) -> Path:
    """Folder of a finished run of DIN; not to be written to."""
    return tiny_run(shared_folder, tiny_data, "din")


@pytest.fixture(scope="session")
def tiny_dien_run(shared_folder: Path, tiny_data: Path) -> Path:
    """Folder of a finished run of DIEN; not to be written to."""
    return tiny_run(shared_folder, tiny_data, "dien")


@pytest.fixture(scope="session")
def tiny_din_bundle(shared_folder: Path, tiny_din_run: Path) -> Path:
    """Folder ``<store>/tiny-din/1.0.0`` of a published bundle; not to be written to."""
    return tiny_bundle(shared_folder, tiny_din_run, "din")


@pytest.fixture(scope="session")
def tiny_dien_bundle(shared_folder: Path, tiny_dien_run: Path) -> Path:
    """Folder ``<store>/tiny-dien/1.0.0`` of a published bundle; not to be written to."""
    return tiny_bundle(shared_folder, tiny_dien_run, "dien")


@pytest.fixture(scope="session")
def movielens_folder() -> Path:
    """The MovieLens-100k files, or a skip that says which folder is absent."""
    folder = TEST_DATA / "ctr" / "ml-100k"
    if not folder.is_dir():
        pytest.skip(f"no test data: {folder} is absent (set CTRLIFT_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def compiler() -> list[str]:
    """The command of a C++ compiler; without one the tests that need it are skipped."""
    from service.compiling import BuildFailed, find_compiler

    try:
        return find_compiler()
    except BuildFailed as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def compiled_library(shared_folder: Path, compiler: list[str]) -> Path:
    """The readers and writers of requests, built once a run from the source as it is."""
    from service.compiled.build import build

    def make(folder: Path) -> None:
        build(folder / "_compiled.so")

    return build_once(shared_folder / "compiled", make) / "_compiled.so"


@pytest.fixture(scope="session")
def kernel_library(shared_folder: Path, compiler: list[str]) -> Path:
    """The compiled operators, built once a run from the source as it is."""
    from service.engines.kernel.build import build

    def make(folder: Path) -> None:
        build(folder / "_kernel.so")

    return build_once(shared_folder / "kernel", make) / "_kernel.so"

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from bundle.errors import BundleRefused, UnknownModel
from bundle.loading import open_bundle
from bundle.store import ModelStore
from bundle.versions import is_version, precedence
from tests.bundle.samples import fitted_shop, write_shop

ROOT = Path(__file__).parents[2]


def touch(folder: Path) -> None:
    (folder / "file").write_text("content")


def test_publish_gives_a_bundle_that_opens(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    fitted = fitted_shop()
    path = store.publish("shop", store.next_version("shop"), lambda folder: write_shop(folder, fitted) and None)
    assert path == tmp_path / "store" / "shop" / "1.0.0"
    assert store.names() == ["shop"]
    (path.parent / "graph").mkdir()  # something else in the folder is no version
    assert store.versions("shop") == ["1.0.0"]


def test_versions_sort_semantically_and_the_next_is_a_minor(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    assert store.next_version("m") == "1.0.0"
    for version in ("1.10.0", "1.2.0", "2.0.0-rc.2", "2.0.0-rc.10", "1.2.1"):
        store.publish("m", version, touch)
    assert store.versions("m") == ["1.2.0", "1.2.1", "1.10.0", "2.0.0-rc.2", "2.0.0-rc.10"]
    assert store.resolve("m").name == "1.10.0"
    assert store.resolve("m@2.0.0-rc.2").name == "2.0.0-rc.2"
    assert store.next_version("m") == "2.1.0"


def test_precedence_of_the_semver_page() -> None:
    parts = ["-alpha", "-alpha.1", "-alpha.beta", "-beta", "-beta.2", "-beta.11", "-rc.1", ""]
    order = [f"1.0.0{part}" for part in parts]
    assert sorted(set(order), key=precedence) == order


@pytest.mark.parametrize(
    "text", ["1", "1.0", "01.0.0", "1.0.0-", "1.0.0-01", "v1.0.0", "1.0.0\n", "..", "1.0.0/..", "١.0.0"]
)
def test_not_versions(text: str, tmp_path: Path) -> None:
    assert not is_version(text)
    with pytest.raises(UnknownModel):
        ModelStore(tmp_path).publish("m", text, touch)


def test_the_same_version_again_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    path = store.publish("m", "1.0.0", touch)
    with pytest.raises(BundleRefused) as caught:
        store.publish("m", "1.0.0", lambda folder: None)
    assert caught.value.reason == "version_immutable"
    assert (path / "file").read_text() == "content"


def test_two_exports_of_one_version_at_once(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def build(folder: Path) -> None:
        barrier.wait(timeout=20)  # both have passed the first check by now

    def export() -> None:
        try:
            store.publish("m", "1.0.0", build)
            outcomes.append("published")
        except BundleRefused as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=export) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(outcomes) == ["published", "version_immutable"]
    assert not list((tmp_path / "m").glob(".1.0.0*"))


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)

    def broken(folder: Path) -> None:
        touch(folder)
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        store.publish("m", "1.0.0", broken)
    assert store.names() == []
    assert list((tmp_path / "m").iterdir()) == []


def test_a_killed_export_is_never_picked_up(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from bundle.store import ModelStore
        def build(folder):
            (folder / "model.onnx").write_bytes(b"half")
            print("building", flush=True)
            time.sleep(60)
        ModelStore(Path({str(tmp_path)!r})).publish("m", "1.0.0", build)
    """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"building\n"
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait(timeout=20)
        child.stdout.close()
    left = [path.name for path in (tmp_path / "m").iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".1.0.0.tmp-")
    store = ModelStore(tmp_path)
    assert store.names() == []
    assert store.versions("m") == []
    with pytest.raises(UnknownModel):
        store.resolve("m@1.0.0")
    assert store.publish("m", "1.0.0", touch).is_dir()


def test_aliases_are_replaced_atomically(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for version in ("1.0.0", "1.1.0"):
        store.publish("m", version, touch)
    store.set_alias("m", "champion", "1.0.0")
    store.set_alias("m", "challenger", "1.1.0")
    assert store.aliases("m") == {"champion": "1.0.0", "challenger": "1.1.0"}
    assert store.resolve("m@challenger").name == "1.1.0"
    stop = threading.Event()
    seen: list[str] = []

    def read() -> None:
        while not stop.is_set():
            seen.append(store.aliases("m")["champion"])

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(30):
        store.set_alias("m", "champion", ("1.0.0", "1.1.0")[turn % 2])
    stop.set()
    reader.join(timeout=20)
    assert set(seen) <= {"1.0.0", "1.1.0"}
    assert sorted(p.name for p in (tmp_path / "m").iterdir() if "tmp" in p.name) == []


def test_aliases_name_published_versions_only(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.publish("m", "1.0.0", touch)
    with pytest.raises(UnknownModel):
        store.set_alias("m", "champion", "2.0.0")
    for alias in ("Champion", "../x", "", "a/b"):
        with pytest.raises(ValueError, match="alias"):
            store.set_alias("m", alias, "1.0.0")


@pytest.mark.parametrize(
    "spec", ["", "M", "../m", "/m", "m@", "m@..", "m@../m/1.0.0", "m@absent", "x", "m@@1.0.0", "m\n", "m@1.0.0\n"]
)
def test_a_spec_is_never_a_path(tmp_path: Path, spec: str) -> None:
    store = ModelStore(tmp_path / "store")
    store.publish("m", "1.0.0", touch)
    with pytest.raises(UnknownModel):
        store.resolve(spec)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"champion": 3}', b'{"champion": "../x"}', b"\xff", b"[" * 60_000])
def test_damaged_aliases_are_named(tmp_path: Path, content: bytes) -> None:
    store = ModelStore(tmp_path)
    store.publish("m", "1.0.0", touch)
    (tmp_path / "m" / "aliases.json").write_bytes(content)
    with pytest.raises(BundleRefused, match=r"m/aliases\.json") as caught:
        store.resolve("m@champion")
    assert caught.value.reason == "aliases_damaged"
    assert store.resolve("m@1.0.0").name == "1.0.0"


def test_an_absent_store_is_empty(tmp_path: Path) -> None:
    assert ModelStore(tmp_path / "none").names() == []
    assert ModelStore(tmp_path / "none").versions("m") == []


def test_a_published_bundle_is_complete(tmp_path: Path) -> None:
    fitted = fitted_shop()

    def build(folder: Path) -> None:
        graph = tmp_path / "graph"
        graph.write_bytes(b"graph")
        from bundle.writing import write_bundle_files
        from tests.bundle.samples import manifest_for

        write_bundle_files(folder, manifest_for(fitted), fitted, [], {"onnx": graph})

    bundle = open_bundle(ModelStore(tmp_path / "store").publish("shop", "1.0.0", build))
    assert bundle.path.name == bundle.manifest.version

"""Other servers of the same network: what they compute, how they start, and what is said where they are absent."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving.direct import expected, open_direct
from benchmarks.serving.peers.answering import Answering, Given, sequence_key
from benchmarks.serving.peers.environments import PEERS, NotInstalled, environment, python_of
from benchmarks.serving.peers.starting import command, peer_server
from benchmarks.serving.running import check_scores
from benchmarks.serving.slates import Slate, SlateSizes, slates
from benchmarks.serving.speed_bundle import SpeedFiles
from benchmarks.serving.variants import ONNX
from bundle.behaviours import pack, records
from service.behaviours import EmbeddedServer, RedisStore
from service.settings import StoreSettings

SIZES = SlateSizes(candidates=7, steps=6, items=300, users=3)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a peer's processes are found by Linux's list of them"),
    pytest.mark.xdist_group("speed"),
]


@pytest.fixture(scope="module")
def made() -> list[Slate]:
    return slates(SIZES)


def packed(slate: Slate) -> bytes:
    return pack(records(slate.history, [event["ts"] for event in slate.events()]))


@pytest.mark.parametrize("repeats", [False, True])
def test_a_peer_computes_the_services_scores(speed_files: SpeedFiles, made: list[Slate], repeats: bool) -> None:
    assert speed_files.repeated is not None
    graph = speed_files.repeated if repeats else speed_files.bundle / "model.onnx"
    answering = Answering(Given(speed_files.bundle, graph, repeats, "", 0))
    wanted = expected(open_direct(speed_files.bundle, ONNX).version, made)
    for slate, scores in zip(made, wanted, strict=True):
        got = answering.scores(slate.candidates, slate.context, packed(slate))
        assert np.abs(np.array(got) - scores).max() < 1e-5


@pytest.fixture
def this_python(tmp_path: Path) -> Path:
    """A folder of environments in which plain FastAPI is this interpreter: it has everything that server needs."""
    python = tmp_path / "fastapi" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return tmp_path


def test_plain_fastapi_answers_from_the_same_store(
    speed_files: SpeedFiles, made: list[Slate], this_python: Path
) -> None:
    import redis

    wanted = expected(open_direct(speed_files.bundle, ONNX).version, made)
    with EmbeddedServer(None) as store:
        with redis.Redis(unix_socket_path=str(store.socket_path)) as client:
            for slate in made:
                client.set(sequence_key(slate.user_id), packed(slate))
        given = Given(speed_files.bundle, speed_files.bundle / "model.onnx", False, str(store.socket_path), 0)
        with peer_server(this_python, "fastapi", given, made[0]) as peer:
            assert check_scores(peer, made, wanted) < 1e-5


def test_the_key_is_the_services() -> None:
    store = RedisStore(StoreSettings(), None)  # type: ignore[arg-type]  # no command is sent
    assert sequence_key("user-7") == store.sequence_key("user-7")


def test_what_is_not_installed_says_how_to_install_it(
    speed_files: SpeedFiles, made: list[Slate], tmp_path: Path
) -> None:
    given = Given(speed_files.bundle, speed_files.bundle / "model.onnx", False, "", 0)
    for name in PEERS:
        with pytest.raises(NotInstalled, match=f"peers install {name}"), peer_server(tmp_path, name, given, made[0]):
            pass
        with pytest.raises(NotInstalled):
            python_of(tmp_path, name)


def test_what_the_runner_tells_comes_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Given(Path("a b"), Path("c.onnx"), True, "/s.sock", 8123)
    for key, value in given.to_environment().items():
        monkeypatch.setenv(key, value)
    assert Given.from_environment() == given
    assert environment({})["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("name", sorted(PEERS))
def test_every_peer_listens_on_loopback(name: str, tmp_path: Path) -> None:
    line = " ".join(command(Path("python"), name, 8123, tmp_path))
    folder = Path(__file__).parents[2] / "benchmarks" / "serving" / "peers"
    told = line + (folder / f"{PEERS[name].module}.py").read_text()
    told += "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert "127.0.0.1" in told
    assert "0.0.0.0" not in told

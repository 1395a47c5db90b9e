"""`ctrlift verify` and `ctrlift doctor`: what is wrong is named, with the exit code that belongs to it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from service.compiled import library as compiled
from service.engines.kernel import library
from tests.cli.running import assert_one_sentence, ctrlift
from tests.service import tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle.publish(tmp_path / "bundles")


def test_a_whole_bundle_passes(bundle: Path) -> None:
    ran = ctrlift("verify", bundle, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["name"], ran.json["version"]) == ("movies", "1.0.0")
    assert {check["check"]: check["result"] for check in ran.json["checks"]} == {
        "digests": "ok",
        "onnx": "ok",
        "torchscript": "absent",
    }


def test_a_flipped_bit_is_refused(bundle: Path) -> None:
    graph = bundle / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.chmod(0o644)
    graph.write_bytes(content)
    ran = ctrlift("verify", bundle)
    assert ran.code == 4
    assert_one_sentence(ran, "model.onnx")


@pytest.mark.parametrize("name", ["manifest.json", "schema.json", "model.onnx", "golden.npz"])
def test_a_missing_file_is_refused_and_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    ran = ctrlift("verify", bundle)
    assert ran.code == 4
    assert_one_sentence(ran, name)


def test_a_folder_that_is_not_there_is_input(tmp_path: Path) -> None:
    ran = ctrlift("verify", tmp_path / "none")
    assert ran.code == 3
    assert_one_sentence(ran, "none")


def levels(ran_json: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {finding["check"]: finding["level"] for finding in ran_json["findings"]}


def test_doctor_on_a_machine_that_is_ready(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_library: Path, compiled_library: Path
) -> None:
    monkeypatch.setattr(library, "LIBRARY", kernel_library)
    monkeypatch.setattr(compiled, "LIBRARY", compiled_library)
    monkeypatch.setenv("CTRLIFT_MODELS__DIR", str(bundle.parents[1]))
    monkeypatch.setenv("CTRLIFT_SERVER__PORT", "0")
    ran = ctrlift("doctor", "--store", f"embedded://{tmp_path}/store", "--json")
    assert ran.code == 0, ran.err
    assert levels(ran.json) == {
        "python": "ok",
        "packages": "ok",
        "torch": "ok",
        "kernel": "ok",
        "requests": "ok",
        "store": "ok",
        "model store": "ok",
        "port": "ok",
    }


def test_doctor_names_what_is_down_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LIBRARY", tmp_path / "absent.so")
    monkeypatch.setattr(compiled, "LIBRARY", tmp_path / "absent.so")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("CTRLIFT_SERVER__PORT", str(taken.getsockname()[1]))
        monkeypatch.setenv("CTRLIFT_MODELS__DIR", str(tmp_path / "none"))
        ran = ctrlift("doctor", "--store", f"unix://{tmp_path}/nobody.sock", "--json")
    assert ran.code == 1
    assert_one_sentence(ran, "store")
    found = levels(ran.json)
    assert (found["store"], found["model store"], found["port"]) == ("fail", "warn", "warn")
    assert (found["kernel"], found["requests"]) == ("warn", "warn")
    assert all(finding["do"] for finding in ran.json["findings"] if finding["level"] != "ok")

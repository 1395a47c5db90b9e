"""The demo as a person runs it, and that nothing of it stays behind, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import incentive_demo
from cli.demo import CONFIG
from cli.service_process import ServiceProcess
from service.behaviours.processes import is_alive
from tests.service import tiny_bundle
from training.datasets.sources import cache_folder

ROOT = Path(__file__).parents[2]
ENDS_WITHIN_S = 20.0
needs_proc = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc to see processes")


def running_with(word: str) -> list[str]:
    """Command lines of live processes that hold a word; the demo's children all name its folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it ended while we looked
        if word in command and path.parent.name != str(os.getpid()):
            found.append(command)
    return found


def store_of(folder: Path) -> tuple[int, str | None]:
    """The embedded server that keeps its data in a folder: its number and when it started."""
    record = json.loads((folder / "ctrlift-server.json").read_text())
    return record["server"], record["server_started"]


def wait_until(condition: Callable[[], bool], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.fixture
def trial() -> None:
    """The trial's file in the cache, or a skip that says which folder is absent."""
    folder = cache_folder("thornton")
    if not (folder / "thornton_hiv.dta").is_file():
        pytest.skip(f"no test data: {folder} is absent (`ctrlift data fetch thornton`)")


def demo_command(folder: Path, data: Path) -> list[str]:
    """The demo on all ratings, but one pass over histories of ten steps, and two over the trial."""
    changes = ["train.epochs=1", "train.batch_size=1024", f"data.path={json.dumps(str(data))}"]
    features = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["feature"]
    changes += [f"feature.{feature['name']}.max_len=10" for feature in features if feature["kind"] == "sequence"]
    options = [word for change in changes for word in ("--set", change)]
    lines = incentive_demo.CONFIG.read_text(encoding="utf-8").splitlines()
    incentive = folder.with_name("incentive.toml")
    quick = ["epochs = 2" if line.startswith("epochs") else line for line in lines]
    incentive.write_text("\n".join(quick), encoding="utf-8")
    options += ["--incentive", str(incentive)]
    return [sys.executable, "-m", "cli.main", "demo", "--folder", str(folder), *options]


@needs_proc
@pytest.mark.usefixtures("trial")
def test_from_files_to_answers(tmp_path: Path, movielens_folder: Path) -> None:
    folder = tmp_path / "demo"
    wide = {**os.environ, "COLUMNS": "160"}  # narrower tables fold their headings
    done = subprocess.run(
        demo_command(folder, movielens_folder),
        cwd=ROOT,
        env=wide,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    auc = {name: float(value) for name, value in re.findall(r"(network|item rate)\s*│ (0\.\d+)", done.stdout)}
    assert auc["network"] > auc["item rate"]
    assert done.stdout.count("pctr") == 4  # three known users and a new one
    assert re.search(r"user \d+: [1-9]\d* behaviours, source store", done.stdout)
    assert re.search(r"user somebody-new: 0 behaviours", done.stdout)
    for heading in ("outcomes.control", "effects.incentive", "intervals.incentive", "dose_response.incentive"):
        assert heading in done.stdout
    assert len(set(re.findall(r"thornton-\d+", done.stdout))) == incentive_demo.PEOPLE_SHOWN
    assert "missing_feature:age" in done.stdout  # of somebody new, and of nobody else
    assert running_with(str(folder)) == []

    # What `make serve` starts: the same settings, the users' behaviours still there.
    user = re.search(r"user (\d+): ([1-9]\d*) behaviours", done.stdout)
    with ServiceProcess(folder / "service.toml", tmp_path / "again.log") as service:
        service.wait_until_ready()
        answer = service.post("/score", {"user_id": user[1], "candidates": ["50", "100"]})
        person = re.search(r"thornton-\d+", done.stdout)
        assert person is not None
        effect = service.post("/uplift", {"users": [{"user_id": person[0]}]})
    assert answer["behaviours"] == {"source": "store", "length": int(user[2])}
    assert answer["degraded"] == []
    assert effect["model"]["name"] == "incentive"
    assert effect["users"][0]["warnings"] == []


@needs_proc
@pytest.mark.usefixtures("trial")
def test_ctrl_c_leaves_nothing_running(tmp_path: Path, movielens_folder: Path) -> None:
    folder = tmp_path / "demo"
    log = tmp_path / "stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            demo_command(folder, movielens_folder), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr
        )
        try:
            assert wait_until(lambda: (folder / "run" / "run.json").exists(), 120), log.read_text()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130, log.read_text()
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()
    assert wait_until(lambda: running_with(str(folder)) == [], ENDS_WITHIN_S)


@needs_proc
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_the_service_ends_with_its_parent(tmp_path: Path, end: signal.Signals) -> None:
    tiny_bundle.publish(tmp_path / "bundles")
    settings = tmp_path / "service.toml"
    settings.write_text(f'[models]\ndir = "{tmp_path}/bundles"\n\n[store]\nurl = "embedded://{tmp_path}/store"\n')
    code = (
        "import sys, time; from pathlib import Path; from cli.service_process import ServiceProcess\n"
        "with ServiceProcess(Path(sys.argv[1]), Path(sys.argv[2])) as service:\n"
        "    service.wait_until_ready(); print('ready', flush=True); time.sleep(120)\n"
    )
    command = [sys.executable, "-c", code, str(settings), str(tmp_path / "log")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"ready\n"
            store = store_of(tmp_path / "store")
            assert is_alive(*store)
            assert len(running_with(str(tmp_path))) >= 2  # the parent and the service
            parent.send_signal(end)
            parent.wait(30)
        finally:
            parent.kill()
    assert wait_until(lambda: running_with(str(tmp_path)) == [], ENDS_WITHIN_S), running_with(str(tmp_path))
    assert wait_until(lambda: not is_alive(*store), ENDS_WITHIN_S)

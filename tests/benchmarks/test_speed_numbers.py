"""What becomes of measurements: turns, medians, ratios, notes, the record and the page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.serving.costs import cpu_seconds, private_mb, process_tree, thread_cpu_seconds, tree_cpu_seconds
from benchmarks.serving.plots import HEIGHT, WIDTH, axis, line_plot
from benchmarks.serving.promises import PROMISES
from benchmarks.serving.rounds import cpu_ms, in_turns, ratios, summary
from benchmarks.serving.running import ScoresDiffer, largest
from benchmarks.serving.speed_page import write_page
from benchmarks.serving.speed_run import PARTS, QUICK_PARTS, RunOptions, chosen, ratios_of, result
from benchmarks.serving.variants import kernel_here

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's clocks and maps of Linux")


def part(value: float) -> dict[str, Any]:
    return {"median": value, "rounds": [value] * 5}


def sides(value: float) -> dict[str, Any]:
    return {"onnx": part(value), "kernel": part(3 * value)}


def graph(candidates: int, value: float) -> dict[str, Any]:
    return {
        "candidates": candidates,
        "steps": 50,
        "cpu_ms": {"onnx": part(2.0), "kernel": part(1.0), "repeated": part(2.0 * value)},
        "ratios": sides(value),
        "repeated_gflops": 30.0,
        "product_gflops": 90.0,
        "share_of_product_rate": 0.333,
    }


def service(throughput: float, cpu: float) -> dict[str, Any]:
    names = (
        "overhead_us",
        "direct_cpu_us",
        "request_cpu_us",
        "loop_us",
        "engine_us",
        "requests_per_second",
        "worker_cores",
        "p50_ms",
        "p99_ms",
    )
    inside = {name: part(40.0) for name in ("request_cpu_us", "graph_us", "around_us", "loop_us")}
    return {"throughput": part(throughput), "cpu": part(cpu), **{name: part(50.0) for name in names}, "inside": inside}


def body(rate: float) -> dict[str, Any]:
    return {
        "requests_per_second": part(rate),
        "request_cpu_us": part(1e6 / rate),
        "loop_us": part(9.0),
        "body_bytes": 7,
    }


ALL_PARTS: dict[str, Any] = {
    "graph": {"100": graph(100, 2.5), "500": graph(500, 4.0)},
    "service": {"onnx": service(0.99, 0.97), "kernel": service(0.93, 0.95)},
    "alone": service(0.04, 0.04) | {"overhead_us": part(33.0)},
    "bodies": {"100": {"JSON": body(500.0), "Arrow": body(400.0)}},
    "workers": {
        "throughput": part(1.9),
        "cpu_corrected": part(1.97),
        **{
            name: {"1": part(100.0), "2": part(190.0)}
            for name in ("requests_per_second", "request_cpu_us", "worker_cores")
        },
    },
    "memory": {"private_mb": [30.0, 31.0], "resident_mb": [300.0, 301.0], "second_worker_mb": 31.0},
    "uplift": {"features in the request": {"graph_cpu_ms": 6.0, "request_cpu_ms": 8.0, "ratio": 0.75}},
}


def test_sides_take_turns_and_few_rounds_are_refused() -> None:
    order: list[str] = []
    found = in_turns({name: lambda name=name: order.append(name) or 1.0 for name in "ab"}, 5)  # type: ignore[misc]
    assert order == ["a", "b"] * 5
    assert found == {"a": [1.0] * 5, "b": [1.0] * 5}
    with pytest.raises(ValueError, match="at least 5"):
        in_turns({}, 4)


def test_a_ratio_is_the_median_of_the_rounds_quotients() -> None:
    quotients = ratios([2.0, 30.0, 6.0, 9.0, 8.0], [1.0, 1.0, 2.0, 3.0, 4.0])
    assert quotients == [2.0, 30.0, 3.0, 3.0, 2.0]
    assert summary(quotients)["median"] == 3.0
    with pytest.raises(ValueError, match="argument 2"):
        ratios([1.0], [1.0, 2.0])


def test_waiting_is_no_cpu_time() -> None:
    assert cpu_ms(lambda: time.sleep(0.01), 0.02)() < 5
    values = np.random.default_rng(0).normal(size=200_000)
    assert cpu_ms(lambda: np.sort(values), 0.02)() > 0.1


@linux
def test_cpu_time_of_another_process_is_its_own() -> None:
    busy = "import time; s = time.process_time()\nwhile time.process_time() - s < .2: pass\nprint(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert process_tree(os.getpid())[0] == os.getpid()
        assert child.pid in process_tree(os.getpid())
        assert 0.2 <= cpu_seconds(child.pid) < 5
        before = tree_cpu_seconds([child.pid])
        time.sleep(0.05)
        assert tree_cpu_seconds([child.pid]) - before < 0.02
        child.communicate(b"\n")
    assert tree_cpu_seconds([child.pid]) == 0.0  # it has ended


@linux
def test_cpu_time_is_told_by_thread() -> None:
    busy = (
        "import threading, time\n"
        "def work():\n"
        "    while time.thread_time() < .2: pass\n"
        "    print(flush=True); ended.wait()\n"
        "ended = threading.Event(); threading.Thread(target=work).start(); input(); ended.set()"
    )
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.02)  # a thread's time is brought up to date when it stops running
        found = thread_cpu_seconds(child.pid)
        assert len(found) == 2
        (other,) = (spent for thread, spent in found.items() if thread != child.pid)
        assert 0.2 <= other < 1
        assert sum(found.values()) == pytest.approx(cpu_seconds(child.pid), abs=0.01)
        child.communicate(b"\n")


@linux
def test_shared_memory_is_not_private() -> None:
    hold = "import mmap, sys; held = {}; print(flush=True); input()"
    private = "bytearray(b'x') * 40_000_000"
    with (
        subprocess.Popen([sys.executable, "-c", hold.format("0")], stdin=-1, stdout=-1) as small,
        subprocess.Popen([sys.executable, "-c", hold.format(private)], stdin=-1, stdout=-1) as large,
    ):
        for child in (small, large):
            assert child.stdout is not None
            child.stdout.readline()
        grown = private_mb(large.pid) - private_mb(small.pid)
        for child in (small, large):
            child.communicate(b"\n")
    assert 35 < grown < 45


def test_scores_that_differ_stop_everything() -> None:
    same = np.full(3, 0.5)
    assert largest("a peer", [(same, same + 9e-6)]) < 1e-5
    with pytest.raises(ScoresDiffer, match="a peer"):
        largest("a peer", [(same, same + 2e-5)])
    with pytest.raises(ScoresDiffer, match="shape"):
        largest("a peer", [(same, same[:2])])
    with pytest.raises(ScoresDiffer):
        largest("a peer", [(same, np.full(3, np.nan))])


def test_every_key_of_a_quick_run_has_a_value_or_a_note() -> None:
    quick = RunOptions(quick=True)
    full = result(quick, ALL_PARTS)
    keys = [key for key, promise in PROMISES.items() if not promise.full]
    assert all(isinstance(full[key], float) for key in keys)
    assert full["notes"] == {}
    empty = result(quick, {})
    assert all(empty[key] is None and "was not run" in empty["notes"][key] for key in keys)
    assert json.loads(json.dumps(full, allow_nan=False))["quick"] is True
    assert set(PROMISES) <= set(result(RunOptions(), ALL_PARTS))


def test_values_come_from_where_they_are_said_to() -> None:
    values, notes = ratios_of(ALL_PARTS, tuple(PROMISES))
    assert values["graph_over_repeated_100"] == 2.5
    assert values["kernel_over_repeated_500"] == 12.0
    assert (values["service_over_direct"], values["service_over_direct_cpu"]) == (0.99, 0.97)
    assert (values["service_over_direct_kernel"], values["service_over_direct_kernel_cpu"]) == (0.93, 0.95)
    assert (values["service_overhead_us"], values["service_around_us"], values["service_alone_us"]) == (50, 40, 33)
    assert values["worker2_private_mb"] == 31.0
    assert values["over_best_peer"] is None
    assert notes["over_best_peer"] == "the part 'peers' was not run"


def test_a_slow_opponent_gives_no_ratio() -> None:
    slow = {"100": graph(100, 9.0) | {"note": "too slow to be compared with"}, "500": graph(500, 4.0)}
    values, notes = ratios_of({"graph": slow}, ("graph_over_repeated_100", "graph_over_repeated_500"))
    assert values == {"graph_over_repeated_100": None, "graph_over_repeated_500": 4.0}
    assert notes == {"graph_over_repeated_100": "too slow to be compared with"}


def test_the_best_peer_is_the_full_framework_that_comes_closest() -> None:
    def peer(over: float, *, full: bool) -> dict[str, Any]:
        return {"over": part(over), "over_with_fastest": part(9.0), "full_framework": full}

    plain = "plain FastAPI, history-repeated graph"
    peers = {"A": peer(1.4, full=True), "B": peer(1.2, full=True), plain: peer(1.1, full=False)}
    values, _ = ratios_of({"peers": {"peers": peers, "missing": {}}}, ("over_best_peer", "over_plain_fastapi"))
    assert values == {"over_best_peer": 1.2, "over_plain_fastapi": 9.0}


def test_without_the_kernel_its_keys_say_why() -> None:
    parts = {"graph": {"100": graph(100, 2.5) | {"ratios": {"onnx": part(2.5)}}}, "service": {"onnx": service(1, 1)}}
    values, notes = ratios_of(parts, ("kernel_over_repeated_100", "service_over_direct_kernel"))
    assert set(values.values()) == {None}
    assert all(str(kernel_here()) in note for note in notes.values())


def test_parts_of_a_run() -> None:
    assert chosen(RunOptions(quick=True)) == list(QUICK_PARTS)
    assert chosen(RunOptions()) == list(PARTS)
    assert chosen(RunOptions(only=("memory", "graph"))) == ["graph", "memory"]


def test_the_page_is_written_from_the_record_and_parts_are_kept(tmp_path: Path) -> None:
    write_page(result(RunOptions(), ALL_PARTS), tmp_path)
    later = {"candidates": {"points": [graph(count, 2.5) for count in (1, 10, 100)]}}
    write_page(result(RunOptions(only=("candidates",)), later), tmp_path)
    record = json.loads((tmp_path / "serving-speed.json").read_text())
    assert record["graph_over_repeated_100"] == 2.5, "the part of the earlier run"
    assert set(record["parts"]) == set(record["measured"]) == {*ALL_PARTS, "candidates"}
    page = (tmp_path / "serving.md").read_text()
    for key, promise in PROMISES.items():
        assert f"| {promise.what} |" in page
        shown = record["notes"][key] if record[key] is None else f"{record[key]:.4g}"
        assert f"| {shown} | {promise.bar} |" in page
    for image in ("serving-candidates.svg",):
        assert f"]({image})" in page
        ET.parse(tmp_path / image)
    assert record["environment"]["command"] in page


def test_results_of_several_runs_are_merged_with_the_date_and_the_command_of_each(tmp_path: Path) -> None:
    files = []
    for number, name in enumerate(("graph", "service", "graph")):
        part_of_run = {"100": graph(100, 2.5 + number), "500": graph(500, 4.0)} if name == "graph" else ALL_PARTS[name]
        found = result(RunOptions(only=(name,)), {name: part_of_run})
        found["environment"]["date"] = f"day {9 - number}"
        found["measured"][name] = {"date": f"day {number}", "command": f"bench --only {name} # {number}"}
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(found))
    command = [sys.executable, "-m", "benchmarks.serving.speed", "--record", str(tmp_path / "kept"), "--merge", *files]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True)
    record = json.loads((tmp_path / "kept" / "serving-speed.json").read_text())
    assert set(record["parts"]) == {"graph", "service"}
    assert {name: told["date"] for name, told in record["measured"].items()} == {"graph": "day 2", "service": "day 1"}
    assert record["environment"]["date"] == "day 9", "the newest, wherever it stands"
    assert (record["graph_over_repeated_100"], record["service_over_direct"]) == (4.5, 0.99), "the later run's"
    assert "bench --only service # 1" in (tmp_path / "kept" / "serving.md").read_text()


def test_a_quick_run_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="quick"):
        write_page(result(RunOptions(quick=True), ALL_PARTS), tmp_path)
    assert list(tmp_path.iterdir()) == []


@given(
    st.lists(st.tuples(st.floats(1e-3, 1e7), st.floats(1e-3, 1e7)), min_size=1, max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_every_point_of_a_plot_is_inside_it(points: list[tuple[float, float]], log_x: bool, log_y: bool) -> None:
    across = axis("x", [x for x, _ in points], log=log_x)
    up = axis("y & <", [y for _, y in points], log=log_y)
    root = ET.fromstring(line_plot("a & b", across, up, {"one": points, "two": points[:1]}))
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(points) + 1
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= HEIGHT
    assert len(up.ticks()) >= 0


def test_a_logarithm_needs_values_above_zero() -> None:
    with pytest.raises(ValueError, match="above 0"):
        axis("x", [0.0, 1.0], log=True)
    with pytest.raises(ValueError, match="needs values"):
        axis("x", [], log=False)


def test_a_run_whose_networks_are_there_loads_no_torch() -> None:
    code = "import sys, benchmarks.serving.speed_run; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)

"""Rows a second of `ctrlift score` on one core, beside the predict of public libraries on the same rows.

The network is that of the serving benchmarks (DIEN, AUGRU, 50 behaviours, item and category of 18 each, attention
80-40-1, top 200-80, 16 numbers); the libraries build theirs with the same shapes of weights, which is checked. Their
weights are their own, so that scores cannot be compared across libraries; ours are compared with what the served
version answers for the same users one at a time.

What is counted is processor time of one thread. For us all of it: reading the file, hashing ids, encoding, the graph,
the correction, writing the file; once as the whole command in a process of its own, once without its start. For the
libraries their own predict with rows that lie encoded in memory, which is in their favour, at the best of several
batch sizes. Two kinds of files: slates of 100 candidates a user, and single rows of a user and history each.

A library needs an interpreter that has it; several interpreters may be given:

    python3.11 -m venv peer && peer/bin/pip install torch==2.13.0 requests deepctr-torch==0.3.0
    python3.11 -m venv more && more/bin/pip install torch==2.13.0 torch-rechub==0.9.0 fuxictr==2.3.10

Run: ``python -m benchmarks.batch.predict --peer-python peer/bin/python --peer-python more/bin/python``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import polars as pl

from benchmarks.batch.rows import STEPS, peer_arrays, write_rows
from benchmarks.record import write_record
from benchmarks.serving.cache import default_cache
from benchmarks.serving.speed_bundle import SpeedFiles, cached
from benchmarks.serving.speed_config import CONTEXT, NOW
from bundle.arrays import write_npz
from bundle.request import Behaviour, ScoreQuery
from cli.batch import past
from cli.batch.slates import Chunk, longest_history, slates_of
from cli.score import score
from service.core.version import ServedVersion, load_version

WORKER: Final = Path(__file__).with_name("peer_worker.py")
MODULES: Final = {"deepctr-torch": "deepctr_torch", "torch-rechub": "torch_rechub", "fuxictr": "fuxictr"}
SAME_SHAPES: Final = {(80, 144), (40, 80), (1, 40), (108, 36), (200, 88), (80, 200), (1, 80)}
OTHER_ATTENTION: Final = {"torch-rechub": {(80, 144), (40, 80), (1, 40)}}  # bilinear, which is less work
BATCH_SIZES: Final = (128, 512, 2048)
LARGEST_DIFFERENCE: Final = 1e-5
ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}


@dataclass(frozen=True)
class Sizes:
    """How much is measured: users and candidates of the file, rows of it for the libraries, rounds."""

    users: int
    candidates: int
    peer_rows: int
    rounds: int


SLATES: Final = Sizes(users=2000, candidates=100, peer_rows=8192, rounds=5)
SINGLE: Final = Sizes(users=40_000, candidates=1, peer_rows=8192, rounds=5)


class Peer:
    """A library in a process of its own interpreter; used as a context."""

    def __init__(self, python: str, library: str, arrays: Path) -> None:
        self._command = [python, str(WORKER)]
        self.library = library
        self._arrays = arrays

    def __enter__(self) -> Self:
        environment = {**os.environ, **ONE_THREAD}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        found = {tuple(shape) for shape in self.ask({"load": self.library, "arrays": str(self._arrays)})["shapes"]}
        missing = SAME_SHAPES - OTHER_ATTENTION.get(self.library, set()) - found
        if missing:
            raise RuntimeError(f"the network of {self.library} has no weights of shapes {sorted(missing)}")
        return self

    def ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"{self.library} ended with code {self._process.wait()}")

    def cpu_us(self, batch_size: int, rows: int) -> float:
        """Processor time of one prediction in microseconds a row."""
        answer = self.ask({"predict": batch_size, "rows": rows})
        if answer["rows"] != rows or not answer["finite"]:
            raise RuntimeError(f"{self.library} did not predict {rows} rows: {answer}")
        return float(answer["cpu_s"]) / rows * 1e6

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def interpreters(given: Sequence[str]) -> dict[str, str]:
    """Library -> an interpreter that has it."""
    found: dict[str, str] = {}
    for python in given:
        for library, module in MODULES.items():
            code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
            if subprocess.run([python, "-c", code], check=False).returncode == 0:
                found.setdefault(library, python)
    return found


def command_here(rows: Path, out: Path, models: Path) -> tuple[float, float]:
    """The command without its interpreter's start: (processor, wall) seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    with redirect_stdout(io.StringIO()):
        score(rows, out, models=models, workers=1, as_json=True, quiet=True)
    return time.process_time() - cpu, time.perf_counter() - wall


# The peak of this process alone: the kernel's account of a child starts with its parent's.
COMMAND: Final = """
import sys
from cli.main import app
try:
    app()
finally:
    sys.stderr.write(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def command_apart(rows: Path, out: Path, models: Path, workers: int) -> dict[str, float]:
    """The whole command in a process of its own: seconds and MB, its workers' seconds included."""
    arguments = ["score", str(rows), "--out", str(out), "--models", str(models), "--quiet", "--json"]
    environment = {**os.environ, **(ONE_THREAD if workers == 1 else {})}
    start = time.perf_counter()
    before = os.times()
    command = [sys.executable, "-c", COMMAND, *arguments, "--workers", str(workers)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ctrlift score ended with code {done.returncode}: {done.stderr}")
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"cpu_s": cpu, "wall_s": wall, "peak_mb": int(done.stderr.split()[-2]) / 1024}


def largest_difference(rows: Path, out: Path, version: ServedVersion, users: int) -> float:
    """Between the file's scores and the served version's answers, user by user."""
    scored = pl.read_parquet(out)
    if not scored.select(pl.read_parquet_schema(rows).keys()).equals(pl.read_parquet(rows)):
        raise RuntimeError("the rows did not come back as they went in")
    differences = []
    for slate in scored.head(users * 100).partition_by("user_id", maintain_order=True)[:users]:
        first = slate.row(0, named=True)
        behaviours = [Behaviour(*each) for each in zip(first[past.ITEM], first[past.TIME], strict=True)]
        context = {name: first[name] for name in CONTEXT}
        query = ScoreQuery(None, slate["item_id"].to_list(), NOW, context, behaviours=behaviours)
        answer = version.score(query, None).probabilities["ctr"][0]
        differences.append(float(np.abs(answer - slate["pctr"].to_numpy()).max()))
    return max(differences)


def write_peer_rows(rows: Path, version: ServedVersion, most: int, target: Path) -> None:
    """The first rows of the file, encoded, as the libraries take them."""
    chunk = Chunk(pl.read_parquet(rows, n_rows=most), rows, 0, NOW, {})
    slates = slates_of(chunk, version.bundle.fitted.schema)
    parts = []
    for _, block in slates.blocks(longest_history(version.bundle.fitted.schema)):
        parts.append(peer_arrays(version.bundle.encoder.encode(block).take(None, trim=False)))
    write_npz(target, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def measure(sizes: Sizes, files: SpeedFiles, peers: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """One kind of file: ours and the libraries in turns, medians of processor time a row."""
    rows, out, arrays = folder / "rows.parquet", folder / "out.parquet", folder / "rows.npz"
    write_rows(rows, sizes.users, sizes.candidates)
    count = sizes.users * sizes.candidates
    version = load_version(files.bundle)
    peer_rows = min(count, sizes.peer_rows) // sizes.candidates * sizes.candidates
    write_peer_rows(rows, version, peer_rows, arrays)
    ours: list[float] = []
    wall: list[float] = []
    theirs: dict[str, dict[int, list[float]]] = {library: {size: [] for size in BATCH_SIZES} for library in peers}
    with ExitStack() as stack:
        started = [stack.enter_context(Peer(python, library, arrays)) for library, python in peers.items()]
        for turn in range(sizes.rounds + 1):  # the first one warms up
            cpu_s, wall_s = command_here(rows, out, files.store)
            for peer in started:
                for size, found in theirs[peer.library].items():
                    found += [peer.cpu_us(size, peer_rows)] if turn else []
            if turn:
                ours.append(cpu_s / count * 1e6)
                wall.append(wall_s)
    difference = largest_difference(rows, out, version, users=20)
    version.close()
    if not difference <= LARGEST_DIFFERENCE:
        raise RuntimeError(f"a file's scores differ from the served ones by {difference:.2g}")
    libraries = {name: {size: statistics.median(times) for size, times in by.items()} for name, by in theirs.items()}
    own = statistics.median(ours)
    best = min((min(by.values()) for by in libraries.values()), default=None)
    return {
        "rows": count,
        "candidates_a_user": sizes.candidates,
        "rows_for_libraries": peer_rows,
        "cpu_us_a_row": own,
        "rows_per_cpu_s": 1e6 / own,
        "rows_per_s": count / statistics.median(wall),
        "libraries_cpu_us_a_row": libraries,
        "best_library": min(libraries, key=lambda name: min(libraries[name].values())) if libraries else None,
        "over_best_library": None if best is None else best / own,
        "largest_difference_to_served": difference,
        "whole_command": {str(n): command_apart(rows, out, files.store, n) for n in (1, len(os.sched_getaffinity(0)))},
    }


def ratio(
    peers: Sequence[str], cache: Path | None = None, *, slates: Sizes = SLATES, single: Sizes | None = SINGLE
) -> dict[str, Any]:
    """Processor time a row of the best library over ours, with all that was measured.

    Args:
        peers: interpreters that have libraries.
        cache: folder that keeps the bundle.
        slates: how much is measured of files with many candidates a user.
        single: the same of single rows; None leaves them out.

    Returns:
        batch_over_best_library for slates (None without a library), batch_single_over_best_library, and the results.
    """
    files = cached(cache or default_cache(), repeated=False)
    known = interpreters(peers)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        results["slates"] = measure(slates, files, known, Path(folder))
        if single is not None:
            results["single"] = measure(single, files, known, Path(folder))
    return {
        "batch_over_best_library": results["slates"]["over_best_library"],
        "batch_single_over_best_library": results["single"]["over_best_library"] if single else None,
        "steps": STEPS,
        "peers_rows": "ready in memory, encoded",
        **results,
    }


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", action="append", default=[], help="interpreter that has a library; repeatable")
    parser.add_argument("--cache", type=Path, default=None, help="folder that keeps the bundle")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, two rounds, nothing recorded")
    arguments = parser.parse_args()
    # One interpreter, or several as in PATH, so that an environment variable can name them.
    peers = [python for given in arguments.peer_python for python in given.split(os.pathsep)]
    if arguments.quick:
        quick = (Sizes(200, 100, 2000, 2), Sizes(4000, 1, 2000, 2))
        found = ratio(peers, arguments.cache, slates=quick[0], single=quick[1])
    else:
        found = ratio(peers, arguments.cache)
    for kind in ("slates", "single"):
        show(kind, found[kind])
    if not arguments.quick:
        print(write_record("batch-predict", found))
    return 0


def show(kind: str, row: Mapping[str, Any]) -> None:
    print(f"{kind}: {row['rows']:,} rows, {row['candidates_a_user']} candidates a user")
    print(f"  ctrlift        {row['cpu_us_a_row']:8.1f} us a row  {row['rows_per_cpu_s']:10,.0f} rows/CPU s")
    for library, by in row["libraries_cpu_us_a_row"].items():
        size = min(by, key=by.get)
        print(f"  {library:<14} {by[size]:8.1f} us a row  {1e6 / by[size]:10,.0f} rows/CPU s  at batches of {size}")
    if row["over_best_library"] is not None:
        print(f"  {row['over_best_library']:.2f} times the best library")
    for workers, run in row["whole_command"].items():
        rate = row["rows"] / run["wall_s"]
        print(
            f"  whole command, {workers} workers: {rate:,.0f} rows/s, {run['cpu_s']:.1f} CPU s, {run['peak_mb']:.0f} MB"
        )


if __name__ == "__main__":
    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)
    sys.exit(main())

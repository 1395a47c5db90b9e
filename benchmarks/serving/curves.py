"""How cost grows: with candidates, history, tasks, callers and vocabulary."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.graph_rows import graph_rows
from benchmarks.serving.load import Closed, Open
from benchmarks.serving.running import put_load
from benchmarks.serving.service_rows import stored_service
from benchmarks.serving.slates import SlateSizes, slates
from benchmarks.serving.speed_bundle import SpeedFiles, cached
from benchmarks.serving.speed_config import SpeedConfig
from benchmarks.serving.variants import variants
from benchmarks.serving.worker_rows import memory_rows
from service.core.version import load_version

CANDIDATES: Final = (1, 10, 50, 100, 200, 500, 1000)
HISTORY: Final = (10, 50, 100, 200, 500, 1000)
REPEATED_HISTORY: Final = (10, 50, 200, 1000)
TASKS: Final = (1, 2, 3, 4)
CLIENTS: Final = (1, 2, 4, 8, 16, 32, 64)
SHARES: Final = (0.25, 0.5, 0.75, 0.9)
WORKERS: Final = (1, 2)
VOCABULARY: Final = (10_000, 100_000, 1_000_000, 10_000_000)
ROUNDS: Final = 5
SLICE_S: Final = 0.1
LOAD_S: Final = 2.0


def candidates_curve(files: SpeedFiles) -> list[dict[str, Any]]:
    """CPU time of the graphs over candidates."""
    return [graph_rows(files, SlateSizes(candidates=count, users=4), ROUNDS, SLICE_S) for count in CANDIDATES]


def history_curve(cache: Path) -> list[dict[str, Any]]:
    """CPU time of the graphs over the length of the history."""
    found = []
    for steps in HISTORY:
        files = cached(cache, SpeedConfig(steps=steps), repeated=steps in REPEATED_HISTORY)
        found.append(graph_rows(files, SlateSizes(steps=steps, users=4), ROUNDS, SLICE_S))
    return found


def tasks_curve(cache: Path) -> list[dict[str, Any]]:
    """CPU time of the graphs over tasks; from two on, a mixture of experts stands on the network."""
    found = []
    for tasks in TASKS:
        files = cached(cache, SpeedConfig(tasks=tasks), repeated=False)
        found.append({"tasks": tasks, **graph_rows(files, SlateSizes(users=4), ROUNDS, SLICE_S)})
    return found


def clients_curve(files: SpeedFiles, store_url: str) -> dict[str, Any]:
    """Throughput and latency over callers, and latency at rates that do not wait; one and two workers."""
    made = slates(SlateSizes())
    found: dict[str, Any] = {}
    for workers in WORKERS:
        with ExitStack() as stack:
            settings = {**variants()[-1].settings, "server.workers": workers}
            server = stored_service(stack, files.store, store_url, made, settings)
            where = server.target(made)
            rate = put_load(server, where, Closed(connections=16, requests=400)).load.per_second
            closed = []
            for clients in CLIENTS:
                part = put_load(server, where, Closed(connections=clients, requests=max(100, round(rate * LOAD_S))))
                closed.append({"clients": clients, **_numbers(part.load.per_second, part)})
            best = max(entry["requests_per_second"] for entry in closed)
            timed = []
            for share in SHARES:
                part = put_load(server, where, Open(rate=share * best, seconds=2 * LOAD_S))
                timed.append({"share_of_best": share, "rate": round(share * best, 1), **_numbers(0.0, part)})
        found[str(workers)] = {"closed": closed, "open": timed}
    return found


def _numbers(per_second: float, part: Any) -> dict[str, float]:
    throughput = {"requests_per_second": round(per_second, 1)} if per_second else {}
    return throughput | {
        "p50_ms": round(part.load.p50_ms, 3),
        "p99_ms": round(part.load.p99_ms, 3),
        "request_cpu_us": round(part.cpu_us, 1),
    }


def vocabulary_curve(cache: Path, store_url: str) -> list[dict[str, Any]]:
    """Memory of a second worker and time to load over the number of items, each with a row of its own."""
    found = []
    for items in VOCABULARY:
        bundle = cached(cache, SpeedConfig(items=items), repeated=False).bundle
        started = time.perf_counter()
        load_version(bundle).close()
        seconds = time.perf_counter() - started
        memory = memory_rows(bundle, store_url, variants()[-1], items)
        size = sum(path.stat().st_size for path in bundle.iterdir()) / 2**20
        found.append({"items": items, "bundle_mb": round(size, 1), "load_s": round(seconds, 2), **memory})
    return found

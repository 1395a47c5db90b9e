"""What HTTP, the store and the encoding add to a run of the graph: /score against the session called directly.

Run ``python -m benchmarks.serving.score_latency``. A closed loop with one caller over loopback: it measures the cost of
a request, not how many the service takes.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.record import write_record
from benchmarks.serving.process import Service, service_process
from bundle.request import ScoreQuery
from service.core.version import load_version
from tests.service import tiny_bundle

WARM_UP = 50


def timings(call: Callable[[], object], count: int) -> dict[str, float]:
    """p50 and p99 of single calls in milliseconds."""
    for _ in range(WARM_UP):
        call()
    ms = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        ms.append((time.perf_counter() - started) * 1e3)
    return {"p50_ms": round(float(np.percentile(ms, 50)), 3), "p99_ms": round(float(np.percentile(ms, 99)), 3)}


def over_http(service: Service, body: dict[str, Any], count: int) -> dict[str, float]:
    """The same for requests, and the CPU time that the service spent on one."""
    process = psutil.Process(service.process.pid)

    def cpu_s() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    with httpx.Client(base_url=service.url, timeout=10) as client:

        def call() -> None:
            client.post("/score", json=body).raise_for_status()

        for _ in range(WARM_UP):
            call()
        before = cpu_s()
        measured = timings(call, count)
        return measured | {"cpu_ms": round((cpu_s() - before) / (count + WARM_UP) * 1e3, 3)}


def measure(bundle: Path, candidates: list[str], count: int) -> dict[str, Any]:
    """Time one bundle's graph, the scoring core and the service around it."""
    version = load_version(bundle)
    query = ScoreQuery("user", candidates, float(2**31), behaviours=[])
    inputs = version.inputs_of(query)
    result: dict[str, Any] = {
        "bundle": f"{version.name} {version.version} ({version.manifest.network})",
        "candidates": len(candidates),
        "requests": count,
        "session": timings(lambda: version._engine.run(inputs), count),
        "core": timings(lambda: version.score(query, None), count),
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = {"models.dir": bundle.parent.parent, "store.url": "embedded://", "log.requests": False}
        with service_process(Path(folder), settings) as service:
            body: dict[str, Any] = {"user_id": "user", "candidates": candidates, "model": version.name}
            result["http with the history from the store"] = over_http(service, body, count)
            result["http with the history in the request"] = over_http(service, body | {"behaviours": []}, count)
    return result


def main() -> None:
    """Print the result as JSON and keep it beside the other benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="a bundle's folder inside a model store; default: a tiny graph")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--requests", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle or tiny_bundle.publish(Path(folder))
        candidates = [str(number) for number in range(1, arguments.candidates + 1)]
        result = measure(bundle, candidates, arguments.requests)
    print(json.dumps(result, indent=1))
    write_record("serving-score-latency", result)


if __name__ == "__main__":
    main()

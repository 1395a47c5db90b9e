"""What was promised on the speed of serving before it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Promise:
    """One ratio: what it compares, the least that was promised, what was hoped for.

    Attributes:
        bar: empty where a number stands beside another one that was promised.
        full: only a run with peers and curves measures it.
    """

    what: str
    bar: str
    aim: str
    full: bool = False


PROMISES: Final[Mapping[str, Promise]] = {
    "graph_over_repeated_100": Promise("exported graph against the history-repeated one, 100 candidates", "2.5", "3.2"),
    "graph_over_repeated_500": Promise("the same, 500 candidates", "3.2", "4"),
    "kernel_over_repeated_100": Promise("kernel against the history-repeated graph, 100 candidates", "6", "10"),
    "kernel_over_repeated_500": Promise("the same, 500 candidates", "7.5", "12"),
    "service_over_direct": Promise(
        "throughput of the service against the direct call, 8 clients, 1 worker, ONNX Runtime", ".95", ".99"
    ),
    "service_over_direct_kernel": Promise("the same with the kernel", ".85", ".95"),
    "service_over_direct_cpu": Promise("CPU of a direct call against that of a request, ONNX Runtime", "", ""),
    "service_over_direct_kernel_cpu": Promise("the same with the kernel", "", ""),
    "service_overhead_us": Promise("CPU of a request without the model, us", "<= 150", "<= 60"),
    "service_around_us": Promise("CPU of a request outside its own run of the graph, us", "", ""),
    "service_alone_us": Promise("CPU of a request without the model, where that is one linear layer, us", "", ""),
    "workers_2_over_1": Promise("2 workers against 1", "1.8", "1.95"),
    "worker2_private_mb": Promise("private memory of the second worker, 256 MB of embeddings, MB", "<= 40", ""),
    "uplift_over_direct": Promise("`/uplift`, 1,000 users x 4 treatments, against the direct call", ".60", ".85"),
    "over_plain_fastapi": Promise(
        "throughput with the kernel against plain FastAPI, history-repeated graph", "8", "12", full=True
    ),
    "over_best_peer": Promise("throughput against the best full framework, same graph", "1.15", "1.25", full=True),
    "batch_over_best_library": Promise(
        "scoring a file, one core, against the best public library's predict", "3", "8", full=True
    ),
}

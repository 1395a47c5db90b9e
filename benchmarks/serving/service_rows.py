"""The service against the direct call of the same graph; two workers against one; memory of the second worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.costs import private_mb, process_tree, resident_mb
from benchmarks.serving.direct import expected, open_direct
from benchmarks.serving.load import Closed
from benchmarks.serving.rounds import ratios, summary
from benchmarks.serving.running import Server, Slice, check_scores, put_load, service
from benchmarks.serving.slates import Slate, SlateSizes, slates
from benchmarks.serving.variants import Variant

CLIENTS: Final = 8
WORKER_CLIENTS: Final = 16
_CHECKED: Final = 4
_LEAST_REQUESTS: Final = 100


def timed_calls(call: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Calls one after the other for some seconds: calls a second, and CPU time of one in us."""
    started, before, count = time.perf_counter(), time.process_time(), 0
    while (wall := time.perf_counter() - started) < seconds:
        call()
        count += 1
    return count / wall, (time.process_time() - before) / count * 1e6


def stored_service(
    stack: ExitStack, models: Path, store_url: str, made: Sequence[Slate], settings: Mapping[str, Any]
) -> Server:
    """A started service whose store holds the histories of some slates."""
    server = stack.enter_context(service(models, store_url, settings))
    server.store(made)
    return server


def service_rows(bundle: Path, store_url: str, variant: Variant, rounds: int, slice_s: float) -> dict[str, Any]:
    """One worker under eight clients and the direct call of its graph in a loop, in turns.

    Args:
        bundle: in a model store that holds it alone.
        store_url: of the behaviour store; the histories are written through the service.
        variant: how both sides run the graph.
        rounds: of both sides.
        slice_s: of each side in a round.

    Returns:
        ``throughput`` (requests a second over direct calls a second), ``cpu`` (CPU time of a direct call over that of
        a request) and ``overhead_us`` (the difference of the two), each with its rounds; and everything measured.
    """
    made = slates(SlateSizes())
    direct = open_direct(bundle, variant)
    call = direct.calls(direct.feeds(made))
    with ExitStack() as stack:
        server = stored_service(stack, bundle.parent.parent, store_url, made, variant.settings)
        difference = check_scores(server, made[:_CHECKED], expected(direct.version, made[:_CHECKED]))
        rate, _ = timed_calls(call, slice_s)
        plan = Closed(connections=CLIENTS, requests=max(_LEAST_REQUESTS, round(rate * slice_s)))
        put_load(server, server.target(made), plan)
        loops: list[tuple[float, float]] = []
        served: list[Slice] = []
        for _ in range(rounds):
            loops.append(timed_calls(call, slice_s))
            served.append(put_load(server, server.target(made), plan))
    rates, costs = [loop[0] for loop in loops], [loop[1] for loop in loops]
    request_costs = [part.cpu_us for part in served]
    return {
        "clients": CLIENTS,
        "requests_a_round": plan.requests,
        "throughput": summary(ratios([part.load.per_second for part in served], rates)),
        "cpu": summary(ratios(costs, request_costs)),
        "overhead_us": summary([request - alone for request, alone in zip(request_costs, costs, strict=True)], 1),
        "direct_cpu_us": summary(costs, 1),
        "request_cpu_us": summary(request_costs, 1),
        "requests_per_second": summary([part.load.per_second for part in served], 1),
        "worker_cores": summary([part.cores for part in served], 3),
        "p50_ms": summary([part.load.p50_ms for part in served], 3),
        "p99_ms": summary([part.load.p99_ms for part in served], 3),
        "generator_cores": summary([part.load.generator_cpu_s / part.load.seconds for part in served]),
        "largest_difference": difference,
    }


def worker_rows(bundle: Path, store_url: str, variant: Variant, rounds: int, slice_s: float) -> dict[str, Any]:
    """Two workers against one, both started, under load in turns.

    Returns:
        ``throughput`` (requests a second, two over one) and ``cpu_corrected``: what it would be if the two workers had
        two cores to themselves, which the load generator and the store take a part of here.
    """
    made = slates(SlateSizes())
    with ExitStack() as stack:
        servers = {
            count: stored_service(
                stack, bundle.parent.parent, store_url, made, {**variant.settings, "server.workers": count}
            )
            for count in (1, 2)
        }
        found: dict[int, list[Slice]] = {1: [], 2: []}
        first = put_load(servers[1], servers[1].target(made), Closed(connections=WORKER_CLIENTS, requests=200))
        put_load(servers[2], servers[2].target(made), Closed(connections=WORKER_CLIENTS, requests=200))
        for _ in range(rounds):
            for count, server in servers.items():
                requests = round(first.load.per_second * slice_s * count)
                plan = Closed(connections=WORKER_CLIENTS, requests=max(requests, _LEAST_REQUESTS))
                found[count].append(put_load(server, server.target(made), plan))
    costs = {count: [part.cpu_us for part in parts] for count, parts in found.items()}
    rates = {count: [part.load.per_second for part in parts] for count, parts in found.items()}
    return {
        "clients": WORKER_CLIENTS,
        "throughput": summary(ratios(rates[2], rates[1])),
        "cpu_corrected": summary([2 * one / two for one, two in zip(costs[1], costs[2], strict=True)]),
        "requests_per_second": {str(count): summary(values, 1) for count, values in rates.items()},
        "request_cpu_us": {str(count): summary(values, 1) for count, values in costs.items()},
        "worker_cores": {str(count): summary([part.cores for part in parts], 3) for count, parts in found.items()},
        "generator_cores": summary([part.load.generator_cpu_s / part.load.seconds for part in found[2]]),
    }


def memory_rows(bundle: Path, store_url: str, variant: Variant, items: int = 50_000) -> dict[str, Any]:
    """Memory of each of two workers after both have answered requests, MB.

    Returns:
        ``private_mb`` and ``resident_mb`` of every worker, and the larger private one as ``second_worker_mb``.
    """
    made = slates(SlateSizes())
    with ExitStack() as stack:
        server = stored_service(stack, bundle.parent.parent, store_url, made, {**variant.settings, "server.workers": 2})
        put_load(server, server.target(made), Closed(connections=WORKER_CLIENTS, requests=400))
        workers = process_tree(server.pid)[1:]
        private = [round(private_mb(pid), 1) for pid in workers]
        resident = [round(resident_mb(pid), 1) for pid in workers]
    return {"private_mb": private, "resident_mb": resident, "second_worker_mb": max(private)}

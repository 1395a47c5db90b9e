"""Two workers against one; memory of the second worker."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.costs import private_mb, process_tree, resident_mb
from benchmarks.serving.load import Closed
from benchmarks.serving.rounds import ratios, summary
from benchmarks.serving.running import Slice, put_load
from benchmarks.serving.service_rows import LEAST_REQUESTS, stored_service
from benchmarks.serving.slates import SlateSizes, slates
from benchmarks.serving.variants import Variant

WORKER_CLIENTS: Final = 16


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
        first = put_load(servers[1], servers[1].target(made), Closed(connections=WORKER_CLIENTS, requests=200))
        put_load(servers[2], servers[2].target(made), Closed(connections=WORKER_CLIENTS, requests=200))
        found: dict[int, list[Slice]] = {1: [], 2: []}
        for turn in range(2 * rounds + 1):
            count = 1 + turn % 2
            requests = round(first.load.per_second * slice_s * count)
            plan = Closed(connections=WORKER_CLIENTS, requests=max(requests, LEAST_REQUESTS))
            # Connections of its own every turn: how they fall on the workers differs, and none of it shall stay.
            found[count].append(put_load(servers[count], servers[count].target(made), plan))
    costs = {count: [part.cpu_us for part in parts] for count, parts in found.items()}
    rates = {count: [part.load.per_second for part in parts] for count, parts in found.items()}
    # One worker is what it was on average before and after the turn of two, as the machine drifts.
    one_rate, one_cost = ([(one + two) / 2 for one, two in pairwise(values[1])] for values in (rates, costs))
    return {
        "clients": WORKER_CLIENTS,
        "throughput": summary(ratios(rates[2], one_rate)),
        "cpu_corrected": summary([2 * one / two for one, two in zip(one_cost, costs[2], strict=True)]),
        "requests_per_second": {str(count): summary(values, 1) for count, values in rates.items()},
        "request_cpu_us": {str(count): summary(values, 1) for count, values in costs.items()},
        "worker_cores": {str(count): summary([part.cores for part in parts], 3) for count, parts in found.items()},
        "generator_cores": summary([part.load.generator_cpu_s / part.load.seconds for part in found[2]]),
    }


def memory_rows(bundle: Path, store_url: str, variant: Variant, items: int = 50_000) -> dict[str, Any]:
    """Memory of each of two workers after both have answered requests for some of so many items, MB.

    There are enough requests for both to have read nearly all of the mapped table: what only one has read yet counts as
    its own.

    Returns:
        ``private_mb`` and ``resident_mb`` of every worker, and the larger private one as ``second_worker_mb``.
    """
    made = slates(SlateSizes(items=items))
    with ExitStack() as stack:
        server = stored_service(stack, bundle.parent.parent, store_url, made, {**variant.settings, "server.workers": 2})
        put_load(server, server.target(made), Closed(connections=WORKER_CLIENTS, requests=2000))
        workers = process_tree(server.pid)[1:]
        private = [round(private_mb(pid), 1) for pid in workers]
        resident = [round(resident_mb(pid), 1) for pid in workers]
    return {"private_mb": private, "resident_mb": resident, "second_worker_mb": max(private)}

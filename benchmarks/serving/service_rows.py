"""The service against the direct call of the same graph, and where the CPU time of a request goes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.clocked import new_clock, read_clock
from benchmarks.serving.direct import expected, open_direct
from benchmarks.serving.load import Closed
from benchmarks.serving.rounds import ratios, summary
from benchmarks.serving.running import Loaded, Server, Slice, check_scores, loaded, put_load, service
from benchmarks.serving.slates import Slate, SlateSizes, slates
from benchmarks.serving.variants import Variant

CLIENTS: Final = 8
LEAST_REQUESTS: Final = 100
_CHECKED: Final = 4


class RunsNotSeen(RuntimeError):
    """The service ran graphs past the clock, so what they took is not known."""


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


@dataclass(frozen=True, slots=True)
class Inside:
    """A slice of load on a service that keeps its graph's time.

    Attributes:
        part: as the ordinary service has it.
        graph_us: CPU time a request inside the run of the graph.
    """

    part: Slice
    graph_us: float


def inside(ready: Loaded, clock: Path) -> Inside:
    """One slice with its clock read before and after.

    Raises:
        RunsNotSeen: if there were not as many runs as requests.
    """
    before = read_clock(clock)
    part = ready.slice()
    after = read_clock(clock)
    runs = after.count - before.count
    if runs != part.load.requests:
        raise RunsNotSeen(f"the clock saw {runs} runs of the graph, expected {part.load.requests}, one a request")
    return Inside(part, (after.cpu_s - before.cpu_s) / runs * 1e6)


@dataclass(frozen=True, slots=True)
class Rounds:
    """What the rounds of one service saw: the direct loop before, between and after them, and both services."""

    loops: list[tuple[float, float]]
    served: list[Slice]
    clocked: list[Inside]


def service_rows(bundle: Path, store_url: str, variant: Variant, rounds: int, slice_s: float) -> dict[str, Any]:
    """One worker under eight clients and the direct call of its graph in a loop, in turns.

    A second service, the same but for a clock around the run of the graph, takes turns with them.

    Args:
        bundle: in a model store that holds it alone.
        store_url: of the behaviour store; the histories are written through the service.
        variant: how both sides run the graph.
        rounds: of both sides.
        slice_s: of each side in a round.

    Returns:
        ``throughput`` (requests a second over direct calls a second), ``cpu`` (CPU time of a direct call over that of
        a request) and ``overhead_us`` (the difference of the two), each with its rounds; ``inside`` with what the
        clocked service tells; and everything measured.

    Raises:
        ScoresDiffer: if the service and the direct call do not give the same scores.
        RunsNotSeen: if the clocked service runs graphs past its clock.
    """
    made = slates(SlateSizes())
    direct = open_direct(bundle, variant)
    call = direct.calls(direct.feeds(made))
    models = bundle.parent.parent
    with ExitStack() as stack:
        clock = new_clock(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "clock")
        plain = stored_service(stack, models, store_url, made, variant.settings)
        watched = stack.enter_context(service(models, store_url, variant.settings, clock))
        wanted = expected(direct.version, made[:_CHECKED])
        difference = max(check_scores(server, made[:_CHECKED], wanted) for server in (plain, watched))
        first = put_load(plain, plain.target(made), Closed(connections=CLIENTS, requests=LEAST_REQUESTS))
        plan = Closed(connections=CLIENTS, requests=max(LEAST_REQUESTS, round(first.load.per_second * slice_s)))
        on_plain, on_watched = (
            stack.enter_context(loaded(server, server.target(made), plan)) for server in (plain, watched)
        )
        inside(on_watched, clock)
        on_plain.slice()
        seen = Rounds([timed_calls(call, slice_s)], [], [])
        for _ in range(rounds):
            seen.served.append(on_plain.slice())
            seen.clocked.append(inside(on_watched, clock))
            seen.loops.append(timed_calls(call, slice_s))
    return {
        "clients": CLIENTS,
        "requests_a_round": plan.requests,
        **_beside_direct(seen),
        "inside": _inside(seen.clocked),
        "largest_difference": difference,
    }


def _beside_direct(seen: Rounds) -> dict[str, Any]:
    """A round's direct call is the mean of the loops before and after it: a drift of the machine falls on both."""
    rates, costs = ([(one + two) / 2 for one, two in pairwise(values)] for values in zip(*seen.loops, strict=True))
    served = seen.served
    request_costs = [part.cpu_us for part in served]
    return {
        "throughput": summary(ratios([part.load.per_second for part in served], rates)),
        "cpu": summary(ratios(costs, request_costs)),
        "overhead_us": summary([request - alone for request, alone in zip(request_costs, costs, strict=True)], 1),
        "direct_cpu_us": summary(costs, 1),
        "request_cpu_us": summary(request_costs, 1),
        "loop_us": summary([part.first_us for part in served], 1),
        "engine_us": summary([part.busiest_us for part in served], 1),
        "requests_per_second": summary([part.load.per_second for part in served], 1),
        "worker_cores": summary([part.cores for part in served], 3),
        "p50_ms": summary([part.load.p50_ms for part in served], 3),
        "p99_ms": summary([part.load.p99_ms for part in served], 3),
        "generator_cores": summary([part.load.generator_cpu_s / part.load.seconds for part in served]),
    }


def _inside(clocked: Sequence[Inside]) -> dict[str, Any]:
    """Where the CPU time of a request went, all from the same requests."""
    return {
        "request_cpu_us": summary([each.part.cpu_us for each in clocked], 1),
        "graph_us": summary([each.graph_us for each in clocked], 1),
        "around_us": summary([each.part.cpu_us - each.graph_us for each in clocked], 1),
        "loop_us": summary([each.part.first_us for each in clocked], 1),
    }

"""One run of the speed benchmarks: its parts in order, and the ratios that they add up to.

`ctrlift bench` runs it. The quick parts need neither peers nor large networks; the full run adds those and the curves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.record import environment
from benchmarks.serving import curves, load_program
from benchmarks.serving.cache import default_cache
from benchmarks.serving.costs import SUPPORTED
from benchmarks.serving.graph_rows import graph_rows
from benchmarks.serving.peer_rows import PLAIN, PeerRun, peer_rows
from benchmarks.serving.peers.environments import FOLDER
from benchmarks.serving.promises import PROMISES
from benchmarks.serving.service_rows import service_rows
from benchmarks.serving.slates import SlateSizes
from benchmarks.serving.speed_bundle import SpeedFiles, cached
from benchmarks.serving.speed_config import SpeedConfig, buckets_of
from benchmarks.serving.uplift_rows import cached_campaign, uplift_curve, uplift_rows
from benchmarks.serving.variants import KERNEL, ONNX, kernel_here, variants
from benchmarks.serving.worker_rows import memory_rows, worker_rows
from service.behaviours import EmbeddedServer

EMBEDDINGS_MB: Final = 256
PEER_PYTHON: Final = "CTRLIFT_PEER_PYTHON"


def libraries_here() -> tuple[str, ...]:
    """The interpreters that the environment names, as in PATH."""
    return tuple(filter(None, os.environ.get(PEER_PYTHON, "").split(os.pathsep)))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """What to run and where its files are.

    Attributes:
        quick: the parts without peers and curves, in short slices.
        only: names of parts; none means all of the kind of run.
        cache: folder of exported networks.
        peers: folder of the peers' environments.
        libraries: interpreters that have the libraries which files are scored with.
    """

    quick: bool = False
    only: tuple[str, ...] = ()
    cache: Path = field(default_factory=default_cache)
    peers: Path = FOLDER
    libraries: tuple[str, ...] = field(default_factory=libraries_here)

    @property
    def rounds(self) -> int:
        """Of every comparison: many short ones, so that its sides see the machine in the same state."""
        return 7 if self.quick else 21

    @property
    def slice_s(self) -> float:
        """Of one side of the service in a round."""
        return 0.2 if self.quick else 0.3


class Bench:
    """The files and the store that the parts share; use it in a with statement."""

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.files: SpeedFiles = cached(options.cache)
        self.store = EmbeddedServer(None)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.stop()

    def graph(self) -> dict[str, Any]:
        """The exported graph against the history-repeated one."""
        slice_s = 0.1 if self.options.quick else 0.3
        sizes = (SlateSizes(candidates=100, users=4), SlateSizes(candidates=500, users=4))
        return {str(size.candidates): graph_rows(self.files, size, self.options.rounds, slice_s) for size in sizes}

    def service(self) -> dict[str, Any]:
        """The service against the direct call, with each way of running the graph."""
        return {
            variant.name: service_rows(
                self.files.bundle, self.store.url, variant, self.options.rounds, self.options.slice_s
            )
            for variant in variants()
        }

    def alone(self) -> dict[str, Any]:
        """The service with next to nothing in the place of the network."""
        files = cached(self.options.cache, SpeedConfig(linear=True), repeated=False)
        return service_rows(files.bundle, self.store.url, ONNX, self.options.rounds, self.options.slice_s)

    def workers(self) -> dict[str, Any]:
        """Two workers against one."""
        slice_s = 2 * self.options.slice_s  # its clients connect anew every time, and end one by one
        return worker_rows(self.files.bundle, self.store.url, variants()[-1], self.options.rounds, slice_s)

    def memory(self) -> dict[str, Any]:
        """What a second worker takes beside 256 MB of embeddings."""
        large = cached(self.options.cache, SpeedConfig(buckets=buckets_of(EMBEDDINGS_MB)), repeated=False)
        return memory_rows(large.bundle, self.store.url, variants()[-1])

    def uplift(self) -> dict[str, Any]:
        """POST /uplift against the direct call."""
        count = 10 if self.options.quick else 30
        bundle = cached_campaign(self.options.cache)
        return uplift_rows(bundle, self.options.rounds, count, both=not self.options.quick)

    def peers(self) -> dict[str, Any]:
        """Other ways to serve the same network."""
        run = PeerRun(self.files, self.store.socket_path, self.options.peers, self.options.rounds, self.options.slice_s)
        return peer_rows(run)

    def batch(self) -> dict[str, Any]:
        """Scoring a file, against other libraries' predict loops."""
        from benchmarks.batch.predict import ratio  # the other parts do without what it loads

        return ratio(self.options.libraries, self.options.cache)

    def bodies(self) -> dict[str, Any]:
        """A JSON body beside an Arrow body."""
        from benchmarks.serving.body_rows import body_rows  # the Arrow library is large

        return body_rows(self.files.bundle, self.store.url, variants()[-1], curves.ROUNDS, self.options.slice_s)

    def candidates(self) -> dict[str, Any]:
        """CPU time over candidates."""
        return {"points": curves.candidates_curve(self.files)}

    def history(self) -> dict[str, Any]:
        """CPU time over the history's length."""
        return {"points": curves.history_curve(self.options.cache)}

    def tasks(self) -> dict[str, Any]:
        """CPU time over tasks."""
        return {"points": curves.tasks_curve(self.options.cache)}

    def clients(self) -> dict[str, Any]:
        """Throughput and latency over callers and workers."""
        return curves.clients_curve(self.files, self.store.url)

    def vocabulary(self) -> dict[str, Any]:
        """Memory over items."""
        return {"points": curves.vocabulary_curve(self.options.cache, self.store.url)}

    def uplift_sizes(self) -> dict[str, Any]:
        """POST /uplift over users and treatments."""
        return {"points": uplift_curve(cached_campaign(self.options.cache))}


Part = Callable[[Bench], dict[str, Any]]
QUICK_PARTS: Final[Mapping[str, Part]] = {
    "graph": Bench.graph,
    "service": Bench.service,
    "alone": Bench.alone,
    "workers": Bench.workers,
    "memory": Bench.memory,
    "uplift": Bench.uplift,
}
PARTS: Final[Mapping[str, Part]] = {
    **QUICK_PARTS,
    "peers": Bench.peers,
    "batch": Bench.batch,
    "bodies": Bench.bodies,
    "candidates": Bench.candidates,
    "history": Bench.history,
    "tasks": Bench.tasks,
    "clients": Bench.clients,
    "vocabulary": Bench.vocabulary,
    "uplift-sizes": Bench.uplift_sizes,
}


def chosen(options: RunOptions) -> list[str]:
    """The parts that a run has, in order."""
    known = QUICK_PARTS if options.quick else PARTS
    return [name for name in known if not options.only or name in options.only]


def run(options: RunOptions, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run the chosen parts.

    Args:
        options: which, and where.
        tell: is told the name of a part before it starts.

    Returns:
        The ratios by name, ``notes`` on those that are None, ``parts`` with everything measured, and the environment.

    Raises:
        ScoresDiffer: if two sides of a comparison do not give the same scores.
    """
    parts: dict[str, Any] = {}
    tell("networks")
    if SUPPORTED:
        with Bench(options) as bench:
            for name in chosen(options):
                tell(name)
                parts[name] = PARTS[name](bench)
    return result(options, parts)


def result(options: RunOptions, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a run."""
    keys = [key for key, promise in PROMISES.items() if not (options.quick and promise.full)]
    values, notes = ratios_of(parts, keys)
    kernel = kernel_here()
    made = environment() | {"kernel": kernel if isinstance(kernel, str) else f"none: {kernel}"}
    origin = {name: made[name] for name in ("date", "command", "kernel")} | {"generator": load_program.program().kind}
    return {
        "environment": made,
        "quick": options.quick,
        **values,
        "notes": notes,
        "measured": dict.fromkeys(parts, origin),
        "parts": dict(parts),
    }


def ratios_of(parts: Mapping[str, Any], keys: Sequence[str]) -> tuple[dict[str, float | None], dict[str, str]]:
    """Each key's value, and why there is none where it is None."""
    values: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for key in keys:
        part, read = _READERS[key]
        found: float | str = f"the part {part!r} was not run"
        if not SUPPORTED:
            found = "CPU time and private memory of other processes are read from Linux"
        elif part in parts:
            found = read(parts[part])
        values[key] = None if isinstance(found, str) else found
        if isinstance(found, str):
            notes[key] = found
    return values, notes


def _graph(candidates: int, variant: str) -> Callable[[Any], float | str]:
    def read(part: Any) -> float | str:
        found = part[str(candidates)]
        if "note" in found:
            return str(found["note"])
        return _median(found["ratios"], variant)

    return read


def _median(found: Mapping[str, Any], variant: str) -> float | str:
    if variant not in found:
        return f"the compiled kernel is not here: {kernel_here()}"
    return float(found[variant]["median"])


def _over_direct(variant: str, ratio: Literal["throughput", "cpu"]) -> Callable[[Any], float | str]:
    def read(part: Any) -> float | str:
        if variant not in part:
            return f"the compiled kernel is not here: {kernel_here()}"
        if ratio == "throughput" and (os.cpu_count() or 1) < 2:
            return "with a single core the load generator takes the worker's time: see the ratio by CPU time"
        return float(part[variant][ratio]["median"])

    return read


def _overhead(part: Any) -> float | str:
    return float(list(part.values())[-1]["overhead_us"]["median"])


def _around(part: Any) -> float | str:
    return float(list(part.values())[-1]["inside"]["around_us"]["median"])


def _over_best(part: Any) -> float | str:
    full = [found["over"]["median"] for found in part["peers"].values() if found["full_framework"]]
    return float(min(full)) if full else "no full framework is installed"


def _over_plain(part: Any) -> float | str:
    if PLAIN not in part["peers"]:
        return str(part["missing"].get(PLAIN, "it was not measured"))
    return float(part["peers"][PLAIN]["over_with_fastest"]["median"])


def _over_library(part: Any) -> float | str:
    found = part["batch_over_best_library"]
    return f"no library: name interpreters that have one in {PEER_PYTHON}" if found is None else float(found)


_READERS: Final[Mapping[str, tuple[str, Callable[[Any], float | str]]]] = {
    "graph_over_repeated_100": ("graph", _graph(100, ONNX.name)),
    "graph_over_repeated_500": ("graph", _graph(500, ONNX.name)),
    "kernel_over_repeated_100": ("graph", _graph(100, KERNEL.name)),
    "kernel_over_repeated_500": ("graph", _graph(500, KERNEL.name)),
    "service_over_direct": ("service", _over_direct(ONNX.name, "throughput")),
    "service_over_direct_kernel": ("service", _over_direct(KERNEL.name, "throughput")),
    "service_over_direct_cpu": ("service", _over_direct(ONNX.name, "cpu")),
    "service_over_direct_kernel_cpu": ("service", _over_direct(KERNEL.name, "cpu")),
    "service_overhead_us": ("service", _overhead),
    "service_around_us": ("service", _around),
    "service_alone_us": ("alone", lambda part: float(part["overhead_us"]["median"])),
    "workers_2_over_1": ("workers", lambda part: float(part["throughput"]["median"])),
    "worker2_private_mb": ("memory", lambda part: float(part["second_worker_mb"])),
    "uplift_over_direct": ("uplift", lambda part: float(part["features in the request"]["ratio"])),
    "over_plain_fastapi": ("peers", _over_plain),
    "over_best_peer": ("peers", _over_best),
    "batch_over_best_library": ("batch", _over_library),
}

"""Writes the record of a full run and the page docs/benchmarks/serving.md with its tables and plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.record import RESULTS
from benchmarks.serving.page_curves import curve_sections, table
from benchmarks.serving.page_words import DEFINITIONS, INTRODUCTION
from benchmarks.serving.promises import PROMISES
from benchmarks.serving.speed_run import ratios_of

RECORD: Final = "serving-speed.json"
PAGE: Final = "serving.md"


def write_page(found: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Keep a run's parts beside those of earlier runs in the record, and write the page from it.

    Args:
        found: what a full run, or some parts of one, gave.
        folder: of the record and the page.

    Raises:
        ValueError: for a quick run: its slices are too short to be kept.
    """
    if found["quick"]:
        raise ValueError("a quick run is not recorded: leave --quick out")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECORD
    old = json.loads(path.read_text()) if path.exists() else {"parts": {}, "measured": {}}
    parts = {**old["parts"], **found["parts"]}
    values, notes = ratios_of(parts, tuple(PROMISES))
    measured = {**old["measured"], **found["measured"]}
    newest = max(found["environment"], old.get("environment", found["environment"]), key=lambda made: made["date"])
    record = {"environment": newest, **values, "notes": notes, "measured": measured, "parts": parts}
    path.write_text(json.dumps(record, indent=1) + "\n")
    write_from_record(folder)


def write_from_record(folder: Path) -> Path:
    """The page with its plots from the record in a folder."""
    record = json.loads((folder / RECORD).read_text())
    sections = [INTRODUCTION, _ratios(record), DEFINITIONS]
    for name, section in _SECTIONS.items():
        if name in record["parts"]:
            sections.append(section(record["parts"][name]))
    sections += curve_sections(record["parts"], folder)
    sections.append(_where(record))
    path = folder / PAGE
    path.write_text("\n\n".join(section.strip() for section in sections) + "\n")
    return path


def _ratios(record: Mapping[str, Any]) -> str:
    rows = []
    for key, promise in PROMISES.items():
        value = record.get(key)
        shown = record["notes"].get(key, "") if value is None else f"{value:.4g}"
        rows.append((promise.what, shown, promise.bar, promise.aim, f"`{key}`"))
    return table(("what", "measured", "bar", "aim", "key"), rows)


def _graph(part: Mapping[str, Any]) -> str:
    rows = [
        (
            found["candidates"],
            *(_median(found["cpu_ms"].get(name)) for name in ("repeated", "onnx", "kernel")),
            found["repeated_gflops"],
            found["product_gflops"],
            f"{found['share_of_product_rate']:.0%}",
        )
        for found in part.values()
    ]
    headers = ("candidates", "history repeated, ms", "exported, ms", "kernel, ms")
    rates = ("history repeated, GFLOP/s", "plain product, GFLOP/s", "share")
    return "## The graph\n\nCPU time of a call on one thread.\n\n" + table((*headers, *rates), rows)


def _service(part: Mapping[str, Any]) -> str:
    columns = ("direct_cpu_us", "request_cpu_us", "overhead_us", "throughput", "cpu", "worker_cores")
    more = ("requests_per_second", "p50_ms", "p99_ms")
    rows = [(name, *(_median(found[key]) for key in (*columns, *more))) for name, found in part.items()]
    headers = ("graph run by", "direct call, us", "request, us", "difference, us", "throughput ratio", "CPU ratio")
    rest = ("cores of the worker", "requests/s", "p50 ms", "p99 ms")
    shown = table((*headers, *rest), rows)
    return f"## The service\n\nEight clients, one worker, histories in the store.\n\n{shown}\n\n{_threads(part)}"


def _alone(part: Mapping[str, Any]) -> str:
    columns = ("direct_cpu_us", "request_cpu_us", "overhead_us", "requests_per_second", "p50_ms", "p99_ms")
    headers = ("direct call, us", "request, us", "difference, us", "requests/s", "p50 ms", "p99 ms")
    shown = table(headers, [[_median(part[key]) for key in columns]])
    title = "## The service with one linear layer in the place of the network"
    return f"{title}\n\nEight clients, one worker.\n\n{shown}\n\n{_threads({'onnx': part})}"


def _threads(part: Mapping[str, Any]) -> str:
    """Where the CPU time of a request goes, by the way that the graph is run."""
    rows = [
        (
            name,
            *(_median(found[key]) for key in ("loop_us", "engine_us")),
            *(_median(found["inside"][key]) for key in ("request_cpu_us", "graph_us", "around_us")),
        )
        for name, found in part.items()
    ]
    headers = ("graph run by", "event loop, us", "engine thread, us", "request with a clock, us", "of it the graph, us")
    return "CPU time of a request by thread, and in a second service with a clock around the graph:\n\n" + table(
        (*headers, "all but the graph, us"), rows
    )


def _bodies(part: Mapping[str, Any]) -> str:
    columns = ("requests_per_second", "request_cpu_us", "loop_us")
    rows = [
        (candidates, name, found["body_bytes"], *(_median(found[key]) for key in columns))
        for candidates, forms in part.items()
        for name, found in forms.items()
    ]
    headers = ("candidates", "body", "bytes of a body", "requests/s", "CPU us a request", "event loop, us")
    return "## JSON and Arrow bodies\n\nEight clients, one worker, with the faster graph.\n\n" + table(headers, rows)


def _workers(part: Mapping[str, Any]) -> str:
    rows = [
        (count, *(_median(part[key][count]) for key in ("requests_per_second", "request_cpu_us", "worker_cores")))
        for count in ("1", "2")
    ]
    text = (
        f"Throughput {_median(part['throughput'])}, corrected for the CPU time that the generator and the store take "
        f"from the two workers {_median(part['cpu_corrected'])}."
    )
    return f"## Workers\n\n{text}\n\n" + table(("workers", "requests/s", "CPU us a request", "cores"), rows)


def _memory(part: Mapping[str, Any]) -> str:
    rows = list(enumerate(zip(part["private_mb"], part["resident_mb"], strict=True), start=1))
    lines = [(number, private, resident) for number, (private, resident) in rows]
    return "## Memory, 256 MB of embeddings\n\n" + table(("worker", "private MB", "resident MB"), lines)


def _uplift(part: Mapping[str, Any]) -> str:
    rows = [(name, found["graph_cpu_ms"], found["request_cpu_ms"], found["ratio"]) for name, found in part.items()]
    return "## Treatment effects, 1,000 users x 4 treatments\n\n" + table(
        ("request", "graph, CPU ms", "request, CPU ms", "ratio"), rows
    )


def _peers(part: Mapping[str, Any]) -> str:
    columns = ("requests_per_second", "request_cpu_us", "cores", "p50_ms", "p99_ms")
    ratios = ("over", "cpu_over", "over_with_fastest", "cpu_over_with_fastest")
    rows = [
        (title, *(_median(found[key]) for key in (*columns, *ratios)), _versions(found["versions"]))
        for title, found in part["peers"].items()
    ]
    headers = ("peer", "requests/s", "CPU us a request", "cores", "p50 ms", "p99 ms", "service over it", "by CPU")
    lines = "\n".join(f"- {title} was not measured: {reason}" for title, reason in part["missing"].items())
    shown = table((*headers, "with the kernel", "by CPU", "versions"), rows)
    return f"## Beside other servers\n\n{shown}\n\n{lines}"


def _batch(part: Mapping[str, Any]) -> str:
    simple = [(key, value) for key, value in part.items() if isinstance(value, (int, float, str))]
    return "## Scoring files\n\n" + table(("what", "value"), simple)


def _where(record: Mapping[str, Any]) -> str:
    made = record["environment"]
    machine = f"{made['machine']['processor']}, {made['machine']['cores']} cores, {made['machine']['system']}"
    rows = [
        (name, where["date"], where.get("kernel", "-"), where.get("generator", "-"), f"`{where['command']}`")
        for name, where in record["measured"].items()
    ]
    text = (
        f"{machine}, Python {made['python']}, {_versions(made['libraries'])}, kernel: {made['kernel']}. "
        f"Everything that was seen: [{RECORD}]({RECORD})."
    )
    return f"## Where the numbers come from\n\n{text}\n\n" + table(
        ("part", "date (UTC)", "kernel", "load generator", "command"), rows
    )


def _versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _median(found: Mapping[str, Any] | None) -> object:
    return "-" if found is None else found["median"]


_SECTIONS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "graph": _graph,
    "service": _service,
    "alone": _alone,
    "bodies": _bodies,
    "peers": _peers,
    "workers": _workers,
    "memory": _memory,
    "uplift": _uplift,
    "batch": _batch,
}

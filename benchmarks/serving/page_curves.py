"""The curves of the page on the speed of serving: a plot and a table each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.plots import Axis, Points, axis, line_plot

SIDES: Final = {"repeated": "history repeated", "onnx": "exported", "kernel": "kernel"}


def curve_sections(parts: Mapping[str, Any], folder: Path) -> list[str]:
    """A section for each curve that was measured; its plots are written into the folder."""
    sections = []
    for name, across in (("candidates", "candidates"), ("history", "behaviours"), ("tasks", "tasks")):
        if name in parts:
            sections.append(_cost_section(name, across, parts[name]["points"], folder))
    if "clients" in parts:
        sections.append(_clients_section(parts["clients"], folder))
    if "vocabulary" in parts:
        sections.append(_vocabulary_section(parts["vocabulary"]["points"], folder))
    if "uplift-sizes" in parts:
        sections.append(_uplift_section(parts["uplift-sizes"]["points"], folder))
    return sections


def _cost_section(name: str, across: str, points: Sequence[Mapping[str, Any]], folder: Path) -> str:
    key = {"history": "steps"}.get(name, name)
    sides = [side for side in SIDES if any(side in point["cpu_ms"] for point in points)]
    series: dict[str, Points] = {
        SIDES[side]: [(point[key], point["cpu_ms"][side]["median"]) for point in points if side in point["cpu_ms"]]
        for side in sides
    }
    headers = (across, *(f"{SIDES[side]}, ms" for side in sides))
    rows = [(point[key], *(_side(point, side) for side in sides)) for point in points]
    if "repeated" in sides:
        headers += ("rate of the repeated one",)
        rows = [(*row, _share(point)) for row, point in zip(rows, points, strict=True)]
    plot = _plot(folder, f"serving-{name}", f"CPU time over {across}", (across, "CPU ms a call"), series)
    return f"## Over {across}\n\n{plot}\n\n" + table(headers, rows)


def _share(point: Mapping[str, Any]) -> str:
    """How near the history-repeated graph comes to a plain product's rate; below a fifth it is no fair opponent."""
    share = point.get("share_of_product_rate")
    return "-" if share is None else f"{share:.0%}{', too slow to be compared with' if 'note' in point else ''}"


def _clients_section(part: Mapping[str, Any], folder: Path) -> str:
    rates = {f"{workers} worker(s)": _line(found["closed"], "requests_per_second") for workers, found in part.items()}
    waits = {f"p99, {workers} worker(s)": _line(found["closed"], "p99_ms") for workers, found in part.items()}
    waits |= {f"p50, {workers} worker(s)": _line(found["closed"], "p50_ms") for workers, found in part.items()}
    plots = [
        _plot(folder, "serving-clients", "Throughput over clients", ("clients", "requests/s"), rates, log_up=False),
        _plot(folder, "serving-waits", "Latency over clients", ("clients", "ms"), waits),
    ]
    columns = ("requests_per_second", "p50_ms", "p99_ms", "request_cpu_us")
    closed = [
        (workers, point["clients"], *(point[column] for column in columns))
        for workers, found in part.items()
        for point in found["closed"]
    ]
    timed = [
        (workers, f"{point['share_of_best']:.0%}", point["rate"], *(point[column] for column in columns[1:]))
        for workers, found in part.items()
        for point in found["open"]
    ]
    headers = ("p50 ms", "p99 ms", "CPU us a request")
    most = [max(found["closed"], key=lambda point: point["requests_per_second"]) for found in part.values()]
    best = [
        (workers, point["requests_per_second"], point["clients"], point["request_cpu_us"])
        for workers, point in zip(part, most, strict=True)
    ]
    return "\n\n".join(
        (
            "## Over clients and workers",
            "The most that was answered:",
            table(("workers", "requests/s", "clients", headers[-1]), best),
            *plots,
            table(("workers", "clients", "requests/s", *headers), closed),
            "Open loop, at shares of the best closed-loop rate:",
            table(("workers", "share", "requests/s", *headers), timed),
        )
    )


def _vocabulary_section(points: Sequence[Mapping[str, Any]], folder: Path) -> str:
    series = {
        "bundle on disk": [(point["items"], point["bundle_mb"]) for point in points],
        "second worker, private": [(point["items"], point["second_worker_mb"]) for point in points],
    }
    plot = _plot(folder, "serving-vocabulary", "Memory over items", ("items", "MB"), series)
    rows = [
        (point["items"], point["bundle_mb"], point["load_s"], point["second_worker_mb"], max(point["resident_mb"]))
        for point in points
    ]
    headers = ("items", "bundle MB", "load s", "second worker, private MB", "resident MB")
    return f"## Over items\n\n{plot}\n\n" + table(headers, rows)


def _uplift_section(points: Sequence[Mapping[str, Any]], folder: Path) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        name = f"{point['treatments']} treatment(s)"
        series.setdefault(name, []).append((point["users"], point["cpu_ms"]))
    plot = _plot(folder, "serving-uplift", "POST /uplift over users", ("users", "CPU ms a request"), series)
    columns = ("users", "treatments", "cpu_ms", "cpu_us_a_user", "p50_ms", "p99_ms")
    headers = ("users", "treatments", "CPU ms", "CPU us a user", "p50 ms", "p99 ms")
    return f"## `/uplift` over users\n\n{plot}\n\n" + table(
        headers, [[point[key] for key in columns] for point in points]
    )


def _plot(
    folder: Path, name: str, title: str, labels: tuple[str, str], series: Mapping[str, Points], *, log_up: bool = True
) -> str:
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    across: Axis = axis(labels[0], xs, log=max(xs) > 20 * min(xs))
    (folder / f"{name}.svg").write_text(line_plot(title, across, axis(labels[1], ys, log=log_up), series))
    return f"![{title}]({name}.svg)"


def _line(points: Sequence[Mapping[str, Any]], key: str) -> Points:
    return [(point["clients"], point[key]) for point in points]


def _side(point: Mapping[str, Any], side: str) -> object:
    return point["cpu_ms"][side]["median"] if side in point["cpu_ms"] else "-"


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of the page."""
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])

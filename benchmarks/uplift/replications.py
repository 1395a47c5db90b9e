"""What the benchmarks over the replications of a study have alike: command line, lines, summary, record."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from benchmarks.record import write_record

Statistics = Mapping[str, Callable[[Sequence[float]], float]]
MEAN_AND_MEDIAN: Statistics = {"mean": statistics.mean, "median": statistics.median}


def parse(description: str | None, replications: Sequence[int], record: str) -> argparse.Namespace:
    """The command line: ``replications``, ``set``, ``record`` and ``dry``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, nargs="+", default=list(replications))
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the configuration")
    parser.add_argument("--record", default=record, help="name of the record")
    parser.add_argument("--dry", action="store_true", help="print only, write no record")
    return parser.parse_args()


def tell(entry: Mapping[str, Any], digits: int = 3) -> None:
    """Print a line on one replication."""
    print(
        "  ".join(
            f"{key} {value:.{digits}f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in entry.items()
        )
    )


def summarise(
    found: Sequence[Mapping[str, Any]], columns: Sequence[str], taken: Statistics, digits: int = 3
) -> dict[str, dict[str, float]]:
    """Each column's statistics over the replications, printed."""
    summary = {
        column: {name: take([entry[column] for entry in found]) for name, take in taken.items()} for column in columns
    }
    width = max(map(len, columns))
    for column, values in summary.items():
        print(f"{column:{width}s}", "  ".join(f"{name} {value:.{digits}f}" for name, value in values.items()))
    return summary


def keep(
    arguments: argparse.Namespace,
    found: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the record, unless the run is dry; the replications' configurations differ by their numbers alone."""
    if arguments.dry:
        return
    rows = [{key: value for key, value in entry.items() if key != "config"} for entry in found]
    results = {**facts, "config": found[-1]["config"], "summary": summary, "replications": rows}
    print("written:", write_record(arguments.record, results))

"""The page's rows on networks with several tasks and on the whole catalogue."""

from __future__ import annotations

from typing import Final

from benchmarks.page_row import Record, Row


def catalogue(record: Record) -> str:
    largest = record["largest"]
    return ", ".join(f"{name} {value:.1e}" for name, value in largest.items())


TASK_ROWS: Final = (Row("every network of the catalogue, eager = graphs", "parity-catalog", "1e-5", "1e-6", catalogue),)

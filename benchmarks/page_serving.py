"""The page's rows on the speed of serving; docs/benchmarks/serving.md has the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks.page_row import Record, Row
from benchmarks.serving.promises import PROMISES


def ratio(key: str) -> Callable[[Record], str]:
    """One value of the record, or why there is none."""

    def read(record: Record) -> str:
        value = record[key]
        return str(record["notes"].get(key, "")) if value is None else f"{value:.4g}"

    return read


SERVING_ROWS: Final = tuple(
    Row(promise.what, "serving-speed", promise.bar, promise.aim, ratio(key)) for key, promise in PROMISES.items()
)

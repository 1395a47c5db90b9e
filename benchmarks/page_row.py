"""One row of the page of benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One promise: where its number comes from and what was promised."""

    claim: str
    record: str
    bar: str
    aim: str
    read: Callable[[Record], str]

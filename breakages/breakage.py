"""One breakage of the drill."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Breakage:
    """Replace `old` with `new` in `file`, and at least one of `tests` (pytest node ids) has to fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

"""Where the prepared data sets lie that benchmarks measure on."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def prepared(kind: str, name: str) -> Path:
    """One set of a kind: below ``CTRLIFT_TEST_DATA``, or below the folder beside this tree."""
    return Path(os.environ.get("CTRLIFT_TEST_DATA", ROOT.parent / "shared" / "data")) / kind / name

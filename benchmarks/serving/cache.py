"""Where the benchmarks keep what is made once."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """The folder under the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ctrlift" / "bench"

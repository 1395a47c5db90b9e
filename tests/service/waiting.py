"""Waiting for what another process does."""

import time
from collections.abc import Callable
from typing import Any


def soon(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What a condition gives once it holds; a failure after so many seconds."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)
    return found

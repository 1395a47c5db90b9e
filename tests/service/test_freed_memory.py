"""What the process frees it keeps, up to a bound."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from service.freed_memory import keep_freed_memory

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    parts = [np.ones(300_000, dtype=np.uint8) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
faults()
print(max(faults() for _ in range(5)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the bounds are those of the C library of Linux")
def test_memory_of_one_reply_serves_the_next() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50

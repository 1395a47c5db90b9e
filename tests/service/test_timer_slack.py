"""Waits end when they were set for."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
from service.timer_slack import ring_in_time
from pathlib import Path
import os, threading
ring_in_time()
thread = threading.Thread(target=lambda: print(Path(f"/proc/{threading.get_native_id()}/timerslack_ns").read_text()))
thread.start()
thread.join()
"""


@pytest.mark.skipif(not Path("/proc/self/timerslack_ns").exists(), reason="only Linux has a slack of timers")
def test_threads_wait_no_longer_than_they_ask_for() -> None:
    told = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    assert int(told.stdout) == 1000

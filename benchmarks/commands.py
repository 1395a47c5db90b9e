"""Wall time of the two commands of the README, after their install step.

python -m benchmarks.commands demo test
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.record import write_record

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ("demo", "test")


def main() -> int:
    wanted = sys.argv[1:] or list(KNOWN)
    found: dict[str, Any] = {}
    subprocess.run(["make", "install"], cwd=ROOT, check=True)
    for name in wanted:
        started = time.perf_counter()
        code = subprocess.run(["make", name], cwd=ROOT, check=False).returncode
        found[f"make {name}"] = {"seconds": time.perf_counter() - started, "exit": code}
    print(found)
    write_record("commands", {"commands": found})
    return max(result["exit"] for result in found.values())


if __name__ == "__main__":
    sys.exit(main())

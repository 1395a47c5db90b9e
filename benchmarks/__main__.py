"""`make bench`: every benchmark, one after the other, each in a process of its own.

Each prints its numbers and writes them with machine, versions, date and command into docs/benchmarks/.
`python -m benchmarks --list` names them, `python -m benchmarks NAME...` runs some.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

# Module (under benchmarks.) to what it measures.
BENCHMARKS: Final[dict[str, str]] = {
    "graph.users_by_candidates": "the exported DIEN against the history-repeated graph, one core",
    "parity.graphs": "logits of eager, TorchScript and ONNX on trained weights",
    "parity.replay": "test rows posted to the running service against the offline logits",
    "serving.score_latency": "POST /score over loopback",
    "serving.outage": "requests while the store is stopped, slowed and started again",
    "training.throughput": "training rows a second beside deepctr-torch",
    "quality.movielens": "AUC, logloss and calibration on MovieLens-100k, three seeds",
    "quality.down_sampling": "calibration with and without undoing negative sampling",
}


def main(arguments: Sequence[str]) -> int:
    """Run the named benchmarks, or all; the exit code is 1 if one failed."""
    if "--list" in arguments:
        for name, measures in BENCHMARKS.items():
            print(f"{name:26} {measures}")
        return 0
    unknown = [name for name in arguments if name not in BENCHMARKS]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; known are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    failed = []
    for name in arguments or BENCHMARKS:
        print(f"== {name}: {BENCHMARKS[name]}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"{len(failed)} benchmarks failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`make bench`: the benchmarks, one after the other, each in a process of its own.

Each prints its numbers and writes them with machine, versions, date and command into docs/benchmarks/.
`python -m benchmarks --list` names them, `python -m benchmarks NAME...` runs some. What a benchmark needs beside this
tree stands in the table; where it is absent the benchmark is left out and named.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PEER_PYTHON: Final = "CTRLIFT_PEER_PYTHON"


@dataclass(frozen=True)
class Benchmark:
    """What is measured, and what has to be there first: a file of the demo, or another library's interpreter."""

    measures: str
    demo_file: str | None = None
    peer: bool = False

    def missing(self) -> str | None:
        """What has to be done before it can run, or None."""
        if self.demo_file is not None and not Path(self.demo_file).exists():
            return "run `make demo` first"
        if self.peer and PEER_PYTHON not in os.environ:
            return f"set {PEER_PYTHON} to an interpreter that has deepctr-torch (see benchmarks/training/throughput.py)"
        return None

    def arguments(self) -> list[str]:
        """Arguments that only this machine knows."""
        return ["--peer-python", os.environ[PEER_PYTHON]] if self.peer else []


# Module (under benchmarks.) to what it is.
BENCHMARKS: Final[dict[str, Benchmark]] = {
    "graph.users_by_candidates": Benchmark("the exported DIEN against the history-repeated graph, one core"),
    "graph.kernel": Benchmark("the compiled operators against the whole and the history-repeated graph, one core"),
    "serving.score_latency": Benchmark("POST /score over loopback"),
    "serving.store_clients": Benchmark("processor time of one read of the store, by client library"),
    "serving.speed": Benchmark("POST /score and /uplift beside the direct call and other servers (`ctrlift bench`)"),
    "serving.outage": Benchmark("requests while the store is stopped, slowed and started again"),
    "parity.catalog": Benchmark("logits of eager, TorchScript and ONNX for every network of the catalogue"),
    "parity.graphs": Benchmark("logits of eager, TorchScript and ONNX on trained weights", "demo/run/run.json"),
    "parity.replay": Benchmark("test rows posted to the service against the offline logits", "demo/run/run.json"),
    "batch.predict": Benchmark("ctrlift score of whole files beside the libraries' predict, one core", peer=True),
    "training.throughput": Benchmark("training rows a second beside deepctr-torch", peer=True),
    "quality.movielens": Benchmark("AUC, logloss and calibration on MovieLens-100k, three seeds"),
    "quality.down_sampling": Benchmark("calibration with and without undoing negative sampling"),
    "quality.census": Benchmark("AUC of two labels on Census-Income: MMoE beside a shared bottom, three seeds"),
    "quality.funnel": Benchmark("clicks and conversions in one network beside two networks"),
    "quality.networks": Benchmark("DIN, DIEN, DSIN and the presets on MovieLens-100k"),
    "quality.tutorial": Benchmark("AUC on ready-made MovieLens-1M rows, five seeds"),
    "uplift.ihdp": Benchmark("sqrt PEHE and ATE error on IHDP, ten replications"),
    "uplift.acic": Benchmark("sqrt PEHE on ACIC-2016 beside T- and X-learners, ten simulations"),
    "uplift.hillstrom": Benchmark("Qini areas on the e-mail trial, five seeds"),
    "uplift.jobs": Benchmark("policy risk on the job training study, five splits"),
    "uplift.dose_ihdp": Benchmark("AMSE of VCNet's average dose-response curve, ten sets of outcomes"),
    "uplift.dcn_pd": Benchmark("DCN-PD on IHDP: sqrt PEHE and coverage of its Monte-Carlo intervals"),
    "invariance.sem": Benchmark("invariant risk minimisation on the two-environment structural equations"),
    "invariance.digits": Benchmark("invariant risk minimisation on coloured digits, ten seeds"),
    "serving.uplift_throughput": Benchmark("POST /uplift against calling the same graph, CPU time"),
}


def main(arguments: Sequence[str]) -> int:
    """Run the named benchmarks, or all that can run here; the exit code is 1 if one failed."""
    if "--list" in arguments:
        for name, benchmark in BENCHMARKS.items():
            print(f"{name:26} {benchmark.measures}")
        return 0
    unknown = [name for name in arguments if name not in BENCHMARKS]
    if unknown:
        print(f"there is no benchmark {unknown[0]!r}; known are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    failed = []
    for name in arguments or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        print(f"== {name}: {benchmark.measures}", flush=True)
        if missing := benchmark.missing():
            print(f"left out: {missing}", flush=True)
            continue
        command = [sys.executable, "-m", f"benchmarks.{name}", *benchmark.arguments()]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"{len(failed)} benchmarks failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

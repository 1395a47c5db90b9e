"""DIEN on MovieLens-100k: test AUC, GAUC, logloss, PCOC and ECE over several seeds, beside the references.

    python -m benchmarks.quality.movielens --history rated
    python -m benchmarks.quality.movielens --history liked

Every choice in the configurations was made on the validation rows; this command is what reads the test rows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import write_record
from training.config import load_config
from training.evaluate import evaluate
from training.fit import train

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
METRICS = ("auc", "gauc", "logloss", "pcoc", "ece")
TASK = "ctr"


def main() -> None:
    arguments = parse()
    for history in arguments.history:
        measure(history, arguments)


def measure(history: str, arguments: argparse.Namespace) -> None:
    """All seeds of one configuration, printed and recorded."""
    config_path = CONFIGS / f"movielens-100k-{history}.toml"
    seeds = []
    with tempfile.TemporaryDirectory(prefix="ctrlift-quality-") as folder:
        for seed in arguments.seeds:
            seeds.append(one_seed(config_path, seed, Path(folder) / str(seed), arguments.bootstrap))
            print_seed(seeds[-1])
    means = {metric: statistics.mean(s["calibrated"][metric]["value"] for s in seeds) for metric in METRICS}
    raw_means = {metric: statistics.mean(s["raw"][metric]["value"] for s in seeds) for metric in METRICS}
    print("mean", "  ".join(f"{metric} {means[metric]:.4f}" for metric in METRICS))
    results = {
        "history": history,
        "config": config_path.name,
        "mean": means,
        "mean_raw": raw_means,
        "seeds": seeds,
    }
    if not arguments.dry:
        print("written:", write_record(f"quality-{history}", results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", nargs="+", choices=("rated", "liked"), default=["rated", "liked"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bootstrap", type=int, default=1000, help="replicates of the intervals over users")
    parser.add_argument("--dry", action="store_true", help="print only, write no record")
    return parser.parse_args()


def one_seed(config_path: Path, seed: int, run_dir: Path, bootstrap: int) -> dict[str, Any]:
    """Train and evaluate once; the references come from the same evaluation, on the same rows."""
    started = time.perf_counter()
    run = train(load_config(config_path, [f"train.seed={seed}"]), run_dir, progress=False)
    seconds = time.perf_counter() - started
    found = evaluate(run, "test", bootstrap=bootstrap).to_dict()
    task = found["tasks"][TASK]
    return {
        "seed": seed,
        "rows": found["rows"],
        "users": found["users"],
        "training_seconds": round(seconds, 1),
        "calibrated": task["calibrated"],
        "raw": task["raw"],
        "without_history": task["without_history"],
        "references": {
            reference["name"]: {"metrics": reference["metrics"], "gain": reference["gain"]}
            for reference in found["references"]
        },
    }


def print_seed(result: dict[str, Any]) -> None:
    """One line for the network, one for each reference with the paired gain in AUC."""
    print(f"seed {result['seed']}  {result['training_seconds']} s")
    print("  dien        ", line(result["calibrated"]))
    for name, reference in result["references"].items():
        gain = reference["gain"]["auc"]
        gained = f"{gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
        print(f"  {name:12s} ", line(reference["metrics"]), "gain", gained)


def line(metrics: dict[str, Any]) -> str:
    return "  ".join(f"{name} {metrics[name]['value']:.4f}" for name in METRICS)


if __name__ == "__main__":
    main()

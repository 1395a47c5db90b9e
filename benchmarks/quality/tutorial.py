"""The ready-made MovieLens-1M rows of a DIEN tutorial: test AUC over five seeds, beside the references.

    python -m benchmarks.quality.tutorial

With 1,208 test rows the standard error of one AUC is about .016, so only mean and spread mean anything. Everything was
chosen on the validation rows, an eighth of the training users.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.quality.runs import CONFIGS, data_folder
from benchmarks.record import write_record
from training.config import load_config
from training.evaluate import evaluate
from training.fit import train

CONFIG = "movielens-1m-rows.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--bootstrap", type=int, default=1000, help="replicates of the intervals over users")
    parser.add_argument("--dry", action="store_true", help="print only, write no record")
    arguments = parser.parse_args()
    seeds = [one_seed(seed, arguments.bootstrap) for seed in arguments.seeds]
    values = [seed["calibrated"]["auc"]["value"] for seed in seeds]
    results = {
        "config": CONFIG,
        "mean_auc": statistics.mean(values),
        "spread_auc": statistics.stdev(values) if len(values) > 1 else 0.0,
        "seeds": seeds,
    }
    print(f"AUC {results['mean_auc']:.4f} +- {results['spread_auc']:.4f} over {len(values)} seeds")
    if not arguments.dry:
        print("written:", write_record("quality-tutorial", results))


def one_seed(seed: int, replicates: int) -> dict[str, Any]:
    """Train and evaluate once."""
    config = load_config(CONFIGS / CONFIG, [f"data.path={data_folder('ml-1m-seed')}", f"train.seed={seed}"])
    with tempfile.TemporaryDirectory(prefix="ctrlift-quality-") as folder:
        found = evaluate(train(config, Path(folder) / "run", progress=False), "test", bootstrap=replicates).to_dict()
    task = found["tasks"]["ctr"]
    print(f"seed {seed}  auc {task['calibrated']['auc']['value']:.4f}")
    for reference in found["references"] if seed == 0 else []:
        print(f"  {reference['name']:24s} auc {reference['metrics']['auc']['value']:.4f}")
    return {
        "seed": seed,
        "calibrated": task["calibrated"],
        "references": {reference["name"]: reference["metrics"]["auc"] for reference in found["references"]},
    }


if __name__ == "__main__":
    main()

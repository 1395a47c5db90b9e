"""Whom to train: policy risk on the randomised part of the jobs data, five splits.

    python -m benchmarks.uplift.jobs

A person is treated where the predicted effect is above 0. Networks learn from the rows of the experiment and risk is
measured on its test rows; being one of them is known beforehand and no feature. Treating everyone stands beside it. The
configuration was chosen among eighteen networks of three or four lengths each by five-fold cross-validated risk on the
training rows of the five splits.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from benchmarks.record import write_record
from benchmarks.uplift.replications import tell
from benchmarks.uplift.runs import data_folder, effect_of, portable, trained
from training.metrics.uplift_policy import policy_risk

CONFIG: Final = "jobs.toml"


def main() -> None:
    arguments = parse()
    found = [one_split(seed, arguments.split, arguments.set) for seed in arguments.seeds]
    config = found[0]["config"]
    for entry in found:
        entry.pop("config")
    means = {key: statistics.mean(entry[key] for entry in found) for key in ("risk", "risk_of_treating_all")}
    print("mean", "  ".join(f"{key} {value:.4f}" for key, value in means.items()))
    if not arguments.dry:
        results = {"split": arguments.split, "config": config, "mean": means, "splits": found}
        print("written:", write_record("uplift-jobs", results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the splits")
    parser.add_argument("--split", choices=("valid", "test"), default="test")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the configuration")
    parser.add_argument("--dry", action="store_true", help="print only, write no record")
    return parser.parse_args()


def one_split(seed: int, split: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Train on one split and measure its policy."""
    run = trained(CONFIG, [f"data.path={data_folder('jobs')}", f"data.replication={seed}", *overrides])
    measured = run.measured("valid" if split == "valid" else "test")
    observed = measured.observed
    randomised = np.asarray(observed.truth["randomised"], dtype=bool)
    treated = observed.treatment == 1
    effect = effect_of(measured)
    entry: dict[str, Any] = {
        "seed": seed,
        "risk": policy_risk(observed.outcome, treated, effect, randomised).value,
        "risk_of_treating_all": policy_risk(observed.outcome, treated, np.ones(len(treated)), randomised).value,
        "share_treated": float((effect[randomised] > 0).mean()),
        "randomised_rows": int(randomised.sum()),
        "seconds": round(run.seconds, 1),
    }
    tell(entry, digits=4)
    return {**entry, "config": portable(run.config)}


if __name__ == "__main__":
    main()

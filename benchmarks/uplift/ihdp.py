"""Effects of single children on IHDP: sqrt PEHE and error of the average effect, replication by replication.

    python -m benchmarks.uplift.ihdp                          # replications 1-10, configs/ihdp.toml
    python -m benchmarks.uplift.ihdp --replications 11 12     # any others
    python -m benchmarks.uplift.ihdp --set objective.head_l2=0.003 --dry

The configuration was chosen on replications 11-20; within a run weights are chosen by the factual validation loss. The
true effects are read by this command alone, after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.uplift.replications import MEAN_AND_MEDIAN, keep, parse, summarise, tell
from benchmarks.uplift.runs import data_folder, effect_of, portable, trained, true_effect_of
from training.metrics.uplift_effect import ate_error, sqrt_pehe

CONFIG = "ihdp.toml"
COLUMNS = ("sqrt_pehe_in", "sqrt_pehe_out", "ate_error_in", "ate_error_out")


def main() -> None:
    arguments = parse(__doc__, range(1, 11), "uplift-ihdp")
    found = [replication(number, arguments.set) for number in arguments.replications]
    keep(arguments, found, summarise(found, COLUMNS, MEAN_AND_MEDIAN))


def replication(number: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Train on one replication; in sample are the training and the validation rows."""
    run = trained(CONFIG, [f"data.path={data_folder('ihdp')}", f"data.replication={number}", *overrides])
    inside = [run.measured("train"), run.measured("valid")]
    outside = run.measured("test")
    predicted = np.concatenate([effect_of(part) for part in inside])
    true = np.concatenate([true_effect_of(part) for part in inside])
    entry: dict[str, Any] = {
        "replication": number,
        "sqrt_pehe_in": sqrt_pehe(predicted, true),
        "sqrt_pehe_out": sqrt_pehe(effect_of(outside), true_effect_of(outside)),
        "ate_error_in": ate_error(predicted, true),
        "ate_error_out": ate_error(effect_of(outside), true_effect_of(outside)),
        "seconds": round(run.seconds, 1),
    }
    tell(entry)
    return {**entry, "config": portable(run.config)}


if __name__ == "__main__":
    main()

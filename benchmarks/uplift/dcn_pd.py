"""DCN-PD with its factual loss on IHDP: sqrt PEHE, and how often its Monte-Carlo intervals hold the true effect.

    python -m benchmarks.uplift.dcn_pd                          # replications 1-10, configs/ihdp-dcn-pd.toml
    python -m benchmarks.uplift.dcn_pd --replications 11 12 --dry

The configuration was chosen on replications 11-20, gamma on 11-16 after an unfinished first run on 1-4 at gamma 1 had
shown a coverage of .83 to .92; within a run weights are chosen by the factual validation loss. The intervals are the
middle 95 % of 50 passes with dropout; widths are in standard deviations of the outcome's noise, which is 1 in these
data. The true effects are read by this command alone, after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.uplift.replications import MEAN_AND_MEDIAN, keep, parse, summarise, tell
from benchmarks.uplift.runs import data_folder, effect_of, portable, trained, true_effect_of
from training.metrics.uplift_effect import ate_error, sqrt_pehe
from training.metrics.uplift_intervals import interval_quality
from training.uplift.encoding import encode_uplift
from training.uplift.intervals import sampled_outcomes, samples_of
from training.uplift.preparation import labelled_part

CONFIG = "ihdp-dcn-pd.toml"
COLUMNS = ("sqrt_pehe_out", "ate_error_out", "coverage", "mean_width")
LEVEL = 0.95


def main() -> None:
    arguments = parse(__doc__, range(1, 11), "uplift-dcn-pd")
    found = [replication(number, arguments.set) for number in arguments.replications]
    keep(arguments, found, summarise(found, COLUMNS, MEAN_AND_MEDIAN), {"level": LEVEL})


def replication(number: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Train on one replication and look at its test rows."""
    run = trained(CONFIG, [f"data.path={data_folder('ihdp')}", f"data.replication={number}", *overrides])
    outside = run.measured("test")
    true = true_effect_of(outside)
    samples = samples_of(run.opened)
    if samples is None:
        raise ValueError("the network does not sample")
    rows = encode_uplift(run.opened.encoder, labelled_part(run.opened.dataset, "test"), run.opened.scales)
    drawn = sampled_outcomes(run.opened, samples, rows.inputs)
    low, high = np.quantile(drawn[..., 1] - drawn[..., 0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    quality = interval_quality(true, low, high)
    entry: dict[str, Any] = {
        "replication": number,
        "sqrt_pehe_out": sqrt_pehe(effect_of(outside), true),
        "ate_error_out": ate_error(effect_of(outside), true),
        "coverage": quality.coverage,
        "mean_width": quality.mean_width,
        "sd_of_true_effect": float(true.std()),
        "seconds": round(run.seconds, 1),
    }
    tell(entry)
    return {**entry, "config": portable(run.config)}


if __name__ == "__main__":
    main()

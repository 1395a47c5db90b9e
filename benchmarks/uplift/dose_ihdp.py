"""The average dose-response curve on IHDP's covariates: AMSE of VCNet with targeted regularisation, and continuity.

    python -m benchmarks.uplift.dose_ihdp                          # seeds 100-109, configs/dose-ihdp.toml
    python -m benchmarks.uplift.dose_ihdp --set objective.targeted=false --dry

AMSE is the mean over the doses of the test rows of the squared difference between the estimated average curve over
these rows and sin(3 pi s) / (1.2 - s) times their mean amplitude; beside it stands the same on 101 even doses.
The configuration was chosen on outcomes generated with other seeds by the formula of the set; within a run weights are
chosen by the factual validation loss. The true curves are read by this command alone, after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.uplift.replications import MEAN_AND_MEDIAN, keep, parse, summarise, tell
from benchmarks.uplift.runs import Run, data_folder, portable, trained
from training.metrics.uplift_dose import amse
from training.uplift.encoding import encode_uplift
from training.uplift.preparation import labelled_part

CONFIG = "dose-ihdp.toml"
COLUMNS = ("amse", "amse_without_targeting", "amse_on_grid", "step_at_knots")
# A step of the average curve across a knot, 1e-4 to either side, that counts as continuous: a share of its range.
CONTINUOUS = 1e-2
Float64 = NDArray[np.float64]


def main() -> None:
    arguments = parse(__doc__, range(100, 110), "uplift-dose-ihdp")
    found = [replication(number, arguments.set) for number in arguments.replications]
    keep(arguments, found, summarise(found, COLUMNS, {**MEAN_AND_MEDIAN, "worst": max}, digits=4))


def replication(number: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Train on one set of outcomes and compare the average curve over its test rows."""
    folder = data_folder("dose_ihdp")
    run = trained(CONFIG, [f"data.path={folder}", f"data.replication={number}", *overrides])
    amplitude = np.load(folder / "covariates.npz")["amp"].astype(np.float64)
    with np.load(folder / f"rep_{number}.npz") as drawn:
        test = drawn["test"].astype(np.int64)
        doses = np.sort(drawn["t"].astype(np.float64)[test])
    scale = float(amplitude[test].mean())
    targeted, plain = curves(run, doses)
    even = np.linspace(0.0, 1.0, 101)
    entry: dict[str, Any] = {
        "replication": number,
        "amse": amse(targeted, scale * shape(doses)),
        "amse_without_targeting": amse(plain, scale * shape(doses)),
        "amse_on_grid": amse(curves(run, even)[0], scale * shape(even)),
        "step_at_knots": steps(run),
        "seconds": round(run.seconds, 1),
    }
    entry["continuous"] = entry["step_at_knots"] < CONTINUOUS
    tell(entry, digits=4)
    return {**entry, "config": portable(run.config)}


def shape(doses: Float64) -> Float64:
    """The true curve of a row of amplitude one."""
    return np.asarray(np.sin(3 * np.pi * doses) / (1.2 - doses))


def curves(run: Run, doses: Float64) -> tuple[Float64, Float64]:
    """The network's estimate of the average curve over the test rows, and the plain mean of their curves."""
    opened = run.opened
    rows = encode_uplift(opened.encoder, labelled_part(opened.dataset, "test"), opened.scales)
    arm = opened.scales.arms.index("dose")
    grid = opened.scales.scaled("dose", doses).astype(np.float64)
    each = opened.predictor(rows.inputs, grid=grid).curves
    if each is None:
        raise ValueError("the network has no curves")
    return opened.predictor.average_curve(rows.inputs, grid)[arm], each[:, arm].mean(axis=0)


def steps(run: Run) -> float:
    """Largest step of the average curve over its range, 1e-4 to either side of each knot and fifth of [0, 1]."""
    inner = {*getattr(run.opened.network.config, "knots", ()), 0.2, 0.4, 0.6, 0.8}
    sides = np.array([[place - 1e-4, place + 1e-4] for place in sorted(inner)]).ravel()
    around = curves(run, sides)[0].reshape(-1, 2)
    whole = curves(run, np.linspace(0.0, 1.0, 101))[0]
    return float(np.abs(around[:, 1] - around[:, 0]).max() / np.ptp(whole))


if __name__ == "__main__":
    main()

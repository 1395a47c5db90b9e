"""Negatives kept at a rate in training, undone at serving: PCOC on the unsampled test rows, calibrator off.

    python -m benchmarks.quality.down_sampling

PCOC = mean prediction / mean label. Undone it must be near 1; left as it is, the network answers for rows that held
ten times fewer negatives and its PCOC is far above 1.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.quality.movielens import CONFIGS, TASK
from benchmarks.record import write_record
from training.config import load_config
from training.encoded import encode_part, predict_logits
from training.evaluate import open_trained
from training.fit import train
from training.metrics import auc, pcoc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.1, help="share of the negatives that training keeps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    results: dict[str, Any] = {"rate": arguments.rate, "modes": {}}
    with tempfile.TemporaryDirectory(prefix="ctrlift-sampling-") as folder:
        for mode in ("serving", "training"):
            seeds = [one(mode, arguments.rate, seed, Path(folder) / f"{mode}-{seed}") for seed in arguments.seeds]
            results["modes"][mode] = {"mean_pcoc": statistics.mean(s["pcoc"] for s in seeds), "seeds": seeds}
            print(mode, results["modes"][mode])
    print("written:", write_record("down-sampling", results))


def one(mode: str, rate: float, seed: int, run_dir: Path) -> dict[str, float]:
    """Train on thinned rows, then read PCOC on the whole test split with the correction and without it."""
    overrides = [
        f"train.seed={seed}",
        f"sampling.negative_rate={rate}",
        f'sampling.mode="{mode}"',
        'calibration.method="none"',
    ]
    run = train(load_config(CONFIGS / "movielens-100k-rated.toml", overrides), run_dir, progress=False)
    opened = open_trained(run)
    tasks = opened.config.tasks
    encoded = encode_part(opened.encoder, opened.dataset.part("test"), tasks, dict.fromkeys(tasks, 1.0))
    logits = predict_logits(opened.network, encoded)
    labels = encoded.targets.labels[:, 0]
    corrected = opened.correction.probabilities(logits, tasks, without_history=False)[TASK]
    untouched = opened.correction.model_copy(update={"mode": "none"})
    as_trained = untouched.probabilities(logits, tasks, without_history=False)[TASK]
    return {
        "seed": seed,
        "pcoc": pcoc(labels, corrected),
        "pcoc_without_undo": pcoc(labels, as_trained),
        "auc": auc(labels, corrected),
    }


if __name__ == "__main__":
    main()

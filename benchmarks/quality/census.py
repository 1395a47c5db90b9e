"""Census-Income, two tasks: MMoE beside a shared bottom with the same settings, three seeds.

    python -m benchmarks.quality.census

Both tops were tried with the same three settings, and each has the one that was best for it on the validation rows;
this command is what reads the test rows. CTRLIFT_TEST_DATA is where census-income is looked for.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks.quality.runs import answers, data_folder, shown
from benchmarks.record import write_record

CONFIG = "census-income-mmoe.toml"
TASKS = ("income", "never_married")
TOPS = {
    "mmoe": (),
    "shared_bottom": (
        'model.top={kind = "shared_bottom", tower_layers = [16]}',
        "model.embedding_dropout=0.1",
        "model.mlp_dropout=0.2",
    ),
}
NAMES = ("auc", "logloss", "pcoc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bootstrap", type=int, default=200, help="replicates of the intervals over people")
    parser.add_argument("--dry", action="store_true", help="print only, write no record")
    arguments = parser.parse_args()
    seeds: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        seeds.append(one_seed(seed, arguments.bootstrap))
    mean = {
        top: {task: statistics.mean(seed[top][task]["auc"]["value"] for seed in seeds) for task in TASKS}
        for top in TOPS
    }
    print("mean AUC", mean)
    if not arguments.dry:
        print("written:", write_record("quality-census", {"config": CONFIG, "mean_auc": mean, "seeds": seeds}))


def one_seed(seed: int, replicates: int) -> dict[str, Any]:
    """Both tops with one seed, and the paired difference of the first to the second."""
    found: dict[str, Any] = {"seed": seed}
    asked = {}
    for top, overrides in TOPS.items():
        settings = [f"data.path={data_folder('census-income')}", f"train.seed={seed}", *overrides]
        asked[top] = answers(CONFIG, settings, "test")
        found[top] = {task: asked[top].metrics(task, replicates) for task in TASKS}
        found[top]["log"] = asked[top].log
        found[top]["training_seconds"] = asked[top].seconds
        print(f"seed {seed} {top:14s}", {task: shown(found[top][task], NAMES) for task in TASKS}, asked[top].seconds)
    found["gain"] = {
        task: asked["mmoe"].gain(task, asked["shared_bottom"].probabilities[task], replicates) for task in TASKS
    }
    return found


if __name__ == "__main__":
    main()

"""MovieLens-100k as a funnel: liked, then loved; both from one network, against two that were trained apart.

    python -m benchmarks.quality.funnel

The two networks have the same encoder, settings and number of passes; one learns what is liked, the other what is
loved from the liked rows, and their product is compared with that of the one network over the entire space.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks.quality.runs import Answers, answers, data_folder, shown
from benchmarks.record import write_record

CONFIG = "movielens-100k-funnel.toml"
TASKS = ("ctr", "cvr", "ctcvr")
APART = {
    "ctr": ("funnel.mode=clicked_only", "train.task_weights={cvr = 0.0}", "train.monitor_task=ctr"),
    "cvr": ("funnel.mode=clicked_only", "train.task_weights={ctr = 0.0}", "train.monitor_task=cvr"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bootstrap", type=int, default=1000, help="replicates of the intervals over users")
    parser.add_argument("--split", choices=("valid", "test"), default="test")
    parser.add_argument("--set", nargs="*", default=[], help="further changes, of all three trainings alike")
    parser.add_argument("--dry", action="store_true", help="print only, write no record")
    arguments = parser.parse_args()
    seeds = [one_seed(seed, arguments) for seed in arguments.seeds]
    mean = {
        side: {
            task: {
                name: sum(seed[side][task][name]["value"] for seed in seeds) / len(seeds) for name in ("auc", "pcoc")
            }
            for task in TASKS
        }
        for side in ("together", "apart")
    }
    print(mean)
    if not arguments.dry:
        print("written:", write_record("quality-funnel", {"config": CONFIG, "mean": mean, "seeds": seeds}))


def one_seed(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Three trainings, and the difference of the products."""

    def trained(overrides: Sequence[str]) -> Answers:
        settings = [f"data.path={data_folder('ml-100k')}", f"train.seed={seed}", *overrides, *arguments.set]
        return answers(CONFIG, settings, arguments.split)

    together = trained(())
    parts = {task: trained(overrides) for task, overrides in APART.items()}
    apart = Answers(
        probabilities={
            **{task: parts[task].probabilities[task] for task in parts},
            "ctcvr": parts["ctr"].probabilities["ctr"] * parts["cvr"].probabilities["cvr"],
        },
        encoded=together.encoded,
        columns=together.columns,
        log={task: parts[task].log for task in parts},
        seconds=sum(part.seconds for part in parts.values()),
    )
    found: dict[str, Any] = {"seed": seed}
    for side, asked in (("together", together), ("apart", apart)):
        found[side] = {task: asked.metrics(task, arguments.bootstrap) for task in TASKS}
        found[side]["log"], found[side]["training_seconds"] = asked.log, asked.seconds
        for task in TASKS:
            print(f"seed {seed} {side:9s} {task:6s}", shown(found[side][task]), asked.seconds)
    found["gain"] = {task: together.gain(task, apart.probabilities[task], arguments.bootstrap) for task in TASKS}
    print("gain of the product's AUC", found["gain"]["ctcvr"]["auc"])
    return found


if __name__ == "__main__":
    main()

"""Who should get an e-mail: qini_norm_area of visits on Hillstrom's experiment, five seeds, beside a response model.

    python -m benchmarks.uplift.hillstrom                     # test rows, both tasks
    python -m benchmarks.uplift.hillstrom --split valid --dry --set objective.effects.weight_decay=0.01

Task W is the women's e-mail against none, task A any e-mail against none. The file's own split names the test rows.
That one network answers and no ensemble was decided by four-fold cross-validation of A on the other rows. The response
model is a logistic regression of the visit on the features, whatever was sent: it finds who visits, not who is moved.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.record import write_record
from benchmarks.uplift.runs import data_folder, effect_of, portable, trained
from training.metrics.uplift_bootstrap import paired_ranking_intervals
from training.metrics.uplift_ranking import qini_norm_area
from training.uplift.evaluate import Measured

TASKS: Final = {"W": "hillstrom-womens.toml", "A": "hillstrom-any.toml"}
AREA: Final = "qini_norm_area"


def main() -> None:
    arguments = parse()
    results = {task: measure_task(task, arguments) for task in arguments.tasks}
    if not arguments.dry:
        print("written:", write_record("uplift-hillstrom", {"split": arguments.split, "tasks": results}))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=sorted(TASKS), default=["W", "A"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--split", choices=("valid", "test"), default="test")
    parser.add_argument("--replicates", type=int, default=1000, help="of the paired bootstrap")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the configurations")
    parser.add_argument("--dry", action="store_true", help="print only, write no record")
    return parser.parse_args()


def measure_task(task: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All seeds of one task; the paired bootstrap compares the mean of the seeds' effects with the response model."""
    runs = [one_seed(task, seed, arguments.split, arguments.set) for seed in arguments.seeds]
    measured = runs[0]["measured"]
    observed = measured.observed
    treated = observed.treatment == 1
    effects = np.mean([run["effect"] for run in runs], axis=0)
    response = np.mean([run["response"] for run in runs], axis=0)
    gain = paired_ranking_intervals(
        observed.outcome, effects, response, treated, replicates=arguments.replicates, seed=0
    ).metrics[AREA]
    found = {
        "mean": statistics.mean(run[AREA] for run in runs),
        "of_the_mean_effect": qini_norm_area(observed.outcome, effects, treated).value,
        "response_model": qini_norm_area(observed.outcome, response, treated).value,
        "gain_over_the_response_model": {"value": gain.value, "low": gain.low, "high": gain.high},
        "rows": len(treated),
        "seeds": [{key: run[key] for key in ("seed", AREA, "seconds")} for run in runs],
        "config": runs[0]["config"],
    }
    print(
        f"task {task} mean {found['mean']:.4f}, response model {found['response_model']:.4f}, "
        f"gain {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    )
    return found


def one_seed(task: str, seed: int, split: Literal["valid", "test"], overrides: Sequence[str]) -> dict[str, Any]:
    """Train once and score the rows of the split."""
    run = trained(TASKS[task], [f"data.path={data_folder('hillstrom')}", f"train.seed={seed}", *overrides])
    measured = run.measured(split)
    effect = effect_of(measured)
    area = qini_norm_area(measured.observed.outcome, effect, measured.observed.treatment == 1).value
    print(f"task {task} seed {seed} {AREA} {area:.4f} ({run.seconds:.0f} s)")
    return {
        "seed": seed,
        AREA: area,
        "seconds": round(run.seconds, 1),
        "measured": measured,
        "effect": effect,
        "response": response_model(run.measured("train"), measured),
        "config": portable(run.config),
    }


def response_model(train: Measured, rows: Measured) -> NDArray[np.float64]:
    """Probability of the outcome from the features alone."""
    model = LogisticRegression(max_iter=1000).fit(plain_features(train), train.observed.outcome)
    return np.asarray(model.predict_proba(plain_features(rows))[:, 1])


def plain_features(measured: Measured) -> NDArray[np.float64]:
    """Numbers as the network sees them, ids as indicators of every id but padding."""
    ids, numbers = (tensor.numpy() for tensor in measured.rows.inputs[:2])
    highest = 16
    indicators = [ids[:, [column]] == np.arange(1, highest) for column in range(ids.shape[1])]
    return np.concatenate([numbers.astype(np.float64), *indicators], axis=1)


if __name__ == "__main__":
    main()

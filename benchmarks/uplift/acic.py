"""Effects on ten simulations of the 2016 causal inference challenge, beside a T- and an X-learner of the same run.

    python -m benchmarks.uplift.acic
    python -m benchmarks.uplift.acic --simulations 1 2 --dry

Rows, splits, validation rows and seed are the same for all three, and so are the number of members, the widths and the
activation of every regression, its penalty, and how long and how fast it learns; the configuration's [model] and
[objective] say them once for all. What only TARNet has is its own: shared layers, learned noise and intercepts that are
fitted again. The configuration was chosen by the factual validation loss; the true effects are read after training.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from benchmarks.record import write_record
from benchmarks.uplift.runs import CONFIGS, effect_of, portable, trained, true_effect_of
from training.config import load_config
from training.metrics.uplift_effect import ate_error, sqrt_pehe

CONFIG: Final = "acic-2016.toml"
LEARNERS: Final = ("t_learner", "x_learner")
SCHEDULE: Final = ("learning_rate", "batch_size", "epochs", "patience")


def main() -> None:
    arguments = parse()
    overrides = [*arguments.set, f"model.members={arguments.members}"]
    found: list[dict[str, Any]] = []
    configs: dict[str, Any] = {}
    for simulation in arguments.simulations:
        scores: dict[str, Any] = {"simulation": simulation}
        for network in ("own", *LEARNERS):
            scores[network], configs[network] = one_network(simulation, network, overrides)
        found.append(scores)
        print(
            simulation, "  ".join(f"{name} {scores[name]['sqrt_pehe']:.3f}" for name in ("own", *LEARNERS)), flush=True
        )
    summary = {
        name: {
            "mean": statistics.mean(entry[name]["sqrt_pehe"] for entry in found),
            "median": statistics.median(entry[name]["sqrt_pehe"] for entry in found),
            "ate_error": statistics.mean(entry[name]["ate_error"] for entry in found),
        }
        for name in ("own", *LEARNERS)
    }
    for name, values in summary.items():
        print(f"{name:10s}", "  ".join(f"{key} {value:.3f}" for key, value in values.items()))
    if not arguments.dry:
        results = {"configs": configs, "summary": summary, "simulations": found}
        print("written:", write_record("uplift-acic-2016", results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, nargs="+", default=list(range(1, 11)))
    parser.add_argument("--members", type=int, default=3, help="of every network's ensemble")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the own network's configuration")
    parser.add_argument("--dry", action="store_true", help="print only, write no record")
    return parser.parse_args()


def one_network(simulation: int, network: str, overrides: Sequence[str]) -> tuple[dict[str, float], dict[str, Any]]:
    """Train one network on one simulation; its errors out of sample, and its configuration."""
    shared = [f"data.replication={simulation}", *overrides]
    if network == "own":
        run = trained(CONFIG, shared)
    else:
        own = load_config(CONFIGS / CONFIG, shared).resolved()
        model, objective = as_learner(network, own["model"], own["objective"])
        run = trained(CONFIG, shared, model=model, objective=objective)
    test = run.measured("test")
    effect, truth = effect_of(test), true_effect_of(test)
    valid = run.measured("valid")
    scores = {
        "sqrt_pehe": sqrt_pehe(effect, truth),
        "ate_error": ate_error(effect, truth),
        "factual_error_valid": float(np.mean((valid.own - valid.observed.outcome) ** 2)),
        "seconds": run.seconds,
    }
    return scores, portable(run.config)


def as_learner(
    network: str, model: Mapping[str, Any], objective: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """[model] and [objective] of a learner whose every regression is as deep and learns as long as TARNet's path."""
    layers = [*model["representation_layers"], *model["head_layers"]]
    options = {key: model[key] for key in ("embedding_size", "members", "activation")}
    schedule = {**{key: objective[key] for key in SCHEDULE}, "l2": objective["head_l2"]}
    sections = {"network": network, **options, "hidden_layers": layers}
    stages = {**schedule, "propensity": objective["propensity"]}
    if network == "x_learner":
        return {**sections, "effect_layers": layers}, {**stages, "effects": schedule}
    return sections, stages


if __name__ == "__main__":
    main()

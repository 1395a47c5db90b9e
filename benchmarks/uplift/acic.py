"""Effects on ten simulations of the 2016 causal inference challenge, beside a T- and an X-learner of the same run.

    python -m benchmarks.uplift.acic
    python -m benchmarks.uplift.acic --simulations 1 2 --dry

Rows, splits, validation rows and seed are the same for all three; the learners have the defaults of their networks and
objectives. The configuration was chosen by the factual validation loss; the true effects are read after training.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.record import write_record
from benchmarks.uplift.runs import effect_of, portable, trained, true_effect_of
from training.metrics.uplift_effect import ate_error, sqrt_pehe

CONFIG: Final = "acic-2016.toml"
LEARNERS: Final = ("t_learner", "x_learner")


def main() -> None:
    arguments = parse()
    found: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    for simulation in arguments.simulations:
        scores: dict[str, Any] = {"simulation": simulation}
        for network in ("own", *LEARNERS):
            scores[network], config = one_network(simulation, network, arguments.set, config)
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
        results = {"config": config, "summary": summary, "simulations": found}
        print("written:", write_record("uplift-acic-2016", results))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, nargs="+", default=list(range(1, 11)))
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of the own network's configuration")
    parser.add_argument("--dry", action="store_true", help="print only, write no record")
    return parser.parse_args()


def one_network(
    simulation: int, network: str, overrides: Sequence[str], config: dict[str, Any]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Train one network on one simulation; its errors out of sample, and the own network's configuration."""
    shared = [f"data.replication={simulation}"]
    if network == "own":
        run = trained(CONFIG, [*shared, *overrides])
        config = portable(run.config)
    else:
        run = trained(CONFIG, shared, model={"network": network, "embedding_size": 4}, objective={})
    test = run.measured("test")
    effect, truth = effect_of(test), true_effect_of(test)
    scores = {"sqrt_pehe": sqrt_pehe(effect, truth), "ate_error": ate_error(effect, truth), "seconds": run.seconds}
    return scores, config


if __name__ == "__main__":
    main()

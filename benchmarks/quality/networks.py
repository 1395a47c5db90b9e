"""Every sequence network on MovieLens-100k, rated and liked histories apart, beside simple references and LightGBM.

    python -m benchmarks.quality.networks --history rated --networks din dsin dcn_v2 --seeds 0

All networks stand in the configuration of their history: its features, pooling, folded-in item model, top and training
are the same, and only what reads the sequence or crosses the features changes. Nothing is tuned for a single network.
What every network says about the test rows is kept in `--scores`, so that a run that was ended goes on where it was and
every pair of networks can be compared row by row. `--lightgbm PYTHON` names an interpreter that has lightgbm; the
numbers that the networks see are its columns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.runs import CONFIGS, METRICS, Answers, answers_of, data_folder, plain, shown
from benchmarks.record import write_record
from bundle.encode import Encoder
from bundle.fitting import fit
from training.config import TrainingConfig, load_config
from training.datasets import Dataset, load_dataset
from training.datasets.dataset import SplitName
from training.datasets.split import SPLITS
from training.metrics import bootstrap_intervals, paired_bootstrap
from training.references import BOOSTING, ITEM_RATE, references
from training.statistics import ItemRates, View
from training.statistics import statistics as statistics_columns

Floats = NDArray[np.float64]
ONLY_DIEN = ("auxiliary_hidden_layers",)
NETWORKS = ("dien", "din", "dsin", "dcn_v2", "xdeepfm", "autoint", "fibinet", "can", "dmr")
# Seconds since the behaviour before, unscaled: what cuts a history into sessions.
SECONDS = {"kind": "sequence", "of": "gap", "encoder": {"type": "none"}, "max_len": 20}
LIGHTGBM = """
import json, sys, numpy as np, lightgbm as lgb
data = np.load(sys.argv[1])
best = None
for leaves in (15, 31, 63):
    for rate in (0.03, 0.06):
        model = lgb.LGBMClassifier(n_estimators=1000, num_leaves=leaves, learning_rate=rate, subsample=0.8,
                                   subsample_freq=1, colsample_bytree=0.6, min_child_samples=50, reg_lambda=5.0,
                                   random_state=0, n_jobs=1, verbose=-1)
        model.fit(data["train"], data["train_labels"], eval_set=[(data["valid"], data["valid_labels"])],
                  eval_metric="binary_logloss", callbacks=[lgb.early_stopping(50, verbose=False)])
        found = model.best_score_["valid_0"]["binary_logloss"]
        if best is None or found < best[0]:
            best = (found, leaves, rate, model)
np.savez(sys.argv[2], test=best[3].predict_proba(data["test"])[:, 1])
print(json.dumps({"leaves": best[1], "rate": best[2], "rounds": int(best[3].best_iteration_),
                  "version": lgb.__version__}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", choices=("rated", "liked"), default="rated")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lightgbm", metavar="PYTHON", help="interpreter that has lightgbm")
    parser.add_argument("--bootstrap", type=int, default=1000, help="replicates of the intervals over users")
    parser.add_argument("--scores", type=Path, default=Path("runs/networks"), help="where scores of test rows are kept")
    arguments = parser.parse_args()
    config_name = f"movielens-100k-{arguments.history}.toml"
    folder = arguments.scores / arguments.history
    folder.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(load_config(CONFIGS / config_name, [f"data.path={data_folder('ml-100k')}"]))
    table = Table(dataset, arguments.bootstrap)
    beside: dict[str, Any] = {}
    scores: dict[str, Floats] = {}
    for reference in references(dataset, "test", names=(ITEM_RATE, BOOSTING)):
        scores[reference.name] = reference.scores
        beside[reference.name] = {"metrics": table.metrics(reference.scores)}
    if arguments.lightgbm:
        scores["lightgbm"], chosen = lightgbm_scores(dataset, arguments.lightgbm)
        beside["lightgbm"] = {"metrics": table.metrics(scores["lightgbm"]), "chosen": chosen}
    for name, line in beside.items():
        print(f"{arguments.history} {name:24s}", shown(line["metrics"]), flush=True)
    found: dict[str, Any] = {}
    for network in arguments.networks:
        runs = [kept_run(network, config_name, seed, folder) for seed in arguments.seeds]
        found[network] = table.line(runs, scores)
        print(f"{arguments.history} {network:24s}", found[network]["mean"], flush=True)
        results = {"history": arguments.history, "networks": found, "references": beside}
        write_record(f"quality-networks-{arguments.history}", results)


@dataclass(frozen=True, slots=True)
class Run:
    """One training: its scores of the test rows, seconds, and what its log says."""

    seed: int
    scores: Floats
    seconds: float
    log: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Metrics of scores on the test rows, with intervals over users."""

    dataset: Dataset
    replicates: int

    def metrics(self, scores: Floats) -> dict[str, dict[str, float]]:
        """Metrics of one column of scores."""
        part = self.dataset.part("test")
        found = bootstrap_intervals(
            part.labels["ctr"], scores, part.users, groups=part.groups, replicates=self.replicates
        )
        return {name: plain(found[name]) for name in METRICS}

    def gain(self, scores: Floats, other: Floats) -> dict[str, dict[str, float]]:
        """Metrics minus those of another column, paired over users."""
        part = self.dataset.part("test")
        found = paired_bootstrap(
            part.labels["ctr"], scores, other, part.users, groups=part.groups, replicates=self.replicates
        )
        return {name: plain(found[name]) for name in METRICS}

    def line(self, runs: Sequence[Run], others: Mapping[str, Floats]) -> dict[str, Any]:
        """All seeds of one network, and its first seed against each reference."""
        seeds = [
            {"seed": run.seed, "metrics": self.metrics(run.scores), "training_seconds": run.seconds, "log": run.log}
            for run in runs
        ]
        mean = {m: statistics.mean(seed["metrics"][m]["value"] for seed in seeds) for m in METRICS}
        gain = {name: self.gain(runs[0].scores, other) for name, other in others.items()}
        return {"mean": mean, "seeds": seeds, "gain": gain}


def kept_run(network: str, config_name: str, seed: int, folder: Path) -> Run:
    """A training, or what an earlier call kept of it."""
    scores, about = folder / f"{network}-{seed}.npy", folder / f"{network}-{seed}.json"
    if not about.exists():
        asked = one_run(network, config_name, seed)
        np.save(scores, asked.probabilities["ctr"])
        about.write_text(json.dumps({"seconds": asked.seconds, "log": asked.log}))
    kept = json.loads(about.read_text())
    return Run(seed, np.load(scores), kept["seconds"], kept["log"])


def one_run(network: str, config_name: str, seed: int) -> Answers:
    """The configuration with another network in it, trained and asked about the test rows."""
    mapping = tomllib.loads((CONFIGS / config_name).read_text())
    mapping["data"]["path"] = str(data_folder("ml-100k"))
    mapping["train"]["seed"] = seed
    model = mapping["model"]
    model["network"] = network
    if network != "dien":
        model["attention"] = {"hidden_layers": [24]}
        for name in ONLY_DIEN:
            del model[name]
    if network == "dsin":
        films = next(feature for feature in mapping["feature"] if feature["name"] == "recent_item")
        where = {"where": films["where"]} if "where" in films else {}
        mapping["feature"].append({"name": "recent_seconds", **SECONDS, **where})
    return answers_of(TrainingConfig.from_mapping(mapping), "test")


def lightgbm_scores(dataset: Dataset, python: str) -> tuple[Floats, dict[str, Any]]:
    """LightGBM on the columns that the networks see of a row: every number, the item's rate and its codes.

    Leaves and rate are chosen on the validation rows among six pairs.
    """
    encoder = Encoder(fit(dataset.features, dataset.fit_columns()))
    columns: dict[str, Any] = {}
    for split in SPLITS:
        part = dataset.part(split)
        encoded = encoder.encode(part.rows)
        ids = np.concatenate([encoded.user_ids, encoded.candidate_ids[:, 0]], axis=1)
        numbers = np.concatenate([encoded.user_numbers, encoded.candidate_numbers[:, 0]], axis=1)
        columns[split] = np.concatenate([ids, numbers, statistics_of(dataset, split)], axis=1)
        columns[f"{split}_labels"] = part.labels["ctr"]
    with tempfile.TemporaryDirectory(prefix="ctrlift-lightgbm-") as folder:
        given, answered = Path(folder) / "rows.npz", Path(folder) / "scores.npz"
        np.savez(given, **columns)
        said = subprocess.run(
            [python, "-c", LIGHTGBM, str(given), str(answered)], check=True, capture_output=True, text=True
        )
        return np.load(answered)["test"], json.loads(said.stdout)


def statistics_of(dataset: Dataset, split: SplitName) -> Floats:
    """The statistics of item and history that the references are fitted on."""
    view = View.of(dataset)
    labels, weights = dataset.whole.labels["ctr"].astype(np.float64), dataset.whole.weights["ctr"].astype(np.float64)
    rows = np.flatnonzero(dataset.split == SPLITS.index(split)).astype(np.int64)
    return statistics_columns(view, ItemRates.fit(view, labels, weights), rows)


if __name__ == "__main__":
    main()

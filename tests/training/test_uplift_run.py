"""Training treatment effects into a run folder: kinds of data, resume, the rows that count, no look at the truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tests.training.studies import study_config, trial, write_dose_ihdp, write_ihdp
from tests.training.uplift_trial import NETWORKS, NO_DOSE, SHORT, SMALL, three_arms, trial_config, weights
from training.checkpoint import read_state
from training.config import TrainingConfig
from training.errors import ConfigError, DataError, Diverged, Interrupted, NullPredictor, RunError
from training.evaluate import evaluate
from training.fit import train
from training.run import RunFolder
from training.uplift.preparation import halves
from training.uplift.train import RunCheckpoint

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_folder_like_any_other(tmp_path: Path) -> None:
    run = train(trial_config(tmp_path), tmp_path / "run", progress=False, config_text="# as given")
    index, metrics = run.index(), run.metrics()
    assert (index.state, index.network, index.tasks) == ("finished", "tarnet", ("bought",))
    assert [stage["name"] for stage in metrics["stages"]] == ["outcome", "propensity"]
    assert metrics["best"]["valid"]["outcome"] == metrics["stages"][0]["best"]
    assert metrics["epochs"] == 8
    assert {line["kind"] for line in run.history()} == {"epoch", "validation", "stage"}
    assert (run.path / "config.toml").read_text() == "# as given"
    assert TrainingConfig.from_mapping(run.config()).objective == SHORT
    page = (run.plots_dir / "training.html").read_text()
    assert "validation loss: outcome" in page
    assert run.history()[-1]["stage"] == "propensity"


def test_same_seed_same_weights_and_another_seed_other_ones(tmp_path: Path) -> None:
    first = train(trial_config(tmp_path), tmp_path / "first", progress=False)
    second = train(trial_config(tmp_path), tmp_path / "second", progress=False)
    other = train(trial_config(tmp_path, train={"seed": 4}), tmp_path / "other", progress=False)
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


@pytest.mark.parametrize("study", ["ihdp", "dose-ihdp"])
def test_training_never_reads_what_did_not_happen(study: str, tmp_path: Path) -> None:
    write = write_ihdp if study == "ihdp" else write_dose_ihdp
    found = []
    for blind in (False, True):
        folder = write(tmp_path / f"data-{blind}", blind=blind)
        config = study_config(study, folder, "objective.epochs=3")
        found.append(weights(train(config, tmp_path / f"run-{blind}", progress=False)))
    assert found[0] == found[1]


class Cut(Exception):
    """The process is gone."""


@pytest.mark.parametrize("network", NETWORKS)
def test_a_cut_run_of_every_network_ends_with_the_weights_it_would_have_had(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trial_config(tmp_path, model={"network": network}, train={"checkpoint_every": 1})
    whole = train(config, tmp_path / "whole", progress=False)
    save, saves = RunCheckpoint.save, [0]

    def counting(self: RunCheckpoint, step: int, state: Any) -> None:
        save(self, step, state)
        saves[0] += 1
        if saves[0] in cuts:
            raise Cut

    monkeypatch.setattr(RunCheckpoint, "save", counting)
    epochs = whole.metrics()["epochs"]
    cuts = {2, epochs // 2 + 1, epochs - 1}
    for _ in cuts:
        with pytest.raises(Cut):
            train(config, tmp_path / "cut", progress=False, resume=(tmp_path / "cut" / "run.json").exists())
    resumed = train(config, tmp_path / "cut", progress=False, resume=True)
    assert weights(resumed) == weights(whole)

    def told(run: RunFolder) -> list[dict[str, Any]]:
        return [{key: value for key, value in line.items() if key != "seconds"} for line in run.history()]

    assert told(resumed) == told(whole)


def test_resume_refuses_what_is_another_run(tmp_path: Path) -> None:
    config = trial_config(tmp_path)
    run = train(config, tmp_path / "run", progress=False)
    with pytest.raises(RunError, match="has finished"):
        train(config, run.path, resume=True, progress=False)
    with pytest.raises(RunError, match="already holds a run"):
        train(config, run.path, progress=False)
    run.last_checkpoint.touch()
    run.set_state("interrupted")
    other = trial_config(tmp_path, objective={"epochs": 5})
    with pytest.raises(RunError, match=r"another configuration: objective\.epochs differs"):
        train(other, run.path, resume=True, progress=False)


CHILD = """
import os, signal, sys
from pathlib import Path
from training.config import TrainingConfig
from training.errors import Interrupted
from training.fit import train
from training.uplift import fit
import json

run_epoch, seen = fit.PlanFit.run_epoch, []
def stop_within(self, stage):
    seen.append(stage)
    if len(seen) == 3:
        os.kill(os.getpid(), int(sys.argv[1]))
    run_epoch(self, stage)
fit.PlanFit.run_epoch = stop_within
config = TrainingConfig.from_mapping(json.loads(Path(sys.argv[2]).read_text()))
try:
    train(config, Path(sys.argv[3]), progress=False)
except Interrupted as error:
    print(error)
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_the_run(number: signal.Signals, tmp_path: Path) -> None:
    config = trial_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config.resolved()))
    command = [sys.executable, "-c", CHILD, str(int(number)), str(tmp_path / "config.json"), str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 130, done.stderr
    assert "interrupted after step" in done.stdout
    run = RunFolder.open(tmp_path / "run")
    assert run.index().state == "interrupted"
    resumed = train(config, run.path, resume=True, progress=False)
    whole = train(config, tmp_path / "whole", progress=False)
    assert weights(resumed) == weights(whole)


def test_validation_rows_are_halved_arm_by_arm() -> None:
    treatment = np.array([0] * 7 + [1] * 4 + [2], dtype=np.int64)
    first, second = halves(treatment, seed=0)
    assert sorted([*first, *second]) == list(range(12))
    assert np.bincount(treatment[first], minlength=3).tolist() == [4, 2, 1]
    assert np.bincount(treatment[second], minlength=3).tolist() == [3, 2, 0]
    assert not np.array_equal(first, halves(treatment, seed=1)[0])


def test_rows_that_weigh_nothing_take_no_part(tmp_path: Path) -> None:
    weightless = pl.int_range(pl.len()) % 4 == 0
    frame = trial(400).with_columns(pl.when(weightless).then(0.0).otherwise(1.0).alias("weight"))
    other = frame.with_columns(
        pl.when(weightless).then(1 - pl.col("bought")).otherwise(pl.col("bought")).alias("bought")
    )
    sections: dict[str, Any] = {"weight": {"bought": "weight"}}
    first = train(trial_config(tmp_path / "a", frame, **sections), tmp_path / "first", progress=False)
    second = train(trial_config(tmp_path / "b", other, **sections), tmp_path / "second", progress=False)
    assert weights(first) == weights(second)
    assert evaluate(first, bootstrap=0).rows < 400 * 0.1


def test_the_outcome_is_standardised_with_the_training_rows(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"label": {"bought": None, "spend": "spend"}, "treatment": {"outcome": "continuous"}}
    first = train(trial_config(tmp_path / "a", **plain), tmp_path / "first", progress=False)
    frame = trial().with_columns(pl.col("spend") * 64 + 1024)
    second = train(trial_config(tmp_path / "b", frame, **plain), tmp_path / "second", progress=False)
    effects = [evaluate(run, bootstrap=0).to_dict()["arms"]["letter"]["effect"]["predicted"] for run in (first, second)]
    assert effects[1] == pytest.approx(64 * effects[0], rel=1e-3)


def test_an_arm_without_rows_is_refused_unless_allowed(tmp_path: Path) -> None:
    frame = three_arms((80, 80, 0))
    with pytest.raises(DataError, match="arm 'coupon' has no rows"):
        train(trial_config(tmp_path, frame, **NO_DOSE), tmp_path / "refused", progress=False)
    allowed = {"treatment": {**NO_DOSE["treatment"], "allow_missing_arms": True}}
    run = train(trial_config(tmp_path, frame, **allowed), tmp_path / "run", progress=False)
    assert any("'coupon' has no training rows" in text for text in run.metrics()["warnings"])
    found = evaluate(run, bootstrap=10).to_dict()
    assert set(found["arms"]) == {"letter"}
    assert found["policy"]["shares"]["coupon"] == 0.0


def test_a_small_arm_is_trained_and_said(tmp_path: Path) -> None:
    run = train(trial_config(tmp_path, three_arms((120, 120, 30)), **NO_DOSE), tmp_path / "run", progress=False)
    [warning] = run.metrics()["warnings"]
    assert "arm 'coupon' has" in warning
    assert "fewer than 50" in warning


def test_an_arm_with_one_outcome_is_learnt_with_add_one_smoothing(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    outcome = [*random.integers(0, 2, 120).tolist(), *random.integers(0, 2, 120).tolist(), *[0] * 120]
    sections: dict[str, Any] = {
        **NO_DOSE,
        "objective": {"epochs": 400, "patience": 0, "learning_rate": 0.01, "head_l2": 0.0},
    }
    run = train(
        trial_config(tmp_path, three_arms((120, 120, 120), outcome), **sections), tmp_path / "run", progress=False
    )
    assert any("every training row of arm 'coupon' has the outcome 0" in text for text in run.metrics()["warnings"])
    arm = evaluate(run, bootstrap=10).to_dict()
    mean = arm["policy"]["arm_means"]["control"] + 0.0
    predicted = arm["arms"]["coupon"]["effect"]["predicted"]
    # n zeros and one row of each outcome more: about 1 / (n + 2), which no growing logit would stop at.
    assert -1 < predicted < 0
    assert arm["factual"]["ece"] is not None
    assert mean > 0


def test_treatment_given_by_a_coin_leaves_everything_finite(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    frame = three_arms((100, 100, 100)).with_columns(pl.lit(40.0).alias("age"), pl.lit("oslo").alias("city"))
    frame = frame.with_columns(pl.Series("bought", random.integers(0, 2, 300)))
    for network in ("dragonnet", "dcn_pd"):
        config = trial_config(tmp_path / network, frame, model={"network": network}, **NO_DOSE)
        found = evaluate(train(config, tmp_path / f"run-{network}", progress=False), bootstrap=10).to_dict()
        for arm in found["arms"].values():
            assert np.isfinite(arm["effect"]["predicted"])
            assert np.isfinite(arm["effect"]["aipw"]["value"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"network": "tarnett"}}, "'tarnett' is not a network of treatment effects.*did you mean tarnet"),
        ({"model": {"width": 3}}, r"\[model\] for network 'tarnet': unknown key 'width'"),
        ({"model": {"members": 0}}, "model.members must be a whole number of at least 1"),
        ({"objective": {"epoch": 3}}, r"\[objective\] for network 'tarnet': .*epoch"),
        ({"objective": {"learning_rate": -1.0}}, r"\[objective\] for network 'tarnet': key learning_rate"),
        ({"train": {"device": "cuda"}}, "train.device must be cpu"),
        (
            {"model": {"network": "vcnet", "representation_layers": None, "head_layers": None}, **NO_DOSE},
            "names no dose",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train(trial_config(tmp_path, **changes), tmp_path / "run", progress=False)


def test_members_become_an_ensemble(tmp_path: Path) -> None:
    run = train(trial_config(tmp_path, model={"members": 3}), tmp_path / "run", progress=False)
    assert [stage["name"] for stage in run.metrics()["stages"]][:3] == [
        "member 1: outcome",
        "member 1: propensity",
        "member 2: outcome",
    ]
    state = read_state(run.best_checkpoint)["network"]
    first = {name.removeprefix("members.0."): value for name, value in state.items() if name.startswith("members.0.")}
    assert any(not torch.equal(value, state[f"members.1.{name}"]) for name, value in first.items())


def oracle_config(folder: Path, *, semi_synthetic: bool = True) -> TrainingConfig:
    given = study_config("ihdp", folder).resolved()
    given["treatment"]["semi_synthetic"] = semi_synthetic
    given["model"] = {"network": "dcn_pd", **SMALL["dcn_pd"]}
    given["objective"] = {"objective": "oracle_ite", "epochs": 4, "propensity": {"epochs": 4}}
    return TrainingConfig.from_mapping(given)


def test_the_oracle_needs_data_that_are_a_simulation(tmp_path: Path) -> None:
    seen, blind = write_ihdp(tmp_path / "seen"), write_ihdp(tmp_path / "blind", blind=True)
    assert train(oracle_config(seen), tmp_path / "run", progress=False).index().state == "finished"
    with pytest.raises(ConfigError, match=r"needs data that say treatment\.semi_synthetic = true"):
        train(oracle_config(seen, semi_synthetic=False), tmp_path / "refused", progress=False)
    with pytest.raises(Diverged, match="is nan"):
        train(oracle_config(blind), tmp_path / "diverged", progress=False)


def test_training_across_environments(tmp_path: Path) -> None:
    # A strong effect of age in either environment: something invariant to find.
    random = np.random.default_rng(3)
    frame = three_arms((150, 150, 0)).with_columns(pl.Series("day", random.choice(["mon", "tue"], 300)))
    frame = frame.with_columns((pl.col("age") > 40).cast(pl.Int8).alias("bought"))
    arms = {"treatment": {**NO_DOSE["treatment"], "arms": ["control", "letter"], "other_values": "drop"}}
    section = {"column": "day", "objective": "irm", "lambda_max": 1.0, "warm_start": 20, "anneal_iters": 5}
    long = {"epochs": 60, "learning_rate": 0.01}
    config = trial_config(tmp_path, frame, **arms, objective=long, invariance=section)
    run = train(config, tmp_path / "run", progress=False)
    assert any("penalty" in line for line in run.history())
    hopeless = frame.with_columns(pl.Series("bought", random.integers(0, 2, 300)))
    config = trial_config(tmp_path / "noise", hopeless, **arms, objective=SHORT, invariance=section)
    with pytest.raises(NullPredictor, match="predicts nothing about 'bought'"):
        train(config, tmp_path / "nothing", progress=False)


def test_the_evaluation_reports_in_sample_and_out_of_sample_apart(tmp_path: Path) -> None:
    config = study_config("ihdp", write_ihdp(tmp_path / "data"), "objective.epochs=5", "evaluation.references=true")
    run = train(config, tmp_path / "run", progress=False)
    found = {split: evaluate(run, split, bootstrap=20).to_dict() for split in ("train", "test")}
    for split, document in found.items():
        assert json.loads((run.path / f"evaluation-{split}.json").read_text()) == document
        arm = document["arms"]["support"]
        assert arm["truth"]["sqrt_pehe"] > 0
        assert [reference["name"] for reference in document["references"]] == [
            "difference in means",
            "S-learner",
            "T-learner",
        ]
        assert document["references"][0]["arms"]["support"]["ranking"]["qini_norm_area"]["value"] == 0.0
    assert found["train"]["rows"] > found["test"]["rows"]
    page = (run.plots_dir / "evaluation-test.html").read_text()
    for name in ("qini-1", "deciles-1", "overlap-1"):
        assert f'id="{name}"' in page


def test_curves_are_measured_where_the_truth_is_known(tmp_path: Path) -> None:
    config = study_config("dose-ihdp", write_dose_ihdp(tmp_path / "data"), "objective.epochs=5")
    found = evaluate(train(config, tmp_path / "run", progress=False), bootstrap=20).to_dict()
    assert found["arms"] == {}
    curve = found["doses"]["dose"]
    assert len(curve["dose"]) == len(curve["average_outcome"]) == len(curve["supported"]) == 21
    assert curve["truth"]["mise"] > 0
    assert curve["truth"]["amse"] > 0
    assert found["warnings"] == []


def test_an_unfinished_run_has_nothing_to_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: RunCheckpoint, step: int, state: Any) -> None:
        raise Interrupted(Path("last.pt"), step)

    monkeypatch.setattr(RunCheckpoint, "save", stop)
    with pytest.raises(Interrupted):
        train(trial_config(tmp_path), tmp_path / "run", progress=False)
    with pytest.raises(RunError, match="has no weights yet"):
        evaluate(tmp_path / "run")

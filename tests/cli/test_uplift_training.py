"""`ctrlift train`, `evaluate` and `export` on treatment effects: the same commands, tables of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.running import ctrlift
from tests.training.studies import trial

CONFIG = """
feature = [{name = "age", kind = "number", side = "user"}, {name = "city", kind = "id", side = "user"}]

[bundle]
name = "trial"

[label]
bought = "bought"

[treatment]
column = "sent"
arms = ["control", "letter", "coupon"]
values = {control = "nothing"}
outcome = "binary"

[ids]
user = "person"

[data]
rows = "rows.csv"

[model]
network = "tarnet"
representation_layers = [8]
head_layers = [6]

[objective]
epochs = 3
propensity = {epochs = 3}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    trial(300).write_csv(tmp_path / "rows.csv")
    file = tmp_path / "trial.toml"
    file.write_text(CONFIG)
    return file


def test_train_evaluate_export(config: Path, tmp_path: Path) -> None:
    run, store = tmp_path / "run", tmp_path / "store"
    trained = ctrlift("train", config, "--run", run, "--quiet", "--json")
    assert trained.code == 0, trained.err
    assert trained.json["metrics"]["stages"][0]["name"] == "outcome"

    shown = ctrlift("evaluate", run, "--bootstrap", "10")
    assert shown.code == 0, shown.err
    for text in ("test, letter against control", "test, coupon against control", "qini_norm_area", "logloss"):
        assert text in shown.out
    assert "difference in means" in shown.out
    inside = ctrlift("evaluate", run, "--part", "train", "--bootstrap", "10", "--json")
    assert inside.json["split"] == "train"

    exported = ctrlift("export", run, "--to", store, "--format", "torchscript", "--json", "--quiet")
    assert exported.code == 0, exported.err
    [bundle] = exported.json["bundles"]
    assert (bundle["name"], bundle["version"], bundle["error"]) == ("trial", "1.0.0", None)
    assert json.loads((store / "trial" / "1.0.0" / "manifest.json").read_text())["kind"] == "uplift"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("objective.epoch=3", "key epoch"),
        ("model.network='tarnett'", "did you mean tarnet?"),
        ("train.epochs=3", "the rest of the training is told in [objective]"),
    ],
)
def test_a_wrong_key_is_said(change: str, said: str, config: Path, tmp_path: Path) -> None:
    ran = ctrlift("train", config, "--run", tmp_path / "run", "--quiet", "--set", change)
    assert ran.code == 2
    assert said in " ".join(ran.err.split())


def test_click_runs_are_not_evaluated_in_sample(tiny_din_run: Path) -> None:
    ran = ctrlift("evaluate", tiny_din_run, "--part", "train")
    assert ran.code != 0
    assert "only valid and test rows are evaluated" in " ".join(ran.err.split())

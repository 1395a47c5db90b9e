"""Clicks and conversions through a whole training: labels, modes, weights, resume, sampling, calibration, report."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import training.fit
from bundle.correct import sigmoid
from tests.training.shop import shop_log, shop_mapping, write_shop
from training.checkpoint import read_state
from training.config import SamplingSection, TrainingConfig
from training.datasets import load_dataset
from training.encoded import encode_part, measured_columns, predict_logits
from training.errors import ConfigError, DataError, Interrupted
from training.evaluate import evaluate, open_trained
from training.fit import train
from training.metrics import auc
from training.run import RunFolder
from training.teaching import teaching_of

TRAIN = {"epochs": 2, "batch_size": 64, "learning_rate": 3e-3, "patience": 0, "checkpoint_every": 4}


def write(folder: Path, **columns: Any) -> Path:
    tables = shop_log(rows=900)
    tables["rows"] = tables["rows"].with_columns(**columns)
    write_shop(folder, tables)
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("funnel"))


def config(shop: Path, mode: str | None = None, network: dict[str, Any] | None = None, **train: Any) -> TrainingConfig:
    mapping = shop_mapping()
    mapping["label"] = {"ctr": "click", "cvr": "buy"}
    mapping["model"] = {"network": "ctr", "embedding_size": 4, "mlp_hidden_layers": [8], **(network or {})}
    mapping["train"] = {**TRAIN, **train}
    if mode is not None:
        mapping["funnel"] = {"mode": mode}
    return TrainingConfig.from_mapping(mapping, folder=shop)


# Labels


def test_a_funnel_is_the_default_and_its_labels_are_both_steps(shop: Path) -> None:
    wanted = config(shop)
    assert wanted.funnel_mode == "entire_space"
    assert wanted.resolved()["funnel"] == {"mode": "entire_space"}
    part = load_dataset(wanted).part("train")
    click, bought, both = (part.labels[name] for name in ("ctr", "cvr", "ctcvr"))
    assert np.array_equal(np.isnan(bought), click == 0)
    assert np.array_equal(both, np.where(click == 1, bought, 0))
    assert not np.isnan(both).any()
    assert "ctcvr" not in load_dataset(config(shop, "independent")).whole.labels


def test_a_conversion_without_a_click_names_its_row_unless_independent(tmp_path: Path) -> None:
    clicks = shop_log(rows=900)["rows"]["click"].to_numpy()
    row = int(np.flatnonzero(clicks == 0)[3])
    folder = write(tmp_path, buy=pl.Series(np.where(np.arange(900) == row, 1, 0)))
    with pytest.raises(DataError, match=rf"rows\.parquet, column 'buy', row {row + 1}: a conversion without a click"):
        load_dataset(config(folder))
    assert len(load_dataset(config(folder, "independent")).whole) == 900


def test_a_missing_click_leaves_that_task_out_and_a_known_conversion_still_counts(tmp_path: Path) -> None:
    rows = shop_log(rows=900)["rows"]
    missing = np.arange(900) % 10 == 0
    folder = write(tmp_path, click=pl.when(pl.Series(missing)).then(None).otherwise(rows["click"]))
    part = load_dataset(config(folder)).whole
    assert np.array_equal(np.isnan(part.labels["ctr"]), missing)
    assert np.isnan(part.labels["cvr"][missing]).all()
    assert np.array_equal(part.labels["ctcvr"][missing], rows["buy"].to_numpy()[missing])


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"label": {"ctr": "click"}, "funnel": {"mode": "clicked_only"}}, "needs the tasks ctr and cvr"),
        ({"label": {"ctr": "click", "cvr": "buy", "ctcvr": "hour"}}, "label"),
        ({"sampling": {"negative_rate": {"cvr": 0.5}, "mode": "serving"}}, "dropped by clicks alone"),
        ({"invariance": {"column": "hour"}}, "set funnel.mode to clicked_only"),
        ({"train": {"task_weights": {"cvr": 2}, "task_weighting": "gradnorm"}}, "task_weights are fixed ones"),
        ({"train": {"task_weighting": "equal"}}, "task_weighting"),
        ({"funnel": {"mode": "clicks"}}, "funnel.mode"),
        ({"train": {"monitor_task": "ctvcr"}}, "did you mean ctcvr"),
    ],
)
def test_what_does_not_fit_is_said_with_its_key(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.from_mapping({**shop_mapping(), "label": {"ctr": "click", "cvr": "buy"}, **sections})


# Training


def test_each_mode_teaches_its_own_rows(shop: Path) -> None:
    counted = {}
    for mode in ("entire_space", "clicked_only"):
        wanted = config(shop, mode)
        part = load_dataset(wanted).part("train")
        teaching = teaching_of(wanted, part)
        counted[mode] = teaching.targets(part, {}).weights[:, 1].sum()
        assert teaching.entire_space == (mode == "entire_space")
    clicks = load_dataset(config(shop)).part("train").labels["ctr"]
    assert counted == {"entire_space": len(clicks), "clicked_only": clicks.sum()}


@pytest.mark.parametrize("mode", ["entire_space", "clicked_only", "independent"])
def test_every_mode_trains_and_its_validation_holds_what_is_measured(mode: str, shop: Path, tmp_path: Path) -> None:
    wanted = config(shop, mode)
    run = train(wanted, tmp_path / "run", progress=False)
    valid = run.metrics()["best"]["valid"]
    assert tuple(valid) == wanted.measured_tasks
    assert ("ctcvr" in valid) == (mode != "independent")


def test_row_weights_reach_the_loss_of_both_steps(tmp_path: Path) -> None:
    """A run in which one row weighs 2 is the run in which it stands twice; one batch holds all rows."""
    rows = shop_log(rows=900)
    weight = np.ones(900)
    weight[:300] = 2
    ends = {}
    for name, order, weights in (
        ("weighted", np.arange(900), weight),
        ("repeated", np.repeat(np.arange(900), weight.astype(int)), np.ones(1200)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        frame = rows["rows"][order].with_columns(w=pl.Series(weights))
        split = ["train" if row < 600 else "valid" if row < 750 else "test" for row in order]
        write_shop(folder, {**rows, "rows": frame.with_columns(part=pl.Series(split))})
        wanted = config(folder, batch_size=2000, epochs=3, group_by_length=False, optimizer="sgd").resolved()
        wanted["weight"] = {"ctr": "w", "cvr": "w"}
        # Numbers are scaled by the rows of the file, whatever they weigh.
        wanted["feature"] = [feature for feature in wanted["feature"] if feature["kind"] in ("id", "sequence")]
        wanted["data"]["split"] = "part"
        checked = TrainingConfig.from_mapping(wanted, folder=folder)
        run = train(checked, folder / "run", progress=False)
        ends[name] = read_state(run.last_checkpoint)["network"]
    for key, value in ends["weighted"].items():
        torch.testing.assert_close(value, ends["repeated"][key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weighting", ["uncertainty", "gradnorm"])
def test_learned_task_weights_are_stepped_logged_and_survive_a_stop(
    weighting: str, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = config(shop, network={"top": "mmoe"}, task_weighting=weighting, ema_decay=0.9)
    whole = train(wanted, tmp_path / "whole", progress=False)
    learned = whole.metrics()["task_weights"]
    assert set(learned) == {"ctr", "cvr"}
    assert all(value != 1 for value in learned.values())
    advance = training.fit.advance

    def stop(position: Any, *rest: Any) -> None:
        advance(position, *rest)
        if position.step == 14:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(training.fit, "advance", stop)
        with pytest.raises(Interrupted):
            train(wanted, tmp_path / "stopped", progress=False)
    resumed = train(wanted, tmp_path / "stopped", resume=True, progress=False)
    first, second = (read_state(run.last_checkpoint) for run in (whole, resumed))
    for part in ("network", "weighting"):
        assert first[part].keys() == second[part].keys()
        assert all(torch.equal(value, second[part][key]) for key, value in first[part].items())
    states = [state["optimizer"]["state"] for state in (first, second)]
    assert all(
        torch.equal(value, states[1][number][name])
        for number, moments in states[0].items()
        for name, value in moments.items()
    )


def test_gradnorm_needs_layers_that_are_shared(shop: Path, tmp_path: Path) -> None:
    wanted = config(shop, network={"mlp_hidden_layers": [], "sequence": []}, task_weighting="gradnorm")
    with pytest.raises(ConfigError, match="compares gradients at shared layers"):
        train(wanted, tmp_path / "run", progress=False)


def test_gates_and_found_widths_are_in_the_log_and_the_summary(shop: Path, tmp_path: Path) -> None:
    network = {"top": {"kind": "mmoe", "experts": 3}, "nas": {"sizes": {"item": [2, 4]}}}
    run = train(config(shop, network=network), tmp_path / "run", progress=False)
    line = next(line for line in run.history() if line["kind"] == "validation")
    for found in (line, run.metrics()):
        assert set(found["gates"]) == {"ctr", "cvr"}
        assert all(0 < gate["entropy"] <= np.log(3) + 1e-6 for gate in found["gates"].values())
        assert found["selected_sizes"]["item"] in (0, 2, 4)


def test_a_gate_with_one_expert_alone_is_worth_a_line() -> None:
    from training.health import collapsed_gates

    line = {"gates": {"ctr": {"entropy": 0.1, "top_share": 0.97}, "cvr": {"entropy": 1.0, "top_share": 0.4}}}
    (note,) = collapsed_gates(line)
    assert "task ctr" in note
    assert "97%" in note


# A task that has nothing to teach


@pytest.mark.parametrize("column", ["click", "buy"])
def test_a_task_of_one_class_is_left_out_and_the_run_says_so(column: str, tmp_path: Path) -> None:
    rows = shop_log(rows=900)["rows"]
    folder = write(tmp_path, **({"buy": pl.lit(0)} if column == "buy" else {"click": pl.lit(1), "buy": rows["click"]}))
    run = train(config(folder), tmp_path / "run", progress=False)
    task = {"buy": "cvr", "click": "ctr"}[column]
    (note,) = run.metrics()["notes"]
    assert note.startswith(f"task {task}: the training labels are all")
    assert [line["text"] for line in run.history() if line["kind"] == "note"] == [note]
    found = evaluate(run, "test", bootstrap=20).to_dict()
    assert found["notes"] == (note,)
    assert found["tasks"][task]["calibrated"]["auc"]["value"] is None
    other = "ctr" if task == "cvr" else "cvr"
    assert found["tasks"][other]["calibrated"]["auc"]["value"] is not None
    opened = open_trained(run)
    part = opened.dataset.part("test")
    encoded = encode_part(opened.encoder, part, ("ctr", "cvr"), {})
    answered = opened.correction.probabilities(predict_logits(opened.network, encoded), ("ctr", "cvr"))[task]
    labels = opened.dataset.part("train").labels[task]
    labels = labels[~np.isnan(labels)]
    assert np.allclose(answered, (labels.sum() + 1) / (len(labels) + 2))


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    folder = write(tmp_path, click=pl.lit(0), buy=pl.lit(0))
    with pytest.raises(DataError, match="there is nothing to train on"):
        train(config(folder), tmp_path / "run", progress=False)


# Correction, calibration and report


@pytest.fixture(scope="module")
def run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(config(shop, epochs=4), tmp_path_factory.mktemp("run") / "run", progress=False)


def test_an_evaluation_holds_the_product_and_measures_conversions_on_clicks(run: RunFolder) -> None:
    found = evaluate(run, "test", bootstrap=50).to_dict()
    assert set(found["tasks"]) == {"ctr", "cvr", "ctcvr"}
    opened = open_trained(run)
    part = opened.dataset.part("test")
    logits = predict_logits(opened.network, encode_part(opened.encoder, part, ("ctr", "cvr"), {}))
    served = opened.correction.probabilities(logits, ("ctr", "cvr"))
    both = served["ctr"] * served["cvr"]
    assert found["tasks"]["ctcvr"]["calibrated"]["auc"]["value"] == pytest.approx(auc(part.labels["ctcvr"], both))
    clicked = part.labels["ctr"] == 1
    expected = auc(part.labels["cvr"][clicked], sigmoid(logits[clicked, 1]))
    assert found["tasks"]["cvr"]["raw"]["auc"]["value"] == pytest.approx(expected)
    assert {reference["task"] for reference in found["references"]} == {"ctr", "cvr", "ctcvr"}
    assert json.loads((run.path / "evaluation-test.json").read_text())["tasks"]["ctcvr"]


def test_each_factor_is_calibrated_on_the_rows_it_speaks_of(run: RunFolder) -> None:
    opened = open_trained(run)
    part = opened.dataset.part("valid")
    logits = predict_logits(opened.network, encode_part(opened.encoder, part, ("ctr", "cvr"), {}))
    served = opened.correction.probabilities(logits, ("ctr", "cvr"))
    clicked = part.labels["ctr"] == 1
    # Platt's intercept makes the mean chance that of the labels, up to the prior worth one row.
    assert served["ctr"].mean() == pytest.approx(part.labels["ctr"].mean(), rel=0.05)
    assert served["cvr"][clicked].mean() == pytest.approx(part.labels["cvr"][clicked].mean(), rel=0.15)


def test_dropped_exposures_stand_for_others_in_the_product_too(shop: Path) -> None:
    dataset = load_dataset(config(shop))
    sampling = SamplingSection(negative_rate={"ctr": 0.5}, mode="serving", upstream=True)
    opened_rates = {"ctr": 0.5, "cvr": 1.0}
    from bundle.encode import Encoder
    from bundle.fitting import fit

    part = dataset.part("valid")
    encoder = Encoder(fit(dataset.features, dataset.fit_columns()))
    columns = measured_columns(encode_part(encoder, part, ("ctr", "cvr"), opened_rates), sampling)
    click = part.labels["ctr"]
    assert np.array_equal(columns["ctcvr"][1], np.where(click == 0, 2, 1))
    assert np.array_equal(columns["cvr"][1], click)


def test_an_exported_funnel_is_served_with_its_product(run: RunFolder, tmp_path: Path) -> None:
    from service.core.opening import open_version
    from service.core.version import ServedVersion
    from service.engines.opening import EngineOptions
    from training.export import export_run

    version = open_version(export_run(run, tmp_path, ("onnx",)), EngineOptions())
    assert isinstance(version, ServedVersion)
    assert version.tasks == ("ctr", "cvr")
    card = next(version.bundle.path.glob("*.html")).read_text()
    assert "ctcvr" in card

"""A click network trained across environments: from the column of the file to the kept weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import training.fit
import training.job
from tests.training.shop import shop_log, shop_mapping, write_shop
from training.batches import Batch
from training.checkpoint import read_state
from training.config import TrainingConfig, load_config
from training.encoded import encode_part, predict_logits
from training.errors import ConfigError, DataError, Interrupted, NullPredictor
from training.evaluate import open_trained
from training.fit import train
from training.metrics import auc
from training.preparation import open_run, prepare
from training.run import RunFolder

SOURCES = ("app", "mail", "kiosk", "web")
# Where each source's rows go, how many there are, and how often the hint is wrong in them.
PARTS, ROWS, WRONG = ("train", "train", "valid", "test"), (600, 600, 200, 200), (0.05, 0.25, 0.5, 0.9)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's rows with a source, and a hint that says click or not: well in the two sources that train."""
    folder = tmp_path_factory.mktemp("shop")
    tables = shop_log(rows=sum(ROWS))
    rows = tables["rows"]
    generator = np.random.default_rng(1)
    source = generator.permutation(np.repeat(range(4), ROWS))
    hint = (rows["click"].to_numpy() == 1) ^ (generator.random(len(rows)) < np.array(WRONG)[source])
    tables["rows"] = rows.with_columns(
        pl.Series("source", [SOURCES[code] for code in source]),
        pl.Series("hint", hint.astype(float) - 0.5),
        pl.Series("part", [PARTS[code] for code in source]),
        pl.Series("nobody", ["x"] * len(rows)),
    )
    write_shop(folder, tables)
    return folder


def config(shop: Path, invariance: dict[str, Any] | None, **settings: Any) -> TrainingConfig:
    mapping = shop_mapping(split="part")
    mapping["feature"].append({"name": "hint", "kind": "number", "side": "context"})
    mapping["model"] = {"network": "din", "embedding_size": 4}
    mapping["train"] = {"epochs": 3, "batch_size": 64, "learning_rate": 3e-3, "patience": 0, **settings}
    if invariance is not None:
        mapping["invariance"] = {"column": "source", "warm_start": 9, "anneal_iters": 9, **invariance}
    return TrainingConfig.from_mapping(mapping, folder=shop)


def steps(run: RunFolder) -> list[dict[str, Any]]:
    return [line for line in run.history() if line["kind"] == "step"]


@pytest.fixture(scope="module")
def irm_run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(config(shop, {}), tmp_path_factory.mktemp("irm") / "run", progress=False)


def test_batches_carry_the_environment_of_each_row(shop: Path, tmp_path: Path) -> None:
    data = prepare(config(shop, {}), open_run(config(shop, {}), tmp_path / "run", False, None))
    assert data.environments is not None
    assert data.environments.names == ("app", "mail")
    sources = data.dataset.frame("train")["source"].to_list()
    for epoch in range(2):
        order = data.batches.order(epoch)
        assert len(order) == data.batches.per_epoch
        for number, rows in enumerate(order):
            batch = data.batches.build(rows, epoch, number)
            assert isinstance(batch, Batch)
            assert batch.environments is not None
            assert [SOURCES[code] for code in batch.environments] == [sources[row] for row in rows]
            assert torch.bincount(batch.environments).min() >= 2
            assert batch.to(torch.device("cpu")).environments is not None


def test_every_step_logs_its_penalty_and_its_weight(irm_run: RunFolder) -> None:
    lines = steps(irm_run)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["penalty_weight"] for line in lines] == [0.0] * 9 + [1.0] * 9 + [100.0] * (len(lines) - 18)
    assert all(set(line["risks"]) == {"app", "mail"} for line in lines)
    # A product of two halves is an unbiased estimate: near 0 it is negative about as often as positive.
    assert any(line["penalty"] < 0 for line in lines)
    assert any(line["penalty"] > 0 for line in lines)


def test_the_kept_weights_are_the_objective_s_own(irm_run: RunFolder) -> None:
    assert irm_run.metrics()["position"]["best_step"] > 18
    assert irm_run.index().state == "finished"


def test_the_optimiser_begins_anew_at_the_switch(shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ages: list[float] = []
    advance = training.fit.advance
    jobs: list[training.job.Job] = []
    build = training.job.build_job

    def built(*arguments: Any) -> training.job.Job:
        jobs.append(build(*arguments))
        return jobs[-1]

    def looked(position: Any, *rest: Any) -> None:
        advance(position, *rest)
        ages.append(max(float(state["step"]) for state in jobs[0].optimizer.state.values()))

    monkeypatch.setattr(training.fit, "advance", looked)
    monkeypatch.setattr(training.fit, "build_job", built)
    settings = {"optimizer": "adam", "weight_decay": 1e-3, "ema_decay": 0.9, "epochs": 2}
    train(config(shop, {}, **settings), tmp_path / "run", progress=False)
    assert ages == [*range(1, 19), *range(1, len(ages) - 17)]
    # Adam's decay goes through the gradient and is divided by lambda like the rest of the loss.
    decays = {group["name"]: group["weight_decay"] for group in jobs[0].optimizer.param_groups}
    assert decays["default"] == pytest.approx(1e-5)
    assert jobs[0].average is not None
    assert jobs[0].average.steps == len(ages) - 18


@pytest.mark.parametrize("step", [13, 18, 25])
def test_a_resumed_run_ends_with_the_weights_it_would_have_had(
    step: int, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(shop, {"objective": "groupdro" if step == 25 else "irm"}, epochs=2, ema_decay=0.9)
    whole = train(settings, tmp_path / "whole", progress=False)
    advance = training.fit.advance

    def stop(position: Any, *rest: Any) -> None:
        advance(position, *rest)
        if position.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(training.fit, "advance", stop)
        with pytest.raises(Interrupted):
            train(settings, tmp_path / "cut", progress=False)
    resumed = train(settings, tmp_path / "cut", resume=True, progress=False)
    for file in ("last_checkpoint", "best_checkpoint"):
        one, two = read_state(getattr(whole, file)), read_state(getattr(resumed, file))
        assert all(torch.equal(value, two["network"][key]) for key, value in one["network"].items())
    one, two = read_state(whole.last_checkpoint), read_state(resumed.last_checkpoint)
    assert torch.equal(one["invariance"]["group_weights"], two["invariance"]["group_weights"])
    assert (one["invariance"]["group_weights"][0] != 0.5) == (step == 25)
    for line in (*steps(whole), *steps(resumed)):
        del line["seconds"]
    kept = [{key: value for key, value in line.items() if key != "seconds"} for line in steps(whole)]
    assert kept == [{key: value for key, value in line.items() if key != "seconds"} for line in steps(resumed)]


def web_auc(run: RunFolder) -> float:
    opened = open_trained(run)
    part = encode_part(opened.encoder, opened.dataset.part("test"), ("ctr",), {"ctr": 1.0})
    return auc(part.targets.labels[:, 0], predict_logits(opened.network, part)[:, 0])


def test_the_penalty_takes_the_network_off_what_changes_between_environments(shop: Path, tmp_path: Path) -> None:
    settings = {"epochs": 90, "batch_size": 2_000, "learning_rate": 3e-3}
    plain = train(config(shop, {"objective": "erm"}, **settings), tmp_path / "erm", progress=False)
    schedule = {"warm_start": 40, "anneal_iters": 0, "lambda_max": 1e3}
    invariant = train(config(shop, schedule, **settings), tmp_path / "irm", progress=False)
    assert web_auc(plain) < 0.25
    assert web_auc(invariant) > 0.4
    assert min(line["penalty"] for line in steps(invariant)) >= 0  # all rows at once: squares


def test_a_network_that_has_learnt_nothing_fails_the_run(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(NullPredictor, match=r"predicts nothing about 'ctr' .*lower invariance\.lambda_max") as caught:
        train(config(shop, {}, learning_rate=1e-9), tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "metrics.json").exists()
    train(config(shop, {"objective": "erm"}, learning_rate=1e-9, epochs=1), tmp_path / "erm", progress=False)


@pytest.mark.parametrize(
    ("invariance", "error", "message"),
    [
        ({"column": "sorce"}, DataError, r"there is no column 'sorce' \(invariance\.column\), did you mean source\?"),
        ({"column": "nobody"}, DataError, "needs at least 2, and nobody gives 1"),
        ({"warm_start": 5_000}, ConfigError, r"take 5009 steps and the run has 57: give it more epochs"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    invariance: dict[str, Any], error: type[Exception], message: str, shop: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        train(config(shop, invariance), tmp_path / "run", progress=False)


def test_the_section_is_read_checked_and_kept(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key invariance\.lambda, did you mean invariance\.lambda_max\?"):
        config(shop, {"lambda": 3})
    with pytest.raises(ConfigError, match=r"key invariance\.objective: .*'irmv1'"):
        config(shop, {"objective": "irmv1"})
    given = config(shop, {"objective": "vrex"})
    assert TrainingConfig.from_mapping(given.resolved()).invariance == given.invariance
    assert "invariance" not in config(shop, None).resolved()
    file = tmp_path / "config.toml"
    file.write_text('[label]\nctr = "click"\n[ids]\nuser = "u"\nitem = "i"\ntime = "t"\n[bundle]\nname = "b"\n'
                    '[[feature]]\nname = "i"\nkind = "id"\nside = "candidate"\n[data]\nrows = "r.csv"\n')  # fmt: skip
    loaded = load_config(file, ["invariance.column=day", "invariance.lambda_max=7"])
    assert loaded.invariance is not None
    assert (loaded.invariance.column, loaded.invariance.lambda_max) == ("day", 7.0)

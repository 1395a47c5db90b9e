"""The loop: reproducible, keeps the best weights, stops when it should, and never looks at the test rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bundle.correct import sigmoid
from models.ctr.fields import FieldReader
from tests.tiny import changed, tiny_config, tiny_mapping
from training.checkpoint import read_state
from training.config import SamplingSection
from training.datasets import Dataset
from training.encoded import predict_logits, unsampled_logits
from training.errors import ConfigError, Diverged, RunError
from training.evaluate import open_trained
from training.fit import sampled_logits, train
from training.job import build_job
from training.network import build_network
from training.preparation import open_run, prepare
from training.run import RunFolder


def best_weights(run: RunFolder) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = read_state(run.best_checkpoint)["network"]
    return weights


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("network", ["din", "dien"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(
    network: str, tiny_data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first = RunFolder.open(request.getfixturevalue(f"tiny_{network}_run"))
    again = train(tiny_config(tiny_data, network), tmp_path / "again", progress=False)
    other = train(tiny_config(tiny_data, network, seed=1), tmp_path / "other", progress=False)
    assert equal(best_weights(first), best_weights(again))
    assert not equal(best_weights(first), best_weights(other))


def test_a_run_leaves_what_it_promises(tiny_dien_run: Path) -> None:
    run = RunFolder.open(tiny_dien_run)
    index = run.index()
    assert index.state == "finished"
    assert index.libraries["torch"] == torch.__version__
    assert len(index.data_fingerprint) == 64
    assert set(index.window) == {"train", "valid", "test"}
    assert run.config()["train"]["batch_size"] == 64
    assert (run.plots_dir / "training.html").stat().st_size > 1_000_000
    validations = [line for line in run.history() if line["kind"] == "validation"]
    assert [line["epoch"] for line in validations] == [0, 1]
    assert set(validations[0]["valid"]["ctr"]) == {"auc", "gauc", "logloss"}
    assert all(line["auxiliary"] > 0 for line in validations)
    assert run.metrics()["best"]["step"] == run.metrics()["position"]["best_step"]


def test_training_learns(tiny_data: Path, tmp_path: Path) -> None:
    run = train(tiny_config(tiny_data, "din", epochs=12, patience=0), tmp_path / "run", progress=False)
    validations = [line for line in run.history() if line["kind"] == "validation"]
    assert validations[-1]["loss"] < 0.75 * validations[0]["loss"]
    assert max(line["valid"]["ctr"]["auc"] for line in validations) > 0.65


def test_the_kept_weights_are_those_that_were_validated(tiny_dien_run: Path) -> None:
    opened = open_trained(tiny_dien_run)
    encoded_valid = prepare(opened.config, opened.run).valid
    from training.validation import validate

    found = validate(opened.network, encoded_valid, opened.config.sampling)
    assert found["ctr"] == opened.run.metrics()["best"]["valid"]["ctr"]


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_padding_rows_stay_zero_in_what_is_kept_and_in_what_is_resumed(
    ema_decay: float, tiny_data: Path, tmp_path: Path
) -> None:
    config = tiny_config(tiny_data, "dien", ema_decay=ema_decay, weight_decay={"default": 0.1, "item": 0.5}, epochs=1)
    run = train(config, tmp_path / "run", progress=False)
    opened = open_trained(run)
    for file in (run.best_checkpoint, run.last_checkpoint):
        network = build_network("dien", opened.options)
        network.load_state_dict(read_state(file)["network"])
        tables = [table for m in network.modules() if isinstance(m, FieldReader) for table in m.embedding.tables]
        assert len(tables) == len(opened.options["layout"]["tables"])
        for table in tables:
            assert torch.equal(table.weight[0], torch.zeros_like(table.weight[0]))
            assert bool((table.weight[1:] != 0).any())


def test_the_average_of_the_weights_is_what_is_validated_and_kept(tiny_data: Path, tmp_path: Path) -> None:
    run = train(tiny_config(tiny_data, "din", ema_decay=0.9, epochs=1), tmp_path / "run", progress=False)
    last = read_state(run.last_checkpoint)
    assert equal(best_weights(run), last["average"]["values"])
    assert not equal(best_weights(run), last["network"])


def test_training_stops_when_patience_runs_out(tiny_data: Path, tmp_path: Path) -> None:
    # With next to no learning rate the validation soon stops getting better.
    config = tiny_config(tiny_data, "din", epochs=9, learning_rate=1e-30, patience=2)
    run = train(config, tmp_path / "run", progress=False)
    validations = [line for line in run.history() if line["kind"] == "validation"]
    bests = [line["best"] for line in validations]
    assert bests[0]
    assert bests[-3:] == [True, False, False]
    assert len(bests) < 9
    assert run.index().state == "finished"


def test_validation_and_checkpoints_every_so_many_steps(tiny_data: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_data, "din", epochs=1, validate_every=5, patience=0)
    run = train(config, tmp_path / "run", progress=False)
    assert [line["step"] for line in run.history() if line["kind"] == "validation"] == [5, 10, 12]


@pytest.mark.parametrize("monitor", ["auc", "gauc", "logloss"])
def test_the_best_of_the_monitored_metric_is_kept(monitor: str, tiny_data: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_data, "din", epochs=4, patience=0, learning_rate=0.05, monitor=monitor)
    run = train(config, tmp_path / "run", progress=False)
    values = [line["valid"]["ctr"][monitor] for line in run.history() if line["kind"] == "validation"]
    best = min(values) if monitor == "logloss" else max(values)
    assert run.metrics()["best"]["valid"]["ctr"][monitor] == best
    assert read_state(run.best_checkpoint)["step"] == run.metrics()["best"]["step"]


def test_a_diverging_run_says_so(tiny_data: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_data, "din", optimizer="sgd", learning_rate=1e25)
    with pytest.raises(Diverged, match=r"at step \d+: lower train\.learning_rate"):
        train(config, tmp_path / "run", progress=False)


def test_the_loop_never_reads_the_test_rows(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = Dataset.part

    def part(dataset: Dataset, split: Any) -> Any:
        read.append(split)
        return original(dataset, split)

    monkeypatch.setattr(Dataset, "part", part)
    train(tiny_config(tiny_data, "din", epochs=1), tmp_path / "run", progress=False)
    assert set(read) == {"train", "valid"}


@pytest.mark.parametrize("mode", ["training", "serving"])
def test_dropped_negatives_are_corrected_exactly_once(mode: str, tiny_data: Path, tmp_path: Path) -> None:
    config = changed(
        tiny_mapping(tiny_data, "din", epochs=8, patience=0),
        sampling={"negative_rate": 0.2, "mode": mode},
    )
    opened = open_trained(train(config, tmp_path / "run", progress=False))
    valid = prepare(config, opened.run).valid
    raw = predict_logits(opened.network, valid)
    corrected = sigmoid(unsampled_logits(raw, valid.targets.rates, config.sampling)).mean()
    share = valid.targets.labels.mean()
    assert abs(corrected - share) < 0.12
    # The network of the serving mode describes the sampled rows, whose share of clicks is far higher.
    if mode == "serving":
        assert sigmoid(raw).mean() > share + 0.12
    assert opened.correction.mode == mode
    assert opened.correction.tasks["ctr"].rate == 0.2


def test_only_the_training_mode_changes_the_logit_that_the_loss_sees(tiny_data: Path, tmp_path: Path) -> None:
    logits = torch.tensor([[0.5], [-1.0]])
    for mode, expected in (("training", -math.log(0.25)), ("serving", 0.0), ("none", 0.0)):
        sampling = {"mode": mode, **({} if mode == "none" else {"negative_rate": 0.25})}
        config = changed(tiny_mapping(tiny_data, "din"), sampling=sampling)
        run = open_run(config, tmp_path / mode, False, None)
        job = build_job(config, run, prepare(config, run))
        batch = job.data.batches.build(np.array([0, 1]), 0, 0)
        torch.testing.assert_close(sampled_logits(job, logits, batch) - logits, torch.full((2, 1), expected))


def test_serving_mode_adds_the_log_rate_back_and_the_others_do_not() -> None:
    logits, rates = np.array([[0.3]]), np.array([[0.5]], dtype=np.float32)
    for mode, shift in (("serving", math.log(0.5)), ("training", 0.0)):
        sampling = SamplingSection(negative_rate=0.5, mode=mode)  # type: ignore[arg-type]
        assert unsampled_logits(logits, rates, sampling)[0, 0] == pytest.approx(0.3 + shift)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("model", {"network": "dein"}, "model.network: 'dein' is not a network, expected one of .*dien"),
        ("model", {"mlp_hiden_layers": [4]}, "unknown key 'mlp_hiden_layers'"),
        ("train", {"weight_decay": {"itme": 0.1}}, "train.weight_decay: 'itme' is not a table of the network"),
    ],
)
def test_a_wrong_network_option_is_one_sentence(
    section: str, values: dict[str, Any], message: str, tiny_data: Path, tmp_path: Path
) -> None:
    config = changed(tiny_mapping(tiny_data, "dien"), **{section: values})
    with pytest.raises(ConfigError, match=message) as caught:
        train(config, tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)


def test_a_finished_run_is_neither_overwritten_nor_resumed(tiny_data: Path, tiny_din_run: Path) -> None:
    with pytest.raises(RunError, match="already holds a run"):
        train(tiny_config(tiny_data, "din"), tiny_din_run, progress=False)
    with pytest.raises(RunError, match="has finished"):
        train(tiny_config(tiny_data, "din"), tiny_din_run, resume=True, progress=False)


def test_progress_without_a_terminal_is_plain_lines(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_config(tiny_data, "din", epochs=1), tmp_path / "run")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "\x1b" not in shown.err
    assert "epoch 1  step 12  loss " in shown.err
    assert "valid auc 0." in shown.err


def test_the_number_of_torch_threads_is_put_back(tiny_data: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    train(tiny_config(tiny_data, "din", epochs=1, threads=before + 1), tmp_path / "run", progress=False)
    assert torch.get_num_threads() == before

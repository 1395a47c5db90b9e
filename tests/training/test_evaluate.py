"""Evaluation: metrics of the rows that training did not see, beside the references, with intervals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bundle.correct import sigmoid
from training.batches import Targets
from training.config import SamplingSection
from training.encoded import encode_part, population_weights, predict_logits
from training.errors import RunError
from training.evaluate import Evaluation, evaluate, open_trained
from training.metrics import auc, logloss
from training.run import RunFolder


@pytest.fixture(scope="module")
def run(tiny_dien_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("evaluate") / "run"
    shutil.copytree(tiny_dien_run, copy)
    return copy


@pytest.fixture(scope="module")
def found(run: Path) -> Evaluation:
    return evaluate(run, "test", bootstrap=100)


def test_an_evaluation_is_what_the_rows_say(run: Path, found: Evaluation) -> None:
    opened = open_trained(run)
    part = opened.dataset.part("test")
    encoded = encode_part(opened.encoder, part, ("ctr",), {"ctr": 1.0})
    logits = predict_logits(opened.network, encoded)
    task = found.tasks["ctr"]
    assert task.raw["auc"]["value"] == auc(part.labels["ctr"], logits[:, 0])
    assert task.raw["logloss"]["value"] == pytest.approx(logloss(part.labels["ctr"], sigmoid(logits[:, 0])))
    served = opened.correction.probabilities(logits, ("ctr",))["ctr"]
    assert task.calibrated["logloss"]["value"] == pytest.approx(logloss(part.labels["ctr"], served))
    assert found.rows == len(part)
    assert found.users == len(set(part.user_ids.to_list()))
    assert sum(bin_["weight"] for bin_ in task.curve_calibrated) == len(part)


def test_every_metric_has_an_interval_around_it(found: Evaluation) -> None:
    task = found.tasks["ctr"]
    for metrics in (task.calibrated, task.raw, task.without_history):
        assert set(metrics) == {"auc", "gauc", "logloss", "pcoc", "ece"}
        for name in ("auc", "logloss", "pcoc"):
            interval = metrics[name]
            assert interval["low"] < interval["value"] < interval["high"]  # type: ignore[operator]


def test_a_lost_history_is_measured_as_the_service_would_answer_it(run: Path, found: Evaluation) -> None:
    opened = open_trained(run)
    lost = opened.dataset.part("test").without_history()
    encoded = encode_part(opened.encoder, lost, ("ctr",), {"ctr": 1.0})
    assert not encoded.rows.take()["behaviour_mask"].any()
    logits = predict_logits(opened.network, encoded)
    served = opened.correction.probabilities(logits, ("ctr",), without_history=True)["ctr"]
    assert found.tasks["ctr"].without_history["logloss"]["value"] == pytest.approx(logloss(lost.labels["ctr"], served))
    own = opened.correction.tasks["ctr"]
    assert own.calibrator_without_history != own.calibrator


def test_references_stand_beside_the_network_with_a_paired_difference(found: Evaluation) -> None:
    names = [reference.name for reference in found.references]
    assert any("item rate" in name for name in names)
    assert any("logistic" in name for name in names)
    own = found.tasks["ctr"].calibrated["auc"]["value"]
    for reference in found.references:
        other, gain = reference.metrics["auc"]["value"], reference.gain["auc"]["value"]
        assert own is not None
        assert other is not None
        assert gain == pytest.approx(own - other)


def test_the_result_is_kept_as_plain_json(run: Path, found: Evaluation) -> None:
    kept = json.loads((run / "evaluation-test.json").read_text())
    assert kept == json.loads(json.dumps(found.to_dict()))
    assert kept["split"] == "test"


def test_logits_do_not_depend_on_how_rows_are_batched(run: Path) -> None:
    opened = open_trained(run)
    encoded = encode_part(opened.encoder, opened.dataset.part("valid"), ("ctr",), {"ctr": 1.0})
    np.testing.assert_allclose(
        predict_logits(opened.network, encoded, batch_size=7), predict_logits(opened.network, encoded), atol=1e-6
    )


def test_a_run_without_weights_says_why(tiny_dien_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_dien_run, copy)
    RunFolder(copy).best_checkpoint.unlink()
    RunFolder(copy).set_state("interrupted")
    with pytest.raises(RunError, match="has no weights yet: the run is interrupted and was never validated"):
        evaluate(copy)


def test_rows_that_were_sampled_before_they_came_here_stand_for_more() -> None:
    targets = Targets(
        labels=np.array([[1.0], [0.0], [np.nan]], dtype=np.float32),
        weights=np.array([[1.0], [2.0], [0.0]], dtype=np.float32),
        rates=np.full((3, 1), 0.25, dtype=np.float32),
    )
    here = SamplingSection(negative_rate=0.25, mode="serving")
    upstream = SamplingSection(negative_rate=0.25, mode="serving", upstream=True)
    assert population_weights(targets, here)[:, 0].tolist() == [1, 2, 0]
    assert population_weights(targets, upstream)[:, 0].tolist() == [1, 8, 0]

"""Clicks, conversions and their product from one exported graph: each is corrected before they are multiplied."""

import numpy as np
import pytest

from bundle.correct import Platt
from bundle.request import ScoreQuery
from service.core.version import ServedVersion, load_version
from tests.training.shop import FIRST_SECOND, shop_log, shop_mapping, write_shop
from training.config import TrainingConfig
from training.export import export_run
from training.fit import train

KEPT = 0.5


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> ServedVersion:
    """A funnel whose exposures without a click were halved before training, exported."""
    folder = tmp_path_factory.mktemp("tasks")
    write_shop(folder, shop_log(rows=900))
    mapping = {**shop_mapping(), "label": {"ctr": "click", "cvr": "buy"}}
    mapping["model"] = {"network": "ctr", "top": "mmoe", "embedding_size": 4, "mlp_hidden_layers": [8]}
    mapping["train"] = {"epochs": 2, "batch_size": 64}
    mapping["sampling"] = {"negative_rate": {"ctr": KEPT}, "mode": "serving"}
    run = train(TrainingConfig.from_mapping(mapping, folder=folder), folder / "run", progress=False)
    return load_version(export_run(run, folder / "models", ("onnx",)))


def test_the_three_probabilities_come_from_one_request(version: ServedVersion) -> None:
    found = version.score(ScoreQuery("u1", ["3", "7", "nothing"], FIRST_SECOND + 30_000), None)
    assert found.logits.shape == (1, 3, 2)
    expected = {}
    for column, (task, shift) in enumerate((("ctr", np.log(KEPT)), ("cvr", 0.0))):
        line = version.manifest.correction.tasks[task].calibrator
        assert isinstance(line, Platt)
        # Sampling is undone before the calibrator, and only where rows were dropped: among clicks nothing was.
        expected[task] = 1 / (1 + np.exp(-(line.a * (found.logits[..., column] + shift) + line.b)))
        np.testing.assert_allclose(found.probabilities[task], expected[task], rtol=1e-9)
    np.testing.assert_allclose(found.probabilities["ctcvr"], expected["ctr"] * expected["cvr"], rtol=1e-9)


def test_calibrated_factors_make_a_calibrated_product(version: ServedVersion) -> None:
    tasks = version.manifest.metrics["tasks"]
    assert set(tasks) == {"ctr", "cvr", "ctcvr"}
    assert tasks["ctcvr"]["calibrated"]["pcoc"]["value"] == pytest.approx(1, abs=0.5)

"""Publishing treatment effects: the graphs are the network for every size, and a bundle knows what it knows badly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from bundle.conformal import CONFORMAL_FILE
from bundle.effects import effects, outcomes, propensities, supported
from bundle.errors import BundleRefused
from bundle.loading import open_bundle
from bundle.population import rows_from_users
from bundle.treatment import UpliftPart
from bundle.uplift_inputs import graph_inputs
from tests.training.studies import study_config, trial, write_dose_ihdp
from tests.training.uplift_trial import NO_DOSE, three_arms, trial_config
from training.config import TrainingConfig
from training.errors import ExportFailed
from training.evaluate import configuration
from training.export import export_many, export_run
from training.fit import train
from training.graph.signature import GraphSignature, samples_signature
from training.graph.writing import write_graphs
from training.parity import open_outputs
from training.uplift import export
from training.uplift.intervals import calibrated
from training.uplift.parity import BLOCKS, GRIDS, MAX_DIFFERENCE
from training.uplift.predict import Predictor
from training.uplift.support import dose_supports
from training.uplift.trained import TrainedUplift, open_trained_uplift

ENGINES = ("onnx", "torchscript")


@dataclass(frozen=True)
class Published:
    """A bundle and the run that it came from."""

    path: Path
    opened: TrainedUplift

    @property
    def part(self) -> UpliftPart:
        part = open_bundle(self.path).manifest.uplift
        assert part is not None
        return part


def publish(folder: Path, config: TrainingConfig, formats: Sequence[str] = ENGINES) -> Published:
    run = train(config, folder / "run", progress=False)
    path = export_run(run, folder / "store", formats)
    return Published(path, open_trained_uplift(run, configuration(run)))


MODELS: Mapping[str, Mapping[str, Any]] = {
    "tarnet": {},
    "vcnet": {},
    "drnet": {},
    "dcn_pd": {},
    "ensemble": {"network": "tarnet", "members": 3},
}
NAMES = sorted(MODELS)


class Shelf(dict[str, Published]):
    """One bundle a network that is exported in its own way, trained on the made-up trial when it is first asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self._factory = factory

    def __missing__(self, name: str) -> Published:
        folder = self._factory.mktemp(name)
        config = trial_config(folder, trial(500), model={"network": name, **MODELS[name]})
        self[name] = publish(folder, config)
        return self[name]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Published]:
    return Shelf(tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ENGINES)
def test_every_graph_gives_the_networks_outputs_for_other_people(
    name: str, kind: str, published: Mapping[str, Published]
) -> None:
    bundle = open_bundle(published[name].path)
    part, network = published[name].part, published[name].opened.network
    inputs, names = [spec.name for spec in bundle.manifest.inputs], [spec.name for spec in bundle.manifest.outputs]
    graph = open_outputs(kind, bundle.graph(kind).content, inputs, names)
    whole = published[name].opened.dataset.part("train").rows
    for users in (1, 2, 5, 33):
        encoded = bundle.encoder.encode(whole.take(np.arange(users)))
        for points in (2, 3, 50) if part.doses else (0,):
            arrays = graph_inputs(encoded, part, {}, points) if part.doses else graph_inputs(encoded, part)
            assert list(arrays) == inputs
            with torch.no_grad():
                eager = network(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays.values()))
            for output, tensor in zip(names, eager, strict=True):
                found = graph(arrays)[output]
                assert found.shape == tensor.shape
                np.testing.assert_allclose(found, tensor.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ENGINES)
def test_golden_requests_come_back_and_are_varied(name: str, kind: str, published: Mapping[str, Published]) -> None:
    bundle, part = open_bundle(published[name].path), published[name].part
    inputs, names = [spec.name for spec in bundle.manifest.inputs], [spec.name for spec in bundle.manifest.outputs]
    graph = open_outputs(kind, bundle.graph(kind).content, inputs, names)
    rows = bundle.uplift_golden
    assert len(rows) >= 12
    assert {len(row.query.users) for row in rows} >= {1, 2, 24}
    assert any(not row.query.users[0].features for row in rows)
    assert any(user.features.get("city") == "golden-unseen-value" for row in rows for user in row.query.users)
    if part.doses:
        assert {row.points for row in rows} == {2, 21, 201}
        low, high = part.doses["coupon"].low, part.doses["coupon"].high
        assert {row.doses["coupon"] for row in rows} >= {low, high}
    for row in rows:
        encoded = bundle.encoder.encode(rows_from_users(bundle.fitted, row.query).rows)
        arrays = graph_inputs(encoded, part, row.doses, row.points) if part.doses else graph_inputs(encoded, part)
        for output, values in graph(arrays).items():
            np.testing.assert_allclose(values, row.outputs[output], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_says_what_the_training_rows_know(name: str, published: Mapping[str, Published]) -> None:
    bundle, part = open_bundle(published[name].path), published[name].part
    manifest = bundle.manifest
    assert (manifest.kind, manifest.tasks) == ("uplift", ("bought",))
    assert part.treatments == ("control", "letter", "coupon")
    train_rows = published[name].opened.dataset.part("train")
    counts = np.bincount(train_rows.treatment, minlength=3).tolist()
    assert [part.arms[arm].rows for arm in part.treatments] == counts
    assert part.conformal
    assert CONFORMAL_FILE in manifest.files
    assert max(manifest.metrics["largest_difference"].values()) <= MAX_DIFFERENCE
    assert set(manifest.metrics["arms"]) == {"letter", "coupon"}
    takes_doses = name in ("vcnet", "drnet")
    assert set(part.doses) == ({"coupon"} if takes_doses else set())
    if takes_doses:
        coupon = part.doses["coupon"]
        doses = train_rows.dose[train_rows.treatment == 2]
        assert (coupon.low, coupon.high, coupon.default) == (1.0, 5.0, float(np.median(doses)))
        assert coupon.smooth == (name == "vcnet")
        assert len(coupon.edges) == (0 if name == "vcnet" else 4)
    samples = {"dcn_pd": "mc_dropout", "ensemble": "ensemble"}.get(name)
    assert (part.samples.method if part.samples else None) == samples
    assert ("samples.onnx" in manifest.files) == (samples is not None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcn_pd", "ensemble"])
def test_the_second_graph_gives_the_networks_samples(name: str, published: Mapping[str, Published]) -> None:
    bundle, part, opened = open_bundle(published[name].path), published[name].part, published[name].opened
    assert part.samples is not None
    signature = samples_signature(export.layout_of(opened), part.samples.noise_width)
    encoded = bundle.encoder.encode(opened.dataset.part("test").rows.take(np.arange(9)))
    arrays = {key: value for key, value in graph_inputs(encoded, part).items() if key in signature.inputs}
    noise = np.random.default_rng(5).random((6, 9, part.samples.noise_width), dtype=np.float32)
    given = {**arrays, "noise": noise} if part.samples.noise_width else arrays
    with torch.no_grad():
        tensors = [torch.from_numpy(np.ascontiguousarray(given[key])) for key in signature.inputs]
        eager = opened.network.sample(*tensors).numpy()  # type: ignore[operator]
    assert eager.shape == (6 if name == "dcn_pd" else 3, 9, 3)
    for kind in ENGINES:
        graph = open_outputs(kind, bundle.samples_graph(kind).content, signature.inputs, signature.outputs)
        np.testing.assert_allclose(graph(given)["samples"], eager, rtol=1e-5, atol=1e-5)
    assert eager.std(axis=0).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_card_opens_alone_and_names_every_other_file(name: str, published: Mapping[str, Published]) -> None:
    page = (published[name].path / "card.html").read_text()
    assert "http-equiv" not in page
    assert "<script src=" not in page
    for file in published[name].path.iterdir():
        assert (file.name in page) == (file.name not in ("card.html", "manifest.json"))
    for text in ("qini_norm_area", "difference in means", "Limits of use", "conformal intervals of level 0.9"):
        assert text in page
    assert ("Average outcome by dose" in page) == (name in ("vcnet", "drnet"))


@pytest.mark.slow
def test_intervals_come_from_rows_that_training_did_not_look_at(published: Mapping[str, Published]) -> None:
    opened = published["tarnet"].opened
    valid, kept = opened.dataset.part("valid"), opened.calibration_part()
    assert opened.run.index().rows["valid"] + len(kept) == len(valid)
    conformal = calibrated(opened)
    predictions = opened.predictor(_inputs(opened, kept.rows)).outcomes
    residuals = np.abs(kept.labels["bought"] - predictions[np.arange(len(kept)), kept.treatment])
    for arm in range(3):
        np.testing.assert_allclose(conformal.residuals[arm], np.sort(residuals[kept.treatment == arm]), atol=1e-12)


def _inputs(opened: TrainedUplift, rows: Any) -> tuple[torch.Tensor, ...]:
    part = UpliftPart.model_validate(export.uplift_part(opened, calibrated(opened)).model_dump() | {"doses": {}})
    arrays = graph_inputs(opened.encoder.encode(rows), part)
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays.values())


@pytest.mark.slow
def test_outcomes_are_in_their_own_unit_and_effects_are_never_shifted(tmp_path: Path) -> None:
    plain = {"label": {"bought": None, "spend": "spend"}, "treatment": {"outcome": "continuous"}}
    made = publish(tmp_path, trial_config(tmp_path, trial(400), **plain), ("onnx",))
    bundle, part = open_bundle(made.path), made.part
    row = next(row for row in bundle.uplift_golden if len(row.query.users) == 24)
    raw = row.outputs["outcome_standardised"]
    own = outcomes(raw, part.outcome)
    np.testing.assert_allclose(effects(own), (raw[:, 1:] - raw[:, :1]) * part.outcome.sd, atol=1e-12)
    train_rows = made.opened.dataset.part("train")
    assert part.outcome.mean == pytest.approx(train_rows.labels["spend"].mean(), rel=1e-6)
    assert part.outcome.sd == pytest.approx(train_rows.labels["spend"].std(), rel=1e-6)
    np.testing.assert_allclose(propensities(row.outputs["propensity_logits"]).sum(axis=1), 1.0)


@pytest.mark.slow
def test_a_dose_for_everybody_is_published_with_its_reference(tmp_path: Path) -> None:
    config = study_config("dose-ihdp", write_dose_ihdp(tmp_path / "data", rows=200), "objective.epochs=3")
    made = publish(tmp_path, config, ("onnx",))
    assert made.part.reference_dose == 0.0
    assert made.part.propensity == "none"
    assert made.part.arms["control"].rows == 0
    row = next(row for row in open_bundle(made.path).uplift_golden if row.points == 21)
    curve = row.outputs["curve_standardised"]
    np.testing.assert_allclose(
        curve[:, 0, :], np.repeat(row.outputs["outcome_standardised"][:, :1], 21, axis=1), atol=1e-6
    )
    np.testing.assert_allclose(curve[:, 1, 0], curve[:, 0, 0], atol=1e-5)


@pytest.mark.slow
def test_small_and_missing_arms_are_marked(tmp_path: Path) -> None:
    arms = {"treatment": {**NO_DOSE["treatment"], "allow_missing_arms": True}}
    made = publish(tmp_path, trial_config(tmp_path, three_arms((150, 40, 0)), **arms), ("onnx",))
    support = made.part.arms
    assert [support[arm].low_support for arm in ("control", "letter", "coupon")] == [False, True, True]
    assert support["coupon"].rows == 0
    assert "too few for intervals" in (made.path / "card.html").read_text()


def test_doses_that_were_rarely_given_are_not_supported(tmp_path: Path) -> None:
    frame = trial(500)
    rare = (pl.col("worth") == 3) & (pl.int_range(pl.len()) % 40 != 0)
    moved = frame.with_columns(pl.when(rare).then(1.0).otherwise(pl.col("worth")).alias("worth"))
    run = train(trial_config(tmp_path, moved, model={"network": "drnet"}), tmp_path / "run", progress=False)
    opened = open_trained_uplift(run, configuration(run))
    [coupon] = dose_supports(opened.dataset.part("train"), opened.scales, opened.plan).values()
    np.testing.assert_allclose(coupon.edges, [1.8, 2.6, 3.4, 4.2])
    assert coupon.supported == ((1.0, coupon.edges[1]), (coupon.edges[2], 5.0))
    scale = export.uplift_part(opened, calibrated(opened)).doses["coupon"]
    asked = np.array([1.0, 2.5, coupon.edges[1], 3.0, coupon.edges[2], 5.0])
    assert supported(asked, scale).tolist() == [True, True, False, False, True, True]


def test_a_graph_that_is_not_the_network_is_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(trial_config(tmp_path), tmp_path / "run", progress=False)
    genuine = write_graphs

    def perturbed(
        network: nn.Module, signature: GraphSignature, formats: Sequence[str], folder: Path, names: Mapping[str, str]
    ) -> dict[str, Path]:
        weights = {key: value.clone() for key, value in network.state_dict().items()}
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.01)
        graphs = genuine(network, signature, formats, folder, names)
        network.load_state_dict(weights)
        return graphs

    monkeypatch.setattr(export, "write_graphs", perturbed)
    with pytest.raises(
        ExportFailed, match=r"the torchscript graph differs from the network by .* nothing was published"
    ):
        export_run(run, tmp_path / "store", ("torchscript",))
    assert not list((tmp_path / "store").rglob("*"))


def test_published_versions_are_never_replaced_and_a_batch_goes_on(tmp_path: Path) -> None:
    run = train(trial_config(tmp_path), tmp_path / "run", progress=False)
    results = export_many([tmp_path / "absent", run.path], tmp_path / "store", ("torchscript",))
    assert [result.path is not None for result in results] == [False, True]
    with pytest.raises(BundleRefused, match="published already"):
        export_run(run, tmp_path / "store", ("torchscript",), version="1.0.0")


def test_parity_is_proven_at_the_sizes_that_are_promised() -> None:
    assert (BLOCKS, GRIDS) == ((1, 7, 1024), (2, 21, 201))


def test_a_network_of_another_kind_is_refused() -> None:
    from bundle.treatment import OutcomeScale

    class Plain(nn.Module):
        config = None

    with pytest.raises(ValueError, match="configured for treatment effects"):
        Predictor(Plain(), OutcomeScale(name="y", kind="binary"), np.zeros(2))

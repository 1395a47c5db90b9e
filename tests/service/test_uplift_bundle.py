"""Loading a bundle of kind uplift: what is replayed before it takes traffic, and what keeps it from serving."""

import io
from pathlib import Path

import numpy as np
import pytest

from bundle.errors import BundleRefused
from bundle.loading import open_bundle
from bundle.population import Person, UpliftQuery
from service.core import question
from service.core.opening import open_version
from service.core.question import Interval, Question
from service.core.registry import Registry
from service.core.treated import Users
from service.core.treating import treat
from service.core.uplift_version import UpliftVersion, load_uplift
from service.core.version import ServedVersion, load_version
from service.engines.opening import EngineOptions
from service.metrics import Metrics
from service.settings import ModelSettings, RouteSettings, ThreadSettings
from tests.service import tiny_uplift
from tests.service.tiny_uplift import Kind

torch = pytest.importorskip("torch")

DOSED = Kind(doses=True, samples="mc_dropout", conformal=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_uplift.publish(tmp_path_factory.mktemp("bundles"), DOSED)


def test_both_kinds_open_as_what_they_are(folder: Path, published: Path) -> None:
    assert isinstance(open_version(folder, EngineOptions()), UpliftVersion)
    assert isinstance(open_version(published / "movies" / "1.0.0", EngineOptions()), ServedVersion)
    with pytest.raises(BundleRefused) as refused:
        load_version(folder)
    assert refused.value.reason == "kind"
    with pytest.raises(BundleRefused) as refused:
        load_uplift(published / "movies" / "1.0.0")
    assert refused.value.reason == "kind"


def test_a_graph_that_answers_otherwise_than_training_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = tiny_uplift.graph
    golden = right(DOSED, tiny_uplift.fitted(DOSED), bias=-0.5)
    other = right(DOSED, tiny_uplift.fitted(DOSED), bias=-0.4998)
    from bundle.graph_tables import Graph
    from service.engines.onnx import OnnxEngine

    monkeypatch.setattr(tiny_uplift, "graph", lambda *_, **__: other)
    monkeypatch.setattr(tiny_uplift, "OnnxEngine", lambda _: OnnxEngine(Graph(golden)))
    path = tiny_uplift.publish(tmp_path, DOSED)
    with pytest.raises(BundleRefused, match="outcome_logits differs") as refused:
        load_uplift(path)
    assert refused.value.reason == "golden_differs"


@pytest.mark.parametrize("name", ["samples.onnx", "conformal.npz", "uplift_golden.npz", "model.onnx"])
def test_every_file_is_vouched_for(tmp_path: Path, name: str) -> None:
    path = tiny_uplift.publish(tmp_path, DOSED)
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (path / name).write_bytes(bytes(data))
    with pytest.raises(BundleRefused) as refused:
        load_uplift(path)
    assert refused.value.reason == "digest"
    (path / name).unlink()
    with pytest.raises(BundleRefused) as refused:
        load_uplift(path)
    assert refused.value.reason in {"file_missing", "graph_missing"}


def test_the_registry_loads_warms_and_swaps_uplift_bundles(tmp_path: Path) -> None:
    tiny_uplift.publish(tmp_path, DOSED)
    registry = Registry(ModelSettings(dir=tmp_path), RouteSettings(), ThreadSettings(), Metrics())
    registry.scan()
    with registry.lease(None, "uplift") as first:
        assert (first.version, first.manifest.kind) == ("1.0.0", "uplift")
        tiny_uplift.publish(tmp_path, DOSED, "1.1.0", bias=0.0)
        registry.scan()
        with registry.lease("incentive", "uplift") as second:
            assert second.version == "1.1.0"
        assert [failure.reason for failure in registry.failures] == []


def test_a_name_may_change_its_kind_but_no_request_gets_the_wrong_one(tmp_path: Path) -> None:
    from service.errors import UnknownModel, UnknownVersion
    from tests.service import tiny_bundle

    tiny_bundle.publish(tmp_path, "1.0.0", name="incentive")
    tiny_uplift.publish(tmp_path, tiny_uplift.PLAIN, "2.0.0")
    registry = Registry(ModelSettings(dir=tmp_path), RouteSettings(), ThreadSettings(), Metrics())
    registry.scan()
    with registry.lease("incentive", "uplift") as version:
        assert version.version == "2.0.0"
    with pytest.raises(UnknownVersion), registry.lease("incentive@1.0.0", "uplift"):
        pass
    with pytest.raises(UnknownModel), registry.lease("incentive", "ctr"):
        pass


class Twin(torch.nn.Module):  # type: ignore[misc]  # torch ships no types for its base
    """The plain tiny network without its hole, in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("city", torch.linspace(-0.3, 0.3, 5))
        self.register_buffer("slope", torch.tensor([[0.2, -0.1, 0.4], [0.0, -1.0, -2.0]]))
        self.register_buffer("start", torch.tensor([[-0.5, 0.1, -0.4], [0.0, 0.0, 1.0]]))

    def forward(
        self,
        user_ids: torch.Tensor,
        user_numbers: torch.Tensor,
        behaviour_ids: torch.Tensor,
        behaviour_numbers: torch.Tensor,
        behaviour_mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        z = user_numbers[:, :1]
        city = self.city[user_ids].sum(1, keepdim=True)
        return z @ self.slope[:1] + self.start[0] + city, z @ self.slope[1:] + self.start[1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch calls all of TorchScript deprecated
def test_both_engines_give_the_same_outputs_by_name(tmp_path: Path) -> None:
    from service.engines.torchscript import TorchScriptEngine

    path = tiny_uplift.publish(tmp_path)
    version = load_uplift(path)
    people = [Person(str(age), {"age": age, "city": city}) for age in (20, 41, 60) for city in tiny_uplift.CITIES]
    inputs = version.encode(version.population(UpliftQuery(people, 0.0), None)).take(None)
    given = {spec.name: torch.from_numpy(np.ascontiguousarray(inputs[spec.name])) for spec in version.manifest.inputs}
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(Twin(), tuple(given.values())), buffer)
    declared = {spec.name: spec.dtype for spec in version.manifest.inputs}
    names = [spec.name for spec in version.manifest.outputs]
    twin = TorchScriptEngine(buffer.getvalue(), declared, names).outputs(inputs)
    onnx = version.network.raw(inputs)
    assert list(twin) == list(onnx) == ["outcome_logits", "propensity_logits"]
    for name in names:
        np.testing.assert_allclose(twin[name], onnx[name], atol=1e-6)


def test_a_thousand_users_with_dropout_noise_are_sampled_in_blocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = load_uplift(folder)
    people = [Person(str(n), {"age": 20 + n / 10, "city": "oslo"}) for n in range(300)]
    fitting = question.check(Question(interval=Interval(0.9, "mc_dropout")), version.part)
    users = Users(UpliftQuery(people, 0.0))
    whole = treat(version, users, fitting).intervals
    monkeypatch.setattr("service.core.estimates._SAMPLED_VALUES", 700)  # seven users at a time
    blocks = treat(version, users, fitting).intervals
    assert whole is not None
    assert blocks is not None
    np.testing.assert_allclose(blocks, whole, atol=1e-6)


def test_an_opened_bundle_says_what_it_has(folder: Path) -> None:
    opened = open_bundle(folder)
    assert opened.manifest.uplift is not None
    assert opened.conformal is not None
    assert len(opened.uplift_golden) >= 12

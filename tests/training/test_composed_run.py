"""From a configuration to composed networks: what [model] says, what presets add, and runs that end in a bundle."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bundle.loading import open_bundle
from models.ctr.network import SequenceModel
from tests.tiny import tiny_mapping
from training.config import TrainingConfig
from training.errors import ConfigError
from training.evaluate import open_trained
from training.export import export_run
from training.fit import train
from training.network import build_network, network_config

GAP = {"name": "gap", "kind": "sequence", "of": "gap", "max_len": 8, "encoder": {"type": "none"}}


def configured(data: Path, network: str, gap: bool = True, **model: Any) -> TrainingConfig:
    mapping = tiny_mapping(data, network, epochs=1)
    mapping["model"] |= model
    if gap:
        mapping["feature"].append(GAP)
    return TrainingConfig.from_mapping(mapping)


@pytest.fixture(scope="module")
def options_of(tiny_din_run: Path, tiny_data: Path) -> Any:
    """Network options of a configuration, with the vocabulary of a run on the same data."""
    from bundle.fitting import FittedSchema

    fitted = open_trained(tiny_din_run).fitted

    def of(network: str, gap: bool = False, **model: Any) -> dict[str, Any]:
        config = configured(tiny_data, network, gap, **model)
        scalers = dict(fitted.scalers) | ({"gap": next(iter(fitted.scalers.values()))} if gap else {})
        return network_config(config, FittedSchema(config.features, fitted.vocabularies, scalers, fitted.items))

    return of


def test_a_preset_holds_where_the_configuration_says_nothing(options_of: Any) -> None:
    plain = options_of("xdeepfm")
    assert list(plain["sequence"]) == ["pooling"]
    assert plain["crossing"]["cin"]["layers"] == [32, 32]
    assert plain["wide"] is True
    changed = options_of("xdeepfm", wide=False, sequence=["din"], crossing={"cin": {"layers": [4]}})
    assert list(changed["sequence"]) == ["din"]
    assert changed["crossing"]["cin"]["layers"] == [4]
    assert changed["wide"] is False
    for name in ("dcn_v2", "autoint", "fibinet", "can", "dmr"):
        network = build_network(name, options_of(name, top="mmoe"))
        assert isinstance(network, SequenceModel)


def test_sessions_find_the_gap_that_the_schema_declares(options_of: Any) -> None:
    assert options_of("dsin", gap=True)["session"]["gap"] == "gap"
    assert options_of("dsin", gap=True, session={"gap_seconds": 60.0})["session"]["gap_seconds"] == 60.0
    assert options_of("ctr", gap=True, sequence=["din", "dsin"])["sequence"]["dsin"]["gap"] == "gap"
    for network, model in (("dsin", {}), ("ctr", {"sequence": ["dsin"]})):
        with pytest.raises(ConfigError, match=r"of = 'gap' and encoder = {type = 'none'}"):
            options_of(network, **model)


def test_negatives_are_for_dien_alone(options_of: Any) -> None:
    assert options_of("dien")["use_negsampling"] is True
    assert options_of("ctr", sequence=["dien"])["use_negsampling"] is True
    assert options_of("ctr", sequence=["din"])["use_negsampling"] is False
    assert "use_negsampling" not in options_of("din")


def test_an_unknown_block_is_a_configuration_error_that_lists_the_known(options_of: Any) -> None:
    with pytest.raises(ConfigError, match=r"'dcm' is not a block; known are all_int, .*senet"):
        options_of("ctr", crossing=["dcm"])
    with pytest.raises(ConfigError, match="top: 'moe' is not known; known are mlp, mmoe"):
        options_of("din", top="moe")


@pytest.mark.parametrize(
    ("network", "model"),
    [
        ("dsin", {"top": "snr", "session": {"gap_seconds": 3600.0, "heads": 4}}),
        ("fibinet", {"top": {"kind": "mmoe", "gate": "noise_topk"}, "nas": {"sizes": {"item": [1, 4]}}}),
    ],
)
def test_a_run_ends_in_a_bundle(network: str, model: dict[str, Any], tiny_data: Path, tmp_path: Path) -> None:
    train(configured(tiny_data, network, **model), tmp_path / "run", progress=False)
    opened = open_trained(tmp_path / "run")
    assert isinstance(opened.network, SequenceModel)
    assert opened.network.frame.reader.search is None  # pruned before anything is measured
    path = export_run(tmp_path / "run", tmp_path / "store", formats=["torchscript"])
    bundle = open_bundle(path)
    assert bundle.manifest.network == network
    widths = [table.weight.shape[1] for table in opened.network.frame.reader.embedding.tables]
    assert set(widths) <= {1, 4}
    assert not torch.is_grad_enabled() or opened.network.training is False

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.shop import shop_mapping
from training.config import TrainingConfig, config_from_json, load_config
from training.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"

TEXT = """
[data]
rows = "rows.parquet"
[label]
ctr = "click"
[ids]
user = "user_id"
item = "item_id"
time = "ts"
[[feature]]
name = "item_id"
kind = "id"
side = "candidate"
[[feature]]
name = "hist_item"
kind = "sequence"
of = "item_id"
table = "item_id"
max_len = 50
[model]
network = "din"
mlp_hidden_layers = [64, 32]
[bundle]
name = "movies"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "movies.toml"
    path.write_text(TEXT)
    return path


def test_defaults_and_the_network_s_own_options(file: Path) -> None:
    config = load_config(file)
    assert (config.train.epochs, config.train.mixed_precision) == (5, False)
    assert config.model.network == "din"
    assert config.model.options == {"mlp_hidden_layers": [64, 32]}
    assert config.tasks == ("ctr",)


def test_overrides_have_the_right_type(file: Path) -> None:
    overrides = [
        "train.epochs=3",
        "train.learning_rate=1e-2",
        "train.mixed_precision=true",
        "train.weight_decay={item_id = 0.5}",
        "train.schedule=cosine",
        "model.mlp_hidden_layers=[8]",
        "feature.hist_item.max_len=20",
        "bundle.name=7",
        "data.rows=2024.parquet",
    ]
    config = load_config(file, overrides)
    assert (config.train.epochs, config.train.learning_rate, config.train.mixed_precision) == (3, 0.01, True)
    assert config.train.weight_decay == {"item_id": 0.5}
    assert config.train.schedule == "cosine"
    assert config.model.options["mlp_hidden_layers"] == [8]
    assert config.resolved()["feature"][1]["max_len"] == 20
    assert config.features.bundle.name == "7"
    assert config.data.rows == "2024.parquet"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "unknown key train.epoch, did you mean train.epochs?"),
        ("trian.epochs=3", "unknown key trian, did you mean train?"),
        ("data.split.vald=0.1", "unknown key data.split.vald, did you mean data.split.valid?"),
        ("train.epochs=0", "key train.epochs: input should be greater than or equal to 1, got 0"),
        ("train.epochs=x", "key train.epochs"),
        ("train.optimizer=adm", "key train.optimizer: input should be 'adam', 'adamw' or 'sgd', got 'adm'"),
        ("train.learning_rate=nan", "key train.learning_rate"),
        ("feature.hist_item.max_le=3", "max_le"),
        ("label.cvr=item_id", "item_id"),
        ("train.monitor_task=cvr", "names 'cvr', which has no entry in [label]"),
        ("train.task_weights={ctv = 1.0}", "did you mean ctr?"),
        ("sampling.negative_rate=0.1", "mode must be training or serving"),
        ("data.dataset=movielens-100k", "dataset and rows exclude each other"),
        ("data.split={valid = 0.5, test = 0.5}", "leave rows to train on"),
    ],
)
def test_a_wrong_setting_is_one_sentence_with_key_and_file(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, [override])
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "override", ["epochs=3", "train.epochs", "train.=3", "label.ctr.x=1", "feature.hist.max_len=3"]
)
def test_a_malformed_override_is_refused(file: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        load_config(file, [override])


def test_an_override_names_the_nearest_feature(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no feature\.hist_itm, did you mean hist_item"):
        load_config(file, ["feature.hist_itm.max_len=3"])


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[data]\nrows = \n")
    with pytest.raises(ConfigError, match=r"broken\.toml.*line 2"):
        load_config(path)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")


def test_text_that_is_not_utf8_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes(b"name = '\xe9'")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(path)


def test_resolved_comes_back_equal(file: Path) -> None:
    config = load_config(file, ["train.epochs=3", "sampling.negative_rate=0.5", "sampling.mode=serving"])
    again = config_from_json(json.dumps(config.resolved()))
    assert again.resolved() == config.resolved()
    assert again.resolved()["data"]["rows"] == str(file.parent / "rows.parquet")


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"negative_rate": 0.1, "mode": "serving"}, {"ctr": 0.1, "cvr": 1.0}),
        ({"negative_rate": {"cvr": 0.2}, "mode": "training"}, {"ctr": 1.0, "cvr": 0.2}),
        ({"negative_rate": {"ctr": 0.3, "cvr": 0.2}, "mode": "training", "upstream": True}, {"ctr": 0.3, "cvr": 0.2}),
        ({}, {"ctr": 1.0, "cvr": 1.0}),
    ],
)
def test_sampling_rates_by_task(sampling: dict[str, Any], expected: dict[str, float]) -> None:
    mapping = {**shop_mapping(), "label": {"ctr": "click", "cvr": "buy"}, "sampling": sampling}
    mapping["funnel"] = {"mode": "independent"}
    assert TrainingConfig.from_mapping(mapping).sampling.rates(("ctr", "cvr")) == expected


def test_rows_are_dropped_by_one_task_only() -> None:
    sampling = {"negative_rate": {"ctr": 0.3, "cvr": 0.2}, "mode": "training"}
    mapping = {**shop_mapping(), "label": {"ctr": "click", "cvr": "buy"}, "sampling": sampling}
    with pytest.raises(ConfigError, match="one task"):
        TrainingConfig.from_mapping(mapping)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_configuration_of_the_repository_is_valid(path: Path) -> None:
    config = load_config(path)
    assert config_from_json(json.dumps(config.resolved())).resolved() == config.resolved()

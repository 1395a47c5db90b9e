import re
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import described, load_settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "service.md"


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "service.toml"
    file.write_text("[server]\nport = 1\nkeep_alive_s = 11\n[limits]\nqueue = 7\n")
    monkeypatch.setenv("CTRLIFT_SERVER__PORT", "2")
    monkeypatch.setenv("CTRLIFT_LIMITS__QUEUE", "8")
    settings = load_settings(file, {"server": {"port": 3}})
    assert (settings.server.port, settings.limits.queue) == (3, 8)
    assert (settings.server.keep_alive_s, settings.server.host) == (11, "127.0.0.1")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("CTRLIFT_SERVER__HSOT", "x", "server.hsot: there is no such key"),
        ("CTRLIFT_SERVRE__HOST", "x", "there is no section servre"),
        ("CTRLIFT_STORE_URL", "memory://", "two underscores"),
        ("CTRLIFT_STORE__URL", "http://x", "store.url: the address must begin with"),
        ("CTRLIFT_SERVER__PORT", "-1", "server.port"),
        ("CTRLIFT_SERVER__HOST", "0.0.0.0", "auth.mode"),
    ],
)
def test_a_wrong_variable_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=re.escape(says)):
        load_settings()


def test_an_unknown_key_of_the_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    file.write_text("[store]\nuri = 'memory://'\n")
    with pytest.raises(SettingsError, match=r"store\.uri: there is no such key"):
        load_settings(file)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(tmp_path / "none.toml")


def test_auth_off_in_words_opens_other_addresses() -> None:
    settings = load_settings(overrides={"server": {"host": "0.0.0.0"}, "auth": {"mode": "off"}})
    assert settings.server.host == "0.0.0.0"


def test_every_setting_is_described_and_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z_0-9]+[.][a-z_.0-9]+)` \|", text, re.MULTILINE))
    assert documented == set(described())
    assert all(description for _, description in described().values())

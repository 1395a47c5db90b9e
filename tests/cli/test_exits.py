"""Exit codes: one place maps what commands raise, and nothing reaches the person as a traceback."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bundle.errors import BundleRefused
from cli import exits
from tests.cli.running import assert_one_sentence, ctrlift


def command_that_raises(error: BaseException) -> typer.Typer:
    app = typer.Typer(cls=exits.Commands, pretty_exceptions_enable=False, add_completion=False)

    @app.command()
    def go() -> None:
        raise error

    @app.callback()
    def top() -> None:
        return None

    return app


@pytest.mark.parametrize("dotted", sorted(exits.EXIT_CODES))
def test_every_named_error_exists(dotted: str) -> None:
    module, _, name = dotted.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    assert issubclass(kind, BaseException)
    # The table is matched by where a class was defined, so an alias would never match.
    assert f"{kind.__module__}.{kind.__qualname__}" == dotted


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exits.CheckFailed("no"), 1),
        (exits.UsageProblem("no"), 2),
        (exits.InputProblem("no"), 3),
        (exits.DependencyDown("no"), 5),
        (BundleRefused("digest", "model.onnx differs"), 4),
        (FileNotFoundError(2, "No such file or directory", "x.toml"), 3),
        (ConnectionRefusedError(111, "Connection refused"), 5),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2),
        (KeyboardInterrupt(), 130),
        (typer.Exit(7), 7),
    ],
)
def test_code_of_an_error(error: BaseException, code: int) -> None:
    result = CliRunner().invoke(command_that_raises(error), ["go"])
    assert result.exit_code == code
    assert "Traceback" not in result.output


def test_an_error_nobody_foresaw_says_how_to_see_more(monkeypatch: pytest.MonkeyPatch) -> None:
    app = command_that_raises(ZeroDivisionError("division by zero"))
    quiet = CliRunner().invoke(app, ["go"])
    assert quiet.exit_code == 1
    assert quiet.stderr.count("\n") == 1
    assert "CTRLIFT_TRACEBACK=1" in quiet.stderr
    monkeypatch.setenv("CTRLIFT_TRACEBACK", "1")
    assert "Traceback" in CliRunner().invoke(app, ["go"]).stderr


def test_a_missing_package_names_the_extra() -> None:
    error = ModuleNotFoundError("No module named 'torch'", name="torch")
    assert "ctrlift[train]" in exits.sentence_of(error)


def test_unknown_options_and_commands_are_usage_errors() -> None:
    assert ctrlift("train", "--no-such-option").code == 2
    assert ctrlift("no-such-command").code == 2


def test_a_wrong_configuration_names_key_and_file(tmp_path: Path) -> None:
    config = tmp_path / "shop.toml"
    config.write_text("[trian]\nepochs = 1\n")
    ran = ctrlift("train", config)
    assert ran.code == 2
    assert_one_sentence(ran, "trian", "shop.toml")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    ran = ctrlift("train", tmp_path / "none.toml")
    assert ran.code == 2
    assert_one_sentence(ran, "none.toml")


def test_settings_that_do_not_exist_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTRLIFT_STORE__ULR", "memory://")
    ran = ctrlift("doctor")
    assert ran.code == 2
    assert_one_sentence(ran, "store.ulr")


def test_resume_needs_a_run(tmp_path: Path) -> None:
    ran = ctrlift("train", tmp_path / "shop.toml", "--resume")
    assert ran.code == 2
    assert_one_sentence(ran, "--run")


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    for command in (["evaluate", tmp_path], ["export", tmp_path, "--to", tmp_path / "bundles", "--version", "1.0.0"]):
        ran = ctrlift(*command)
        assert ran.code == 2
        assert_one_sentence(ran, "run")


def test_an_unknown_data_set_is_named() -> None:
    ran = ctrlift("data", "fetch", "movielens-100")
    assert ran.code == 2
    assert_one_sentence(ran, "movielens-100")

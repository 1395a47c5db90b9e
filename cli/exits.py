"""Exit codes, and the one place that turns an exception into one.

    0 ok   1 a check failed   2 usage or config   3 input data   4 bundle refused   5 a dependency is down
    130 interrupted

A command raises; nothing below `Commands.invoke` calls `sys.exit`. Errors of the other rooms are matched by the
name of their class, because importing those rooms here would load torch for every command.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final

import typer
from typer.core import TyperGroup

OK: Final = 0
CHECK_FAILED: Final = 1
USAGE: Final = 2
INPUT_DATA: Final = 3
BUNDLE_REFUSED: Final = 4
DEPENDENCY_DOWN: Final = 5
INTERRUPTED: Final = 130

EXIT_CODES: Final[Mapping[str, int]] = {
    "bundle.errors.BundleRefused": BUNDLE_REFUSED,
    "bundle.errors.UnknownModel": USAGE,
    "bundle.errors.FeatureError": INPUT_DATA,
    "bundle.errors.SchemaError": USAGE,
    "bundle.errors.BundleError": CHECK_FAILED,
    "training.errors.ConfigError": USAGE,
    "training.errors.RunError": USAGE,
    "training.errors.DataUnavailable": DEPENDENCY_DOWN,
    "training.errors.DataError": INPUT_DATA,
    "training.errors.Interrupted": INTERRUPTED,
    "training.errors.TrainingError": CHECK_FAILED,
    "service.errors.SettingsError": USAGE,
    "service.behaviours.base.StoreError": DEPENDENCY_DOWN,
    "service.engines.base.EngineError": CHECK_FAILED,
    "service.errors.StoreUnavailable": DEPENDENCY_DOWN,
    "redis.exceptions.RedisError": DEPENDENCY_DOWN,
    "polars.exceptions.PolarsError": INPUT_DATA,
    "builtins.ConnectionError": DEPENDENCY_DOWN,
    "builtins.TimeoutError": DEPENDENCY_DOWN,
    "builtins.ModuleNotFoundError": USAGE,
    "builtins.FileNotFoundError": INPUT_DATA,
    "builtins.IsADirectoryError": INPUT_DATA,
    "builtins.NotADirectoryError": INPUT_DATA,
    "builtins.PermissionError": INPUT_DATA,
}


class CommandError(Exception):
    """A command could not do what was asked; the message is one sentence for the person who typed it."""

    exit_code = CHECK_FAILED


class CheckFailed(CommandError):
    """The command ran and found that something is not as it should be."""


class UsageProblem(CommandError):
    """An argument, a setting or a configuration cannot be used."""

    exit_code = USAGE


class InputProblem(CommandError):
    """The data that was given cannot be used; the message names file, column and row."""

    exit_code = INPUT_DATA


class DependencyDown(CommandError):
    """Something that the command needs did not answer."""

    exit_code = DEPENDENCY_DOWN


def exit_code_of(error: BaseException) -> int | None:
    """The exit code for an exception, or None for one that nobody foresaw."""
    if isinstance(error, CommandError):
        return error.exit_code
    for kind in type(error).__mro__:
        code = EXIT_CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            return code
    return None


def sentence_of(error: BaseException) -> str:
    """One line that says what was wrong, without the exception's class where its text is enough."""
    if isinstance(error, ModuleNotFoundError):
        return f"This command needs {error.name}, which is not installed: pip install 'ctrlift[train]'."
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}."
    text = " ".join(str(error).split())
    return text or type(error).__name__


def report(error: BaseException) -> int:
    """Say on standard error what went wrong and return the exit code.

    With `CTRLIFT_TRACEBACK=1` in the environment the traceback is printed too, for reports of defects.
    """
    code = exit_code_of(error)
    if os.environ.get("CTRLIFT_TRACEBACK") == "1":
        traceback.print_exception(error)
    if code is None:
        kind = type(error).__name__
        sys.stderr.write(
            f"ctrlift: unexpected {kind}: {sentence_of(error)} (CTRLIFT_TRACEBACK=1 shows where it came from)\n"
        )
        return CHECK_FAILED
    sys.stderr.write(f"ctrlift: {sentence_of(error)}\n")
    return code


class Commands(TyperGroup):
    """The top group: runs a command and ends with the exit code of whatever it raised."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command.

        Raises:
            typer.Exit: with the exit code, where the command raised.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            sys.stderr.write("ctrlift: interrupted\n")
            raise typer.Exit(INTERRUPTED) from interrupt
        except Exception as error:
            if _is_own(error):
                raise
            raise typer.Exit(report(error)) from error


def _is_own(error: Exception) -> bool:
    """Usage errors, exits and aborts of typer itself: typer prints those."""
    return any(kind.__module__.split(".")[0] == "typer" for kind in type(error).__mro__)

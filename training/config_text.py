"""Configuration as people type it: overrides such as `train.epochs=3`, and one-sentence messages with near misses."""

import difflib
import tomllib
import types
import typing
from collections.abc import Collection, MutableMapping
from typing import Any

from pydantic import BaseModel, ValidationError

from training.errors import ConfigError


def suggestion(key: str, known: Collection[str], prefix: str = "") -> str:
    """Text after an unknown key: the nearest known one, or all of them where none is near."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f", did you mean {prefix}{near[0]}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def first_problem(error: ValueError, model: type[BaseModel]) -> str:
    """The first problem of a validation as `key <path>: <what>`, with the nearest known key where one is unknown."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False)[0]
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        fields = _model_at(model, path[:-1])
        prefix = ".".join([*path[:-1], ""])
        return f"unknown key {key}{suggestion(path[-1], fields.model_fields if fields else (), prefix)}"
    if problem["type"] == "missing":
        return f"missing key {key}"
    message = problem["msg"].removeprefix("Value error, ")
    came = problem.get("input")
    shown = f", got {came!r}" if isinstance(came, (str, int, float, bool)) and problem["type"] != "value_error" else ""
    return f"key {key}: {message[:1].lower()}{message[1:]}{shown}"


def apply_override(
    mapping: MutableMapping[str, Any], text: str, model: type[BaseModel], schema_sections: Collection[str]
) -> None:
    """Set one key of a parsed file in place.

    The value is read as TOML (`3`, `0.5`, `true`, `[1, 2]`, `{ctr = 0.1}`); what is not TOML, and everything for a
    key that holds text, is taken as text. Features and groups are addressed by name: `feature.hist_item.max_len=20`.

    Raises:
        ConfigError: if the text is not `section.key=value` or leads through something that is not a section.
    """
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or len(path) < 2 or not all(path):
        raise ConfigError(f"override {text!r} must read section.key=value, such as train.epochs=3")
    here: Any = mapping
    for depth, step in enumerate(path[:-1]):
        here = _enter(here, step, ".".join(path[: depth + 1]), text)
    if not isinstance(here, MutableMapping):
        raise ConfigError(f"override {text!r}: {'.'.join(path[:-1])} is not a section")
    holds_text = (
        path[0] in ("label", "ids", "weight", "bundle") if path[0] in schema_sections else _is_text(model, path)
    )
    here[path[-1]] = _value(value.strip(), holds_text)


def _enter(here: Any, step: str, key: str, text: str) -> Any:
    if isinstance(here, list):
        for member in here:
            if isinstance(member, MutableMapping) and member.get("name") == step:
                return member
        names = [member["name"] for member in here if isinstance(member, MutableMapping) and "name" in member]
        raise ConfigError(f"override {text!r}: there is no {key}{suggestion(step, names)}")
    if not isinstance(here, MutableMapping):
        raise ConfigError(f"override {text!r}: {key} is not a section")
    return here.setdefault(step, {})


def _value(text: str, holds_text: bool) -> Any:
    if holds_text and not text.startswith(('"', "'")):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """The section class at a path of keys, None where the path leaves the declared sections."""
    here: type[BaseModel] = model
    for step in path:
        field = here.model_fields.get(step)
        inner = [part for part in _members(field.annotation) if _is_section(part)] if field else []
        if not inner:
            return None
        here = inner[0]
    return here


def _is_text(model: type[BaseModel], path: list[str]) -> bool:
    section = _model_at(model, path[:-1])
    field = section.model_fields.get(path[-1]) if section else None
    return field is not None and str in _members(field.annotation)


def _members(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return list(typing.get_args(annotation))
    return [annotation]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)

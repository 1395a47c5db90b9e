"""Validation errors of pydantic as one sentence that names the key."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError


def first_sentence(error: ValidationError, source: Mapping[str, Any], known: Sequence[str] = ()) -> str:
    """The first problem of `error` as `key <path>: <what>`, naming features by their name instead of their number.

    Args:
        error: what pydantic raised.
        source: the mapping it was raised for.
        known: keys to propose where an unknown one looks like them.
    """
    problem = error.errors(include_url=False)[0]
    path = [part for part in problem["loc"] if not _is_union_tag(part, source, problem["loc"])]
    if problem["type"] == "extra_forbidden":
        return f"unknown key {_dotted(path, source)}{_nearest(str(path[-1]), known)}"
    if problem["type"] == "missing":
        return f"missing key {_dotted(path, source)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"key {_dotted(path, source)}: {message[:1].lower()}{message[1:]}"


def _nearest(key: str, known: Sequence[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _is_union_tag(part: int | str, source: Any, loc: Sequence[int | str]) -> bool:
    # Pydantic puts the chosen member of a tagged union into the path; it is no key of the file.
    here: Any = source
    for step in loc:
        if step is part:
            break
        here = _step(here, step)
    return isinstance(part, str) and isinstance(here, Mapping) and part not in here and part in _tags(here)


def _tags(here: Mapping[str, Any]) -> list[Any]:
    return [here.get("kind"), here.get("type")]


def _step(here: Any, step: int | str) -> Any:
    if isinstance(here, Mapping):
        return here.get(step, here) if isinstance(step, str) else here
    if isinstance(here, Sequence) and not isinstance(here, str) and isinstance(step, int) and step < len(here):
        return here[step]
    return here


def _dotted(path: Sequence[int | str], source: Mapping[str, Any]) -> str:
    here: Any = source
    text = ""
    for step in path:
        here = _step(here, step)
        if isinstance(step, int):
            name = here.get("name") if isinstance(here, Mapping) else None
            text += f"[{name if isinstance(name, str) else step}]"
        else:
            text += f".{step}" if text else step
    return text or "(top level)"

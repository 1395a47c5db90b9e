"""Reading a JSON body: bounded in length, time and depth, and then as the model says."""

import asyncio
import json
import re
from collections.abc import Container, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import Receive

from service.api.problems import from_validation, invalid
from service.errors import BadRequest, BodyTooLarge, Problem, WrongContentType
from service.settings import Settings

M = TypeVar("M", bound=BaseModel)

JSON: Final = "application/json"
# The headers that say something of the bodies of a request and its reply, by lower-case name.
HEADERS: Final = frozenset({"content-type", "content-encoding", "content-length", "accept"})

# Possessive, and an unclosed string reaches to the end: else a body of backslashes and quotes takes quadratic time.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ROUND = bytes.maketrans(b"{}", b"[]")


async def read(request: Request, model: type[M], settings: Settings, counts: Mapping[str, int]) -> M:
    """The body as a model.

    Args:
        request: The request, body not read yet.
        model: What it must be.
        settings: Limits.
        counts: Field -> most entries; looked at before the entries are.

    Raises:
        ServiceError: 400, 413, 415 or 422, as the case may be.
    """
    _, raw = await read_bytes(request.headers, request.receive, settings)
    return validated(raw, model, settings, counts)


async def read_bytes(
    headers: Mapping[str, str], receive: Receive, settings: Settings, allowed: Container[str] = (JSON,)
) -> tuple[str, bytes]:
    """The media type of a body and the body, as it came.

    Args:
        headers: Of the request, by lower-case name.
        receive: Gives the body.
        settings: Limits.
        allowed: Media types; ``application/json`` stands for its relatives too.

    Raises:
        ServiceError: 400, 413 or 415, as the case may be.
    """
    most, seconds = settings.server.max_body_bytes, settings.server.read_timeout_s
    media_type = _check_headers(headers, most, allowed)
    if settings.limits.deadline_ms <= seconds * 1e3:
        return media_type, await _receive(receive, most)  # the deadline rings first, so one timer is enough
    try:
        async with asyncio.timeout(seconds):
            return media_type, await _receive(receive, most)
    except TimeoutError as error:
        raise BadRequest(f"The body did not arrive within {seconds:g} s.") from error


def validated(raw: bytes, model: type[M], settings: Settings, counts: Mapping[str, int]) -> M:
    """The bytes of a body as a model; see ``read``.

    Raises:
        ServiceError: 400 or 422, as the case may be.
    """
    return fitting(parse(raw, settings.limits.json_depth), model, counts)


def fitting(parsed: Any, model: type[M], counts: Mapping[str, int]) -> M:
    """Python values as a model; see ``read``.

    Raises:
        InvalidFeatures: They do not fit.
    """
    if isinstance(parsed, dict):
        for field, most in counts.items():
            entries = parsed.get(field)
            if isinstance(entries, list) and len(entries) > most:
                raise invalid([Problem(f"/{field}", "too_many_items", f"at most {most} entries, {len(entries)} came")])
    try:
        return model.model_validate(parsed)
    except ValidationError as error:
        raise from_validation(error) from error


def _check_headers(headers: Mapping[str, str], most: int, allowed: Container[str]) -> str:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("application/") and kind.endswith("+json"):
        kind = JSON
    if kind not in allowed:
        raise WrongContentType("The body must be JSON and say so: Content-Type: application/json.")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise WrongContentType("The body must not be compressed.")
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise BodyTooLarge(f"The body may take {most} bytes.")
    return kind


async def _receive(receive: Receive, most: int) -> bytes:
    chunks: list[bytes] = []
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("The client went away before its body was complete.")
        chunk = message.get("body", b"")
        length += len(chunk)
        if length > most:
            raise BodyTooLarge(f"The body may take {most} bytes.")
        chunks.append(chunk)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def parse(raw: bytes, depth: int) -> Any:
    """JSON bytes to Python values; NaN and Infinity pass here, so that a field can be named for them.

    Raises:
        BadRequest: No JSON, not UTF-8, nested too deeply, or an object with a key twice.
    """
    if raw.count(b"[") + raw.count(b"{") > depth and not _shallow(raw, depth):
        raise BadRequest(f"The body is nested deeper than {depth} levels, or its brackets do not match.")
    try:
        parsed = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
        if SURROGATE.search(raw):
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except BadRequest:
        raise
    except UnicodeDecodeError as error:
        raise BadRequest("The body is not UTF-8.") from error
    except UnicodeEncodeError as error:
        raise BadRequest("A text of the body holds half a surrogate pair and so has no UTF-8 form.") from error
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error.msg} at character {error.pos}.") from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits
        raise BadRequest("The body is not JSON that can be read.") from error
    return parsed


def _shallow(raw: bytes, depth: int) -> bool:
    """Whether brackets nest at most ``depth`` deep, found without a loop in Python over the bytes.

    Strings are cut out, all but brackets is dropped, and each turn removes the innermost pairs: what is left after
    ``depth`` turns is too deep or does not match.
    """
    brackets = _STRING.sub(b"", raw).translate(_ROUND, _NO_BRACKETS)
    for _ in range(depth):
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    return not brackets


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("An object of the body has the same key twice.")
    return found

"""Every error as an RFC 9457 problem document, made in one place."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.errors import InvalidFeatures, Problem, ServiceError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_PROBLEMS = 100

# Errors that the framework raises itself: status -> (code, title, sentence).
_FRAMEWORK: Mapping[int, tuple[str, str, str]] = {
    404: ("not_found", "Not found", "There is nothing at this path."),
    405: ("method_not_allowed", "Method not allowed", "This path does not take this method."),
    413: ("body_too_large", "The body is too large", "The body is longer than the service takes."),
}

# pydantic's kinds of fault that have a code of their own; all others are `schema`.
_CODES: Mapping[str, str] = {"finite_number": "not_finite", "too_long": "too_many_items"}

_JSON_NAMES: Mapping[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}

# What pydantic calls a type error, and what a caller calls the thing that was expected.
_EXPECTED: Mapping[str, str] = {
    "string_type": "a string",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "a boolean",
}


def document(error: ServiceError, request_id: str) -> dict[str, Any]:
    """The JSON object of a problem."""
    body: dict[str, Any] = {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": request_id,
        "code": error.code,
    }
    if error.problems:
        body["errors"] = [
            {"pointer": problem.pointer, "code": problem.code, "detail": problem.detail}
            for problem in error.problems[:MAX_PROBLEMS]
        ]
    return body


def response(error: ServiceError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    """The HTTP response of a problem."""
    own = dict(headers or {})
    if error.retry_after_s is not None:
        own["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        own["WWW-Authenticate"] = 'Bearer realm="ctrlift"'
    return Response(to_json(document(error, request_id)), error.status, headers=own, media_type=MEDIA_TYPE)


def note(error: ServiceError) -> None:
    """A line in the log for what is our fault and no passing state."""
    if error.status >= 500 and error.retry_after_s is None:
        log.warning("request_failed", code=error.code)


def to_json(body: object) -> bytes:
    """JSON bytes; text that has no UTF-8 form (half a surrogate pair in a client's key) is replaced."""
    try:
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return orjson.dumps(_without_surrogates(body), option=orjson.OPT_SERIALIZE_NUMPY)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(part) for part in value]
    return value


def pointer(parts: Iterable[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def from_validation(error: ValidationError) -> InvalidFeatures:
    """Pydantic's faults as ours: where, which kind, what was expected and what came; never the value itself."""
    return invalid(
        Problem(pointer(fault["loc"]), _CODES.get(fault["type"], "schema"), _sentence(fault))
        for fault in error.errors(include_url=False, include_context=True)[:MAX_PROBLEMS]
    )


def invalid(problems: Iterable[Problem]) -> InvalidFeatures:
    """One 422 out of single faults."""
    return InvalidFeatures.of(problems)


def _sentence(fault: Any) -> str:
    kind = fault["type"]
    if kind in _EXPECTED:
        return f"{_EXPECTED[kind]} was expected, {_JSON_NAMES.get(type(fault['input']), 'something else')} came"
    if kind == "extra_forbidden":
        return "the request has no such field"
    if kind == "finite_number":
        return "the number is not finite"
    return str(fault["msg"]).removeprefix("Value error, ")


Handler = Callable[[Request, Exception], Awaitable[Response]]


def install(app: FastAPI) -> None:
    """Let this module answer for our errors and for the framework's."""
    app.add_exception_handler(ServiceError, _ours)
    app.add_exception_handler(HTTPException, _framework)


async def _ours(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    note(error)
    return response(error, request.scope.get("request_id", ""))


async def _framework(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code, title, sentence = _FRAMEWORK.get(
        error.status_code, (f"http_{error.status_code}", "The request was refused", "The request cannot be served.")
    )
    ours = ServiceError(sentence)
    ours.status, ours.code, ours.title = error.status_code, code, title
    return response(ours, request.scope.get("request_id", ""), error.headers)

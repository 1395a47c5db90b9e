"""The OpenAPI document: request bodies, problems and examples that work when pasted against the demo."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api import schemas, uplift_schemas
from service.api.problems import MEDIA_TYPE
from service.settings import LimitSettings

ARROW = "application/vnd.apache.arrow.stream"
_REF = "#/components/schemas/{model}"

_SCORE_EXAMPLES: dict[str, Any] = {
    "a stored user": {"value": {"user_id": "196", "candidates": ["242", "302"]}},
    "a new user with the behaviours in the request": {
        "value": {
            "candidates": ["242", "302"],
            "behaviours": [{"item_id": "50", "ts": 881250949, "type": "rate", "value": 4}],
            "ts": 881250950,
            "raw": True,
        }
    },
}
_REPLY_EXAMPLE: dict[str, Any] = {
    "request_id": "0199d1f2-7a54-7c1e-9f6b-2f1d5c0a9e11",
    "model": {"name": "movies", "version": "1.2.0"},
    "scores": {"pctr": [0.031, 0.007]},
    "behaviours": {"source": "store", "length": 50},
    "degraded": [],
    "warnings": [],
}
_EVENT_EXAMPLES: dict[str, Any] = {
    "one rating": {
        "value": {"events": [{"user_id": "196", "item_id": "242", "ts": 881250949, "type": "rate", "value": 3}]}
    }
}
_USER_EXAMPLES: dict[str, Any] = {
    "one user": {"value": {"users": [{"user_id": "196", "features": {"age": 49, "occupation": "writer"}}]}}
}
_UPLIFT_EXAMPLES: dict[str, Any] = {
    "two users": {"value": {"users": [{"user_id": "7"}, {"user_id": "8"}]}},
    "with an interval": {"value": {"users": [{"user_id": "7", "features": {}}], "interval": 0.9}},
}
_UPLIFT_REPLY_EXAMPLE: dict[str, Any] = {
    "request_id": "0199d1f2-7a54-7c1e-9f6b-2f1d5c0a9e12",
    "model": {"name": "incentive", "version": "1.0.0"},
    "users": [
        {
            "user_id": "7",
            "outcomes": {"control": 0.34, "coupon": 0.79},
            "effects": {"coupon": 0.45},
            "intervals": {"coupon": [0.38, 0.52]},
            "propensity": {"control": 0.24, "coupon": 0.76},
            "overlap": {"coupon": "ok"},
            "dose_response": {
                "coupon": {"dose": [0.0, 1.5, 3.0], "outcome": [0.6, 0.77, 0.81], "supported": [False, True, True]}
            },
            "recommended": {"treatment": "coupon", "dose": 1.2, "expected_gain": 3.1},
            "warnings": [],
        }
    ],
    "budget": {"spent": 97.0, "expected_gain": 41.2, "shadow_price": 0.3, "treated": 61},
    "degraded": [],
    "warnings": [],
}

_STATUS_TEXT = {
    400: "The request cannot be read.",
    401: "No API key, or an unknown one.",
    403: "The key lacks the scope.",
    404: "Unknown model, version or campaign.",
    413: "The body is too large.",
    414: "The URI is too long.",
    415: "The body is of another type, or compressed.",
    422: "The request does not fit its schema or the bundle's.",
    431: "The headers are too large.",
    500: "The service failed.",
    503: "Overloaded, stopping, or something needed is away.",
    504: "The deadline has passed.",
}
WORK_STATUSES = tuple(_STATUS_TEXT)
READ_STATUSES = (401, 403, 414, 431, 500)

REQUESTS: dict[type[BaseModel], dict[str, Any]] = {
    schemas.ScoreRequest: _SCORE_EXAMPLES,
    uplift_schemas.UpliftRequest: _UPLIFT_EXAMPLES,
    schemas.BehavioursRequest: _EVENT_EXAMPLES,
    schemas.UsersRequest: _USER_EXAMPLES,
}

REPLY_EXAMPLES: dict[type[BaseModel], dict[str, Any]] = {
    schemas.ScoreReply: _REPLY_EXAMPLE,
    uplift_schemas.UpliftReply: _UPLIFT_REPLY_EXAMPLE,
}


def takes(model: type[BaseModel], binary: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its body itself; ``binary`` describes other bodies by media type."""
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}, "examples": REQUESTS[model]}
    }
    return {
        "requestBody": {"required": True, "content": content | _binary(binary)},
        "parameters": [
            {
                "name": "X-Request-Deadline-Ms",
                "in": "header",
                "required": False,
                "description": "Lowers the deadline of this request.",
                "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
            }
        ],
    }


def problems_only(statuses: tuple[int, ...] = WORK_STATUSES) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route: the problems it may end in."""
    problem = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="ProblemDocument")}}}
    return {status: {"description": _STATUS_TEXT[status], "content": problem} for status in statuses}


def _binary(described: Mapping[str, str] | None) -> dict[str, Any]:
    return {
        media_type: {"schema": {"type": "string", "format": "binary", "description": text}}
        for media_type, text in (described or {}).items()
    }


def answers(
    model: type[BaseModel], statuses: tuple[int, ...] = WORK_STATUSES, binary: Mapping[str, str] | None = None
) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route: its reply, and the problems it may end in; ``binary`` as in ``takes``."""
    found = problems_only(statuses)
    found[200] = {
        "description": model.__doc__ or "",
        "content": {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}},
    }
    found[200]["content"] |= _binary(binary)
    if model in REPLY_EXAMPLES:
        found[200]["content"]["application/json"]["example"] = REPLY_EXAMPLES[model]
    return found


_REPLIES: tuple[type[BaseModel], ...] = (
    schemas.ScoreReply,
    uplift_schemas.UpliftReply,
    schemas.WriteReply,
    schemas.DeleteReply,
    schemas.HealthReply,
    schemas.ReadyReply,
    schemas.ModelsReply,
    schemas.ProblemDocument,
)


def install(app: FastAPI, limits: LimitSettings) -> None:
    """Let the app describe bodies that its routes read themselves."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            document.setdefault("components", {})["schemas"] = _components(limits)
            document["components"]["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            }
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # the framework's documented way to replace it


def _components(limits: LimitSettings) -> dict[str, Any]:
    _, found = models_json_schema(
        [(model, "validation") for model in REQUESTS] + [(model, "serialization") for model in _REPLIES],
        ref_template=_REF,
    )
    components: dict[str, Any] = found["$defs"]
    # The limits are settings, so the shapes cannot hold them.
    for model, field, most in (
        ("ScoreRequest", "candidates", limits.candidates),
        ("UpliftRequest", "users", limits.users),
        ("UsersRequest", "users", limits.users),
        ("BehavioursRequest", "events", limits.events),
    ):
        components[model]["properties"][field]["maxItems"] = most
    return components

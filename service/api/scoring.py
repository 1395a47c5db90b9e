"""POST /score."""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api import score_body
from service.api.hot import HotRoutes
from service.api.openapi import ARROW, answers, takes
from service.api.problems import to_json
from service.api.schemas import ScoreReply, ScoreRequest
from service.api.score_body import ScoreBody
from service.container import Container
from service.core.scorer import Answer
from service.errors import InvalidFeatures

router = APIRouter()


_ARROW_BODY: Final = {
    ARROW: "An Arrow IPC stream: a row a candidate with item_id and candidate features; the other fields of the JSON "
    "body as JSON under `request` in the schema's metadata."
}
_ARROW_REPLY: Final = {
    ARROW: "For an Arrow body that accepts it: a row a candidate with p<task> and, with raw, logit_<task>; the other "
    "fields of the JSON reply as JSON under `reply` in the schema's metadata."
}


@router.post(
    "/score",
    responses=answers(ScoreReply, binary=_ARROW_REPLY),
    openapi_extra=takes(ScoreRequest, _ARROW_BODY),
    tags=["scoring"],
)
async def score(request: Request) -> Response:
    """Calibrated probabilities of one user's candidates."""
    hot: HotRoutes = request.app.state.hot
    return await hot.respond("/score", request)


async def reply_to(container: Container, raw: bytes, request_id: str) -> bytes:
    """The reply to a body, both as bytes.

    Raises:
        ServiceError: 400, 404, 422, 500 or 503.
    """
    limits, documented = container.settings.limits, partial(score_body.documented, raw, container.settings)
    asked, answer = await answer_to(container, score_body.quick(raw, limits), documented)
    return reply_of(container, request_id, answer, raw=asked.raw)


async def answer_to(
    container: Container, asked: ScoreBody | None, documented: Callable[[], ScoreBody]
) -> tuple[ScoreBody, Answer]:
    """The request that was answered, and its answer.

    Args:
        container: The service.
        asked: The request as it was read quickly, None where it needs more care.
        documented: Reads it with all care and says what is wrong.

    Raises:
        ServiceError: See ``reply_to``.
    """
    answer = None if asked is None else await _quick_answer(container, asked)
    if asked is None or answer is None:
        asked = documented()
        answer = await container.scorer.score(asked.query, asked.model)
    return asked, answer


def reply_of(container: Container, request_id: str, answer: Answer, *, raw: bool) -> bytes:
    """An answer as JSON; with ``raw`` it has the logits."""
    started = perf_counter()
    reply = to_json(_reply(request_id, answer, raw=raw))
    container.metrics.stages["serialise"].observe(perf_counter() - started)
    return reply


async def _quick_answer(container: Container, asked: ScoreBody) -> Answer | None:
    """None where something is wrong with the request: a sentence may name a type, which the documented way knows."""
    try:
        return await container.scorer.score(asked.query, asked.model)
    except InvalidFeatures:
        return None


def _reply(request_id: str, answer: Answer, *, raw: bool) -> dict[str, Any]:
    scored = answer.scored
    reply = facts_of(request_id, answer)
    reply["scores"] = {f"p{task}": values[0] for task, values in scored.probabilities.items()}
    if raw:
        reply["logits"] = {task: np.ascontiguousarray(scored.logits[0, :, k]) for k, task in enumerate(answer.tasks)}
    return reply


def facts_of(request_id: str, answer: Answer) -> dict[str, Any]:
    """The part of a reply that is said once and not of each candidate."""
    scored, history = answer.scored, answer.history
    behaviours: dict[str, Any] = {"source": history.source, "length": int(scored.lengths[0])}
    if history.age_ms is not None:
        behaviours["age_ms"] = history.age_ms
    return {
        "request_id": request_id,
        "model": {"name": answer.model, "version": answer.version},
        "behaviours": behaviours,
        "degraded": answer.degraded,
        "warnings": answer.warnings,
    }

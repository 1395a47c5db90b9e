"""POST /score."""

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bundle.request import Behaviour, ScoreQuery
from service.api import body
from service.api.ids import ids_fit
from service.api.openapi import answers, takes
from service.api.problems import to_json
from service.api.schemas import ScoreReply, ScoreRequest
from service.container import Container
from service.core.scorer import Answer

router = APIRouter()


@router.post("/score", responses=answers(ScoreReply), openapi_extra=takes(ScoreRequest), tags=["scoring"])
async def score(request: Request) -> Response:
    """Calibrated probabilities of one user's candidates."""
    container: Container = request.app.state.container
    limits = container.settings.limits
    async with container.gate.enter(request, "score"):
        counts = {"candidates": limits.candidates, "behaviours": limits.behaviours}
        asked = await body.read(request, ScoreRequest, container.settings, counts)
        ids_fit(asked, limits.id_bytes)
        answer = await container.scorer.score(_query(asked), asked.model)
        started = time.perf_counter()
        reply = to_json(_reply(request.scope["request_id"], answer, raw=asked.raw))
        container.metrics.stages["serialise"].observe(time.perf_counter() - started)
    return Response(reply, media_type="application/json")


def _query(asked: ScoreRequest) -> ScoreQuery:
    behaviours = None
    if asked.behaviours is not None:
        behaviours = [Behaviour(past.item_id, past.ts, past.type, past.value) for past in asked.behaviours]
    return ScoreQuery(
        user_id=asked.user_id,
        candidates=asked.candidates,
        ts=time.time() if asked.ts is None else asked.ts,
        context=asked.context,
        user_features=asked.user_features,
        candidate_features=asked.candidate_features,
        behaviours=behaviours,
    )


def _reply(request_id: str, answer: Answer, *, raw: bool) -> dict[str, Any]:
    scored, history = answer.scored, answer.history
    behaviours: dict[str, Any] = {"source": history.source, "length": int(scored.lengths[0])}
    if history.age_ms is not None:
        behaviours["age_ms"] = history.age_ms
    reply: dict[str, Any] = {
        "request_id": request_id,
        "model": {"name": answer.model, "version": answer.version},
        "scores": {f"p{task}": values[0].tolist() for task, values in scored.probabilities.items()},
        "behaviours": behaviours,
        "degraded": answer.degraded,
        "warnings": answer.warnings,
    }
    if raw:
        reply["logits"] = {task: scored.logits[0, :, k].tolist() for k, task in enumerate(answer.tasks)}
    return reply

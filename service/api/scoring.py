"""POST /score and POST /uplift."""

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bundle.request import Behaviour, ScoreQuery
from service.api import body
from service.api.ids import ids_fit
from service.api.openapi import answers, problems_only, takes
from service.api.problems import to_json
from service.api.schemas import ScoreReply, ScoreRequest, UpliftRequest
from service.container import Container
from service.core.scorer import Answer
from service.errors import UnknownCampaign, UnknownModel

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


@router.post("/uplift", responses=problems_only(), openapi_extra=takes(UpliftRequest), tags=["scoring"])
async def uplift(request: Request) -> Response:
    """Treatment effects; 404 while no bundle of kind uplift is loaded."""
    container: Container = request.app.state.container
    settings = container.settings
    async with container.gate.enter(request, "uplift"):
        asked = await body.read(request, UpliftRequest, settings, {"users": settings.limits.users})
        ids_fit(asked, settings.limits.id_bytes)
        with container.registry.lease(_uplift_model(container, asked), "uplift") as version:
            # The loader refuses bundles of kind uplift until effects are computed here, so none arrives.
            raise UnknownModel(f"{version.name} cannot answer /uplift.")


def _uplift_model(container: Container, asked: UpliftRequest) -> str | None:
    """The model that the request names, else its campaign's, else the default route's (None)."""
    if asked.model is not None or asked.campaign is None:
        return asked.model
    try:
        return container.settings.routes.campaigns[asked.campaign]
    except KeyError:
        raise UnknownCampaign("routes.campaigns has no such campaign.") from None

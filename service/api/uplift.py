"""POST /uplift."""

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api import body, uplift_body, uplift_reply
from service.api.openapi import answers, takes
from service.api.uplift_body import UpliftBody
from service.api.uplift_schemas import Budget, UpliftOptions, UpliftReply, UpliftRequest
from service.container import Container
from service.core import question
from service.core.question import Question
from service.core.uplifter import UpliftAnswer
from service.errors import UnknownCampaign, UnknownModel

router = APIRouter()


@router.post("/uplift", responses=answers(UpliftReply), openapi_extra=takes(UpliftRequest), tags=["scoring"])
async def uplift(request: Request) -> Response:
    """Treatment effects of users, and who should get what; 404 while no bundle of kind uplift is loaded."""
    container: Container = request.app.state.container
    settings = container.settings
    async with container.gate.enter(request, "uplift"):
        asked = uplift_body.decode(await body.read_bytes(request, settings), settings)
        answer = await _answer(container, asked)
        started = time.perf_counter()
        reply = uplift_reply.to_bytes(request.scope["request_id"], answer, [user.user_id or "" for user in asked.users])
        container.metrics.stages["serialise"].observe(time.perf_counter() - started)
    return Response(reply, media_type="application/json")


async def _answer(container: Container, asked: UpliftBody) -> UpliftAnswer:
    """With the model that the request names, else its campaign's, else the default route's."""
    options = asked.options
    model = options.model
    if options.campaign is not None:
        route = container.settings.routes.campaigns.get(options.campaign)
        if route is None:
            raise UnknownCampaign("routes.campaigns has no such campaign.")
        model = options.model or route
    try:
        return await container.uplifter.answer(asked.users, _question(options), model)
    except UnknownModel as error:
        if options.campaign is None or options.model is not None:
            raise
        raise UnknownCampaign("No model of kind uplift is served for the campaign.") from error


def _question(asked: UpliftOptions) -> Question:
    interval = asked.interval
    return Question(
        treatments=None if asked.treatments is None else tuple(asked.treatments),
        doses=asked.doses or {},
        dose_grid=asked.dose_grid,
        interval=None if interval is None else question.Interval(interval.level, interval.method),
        budget=None if asked.budget is None else _budget(asked.budget),
        allow_extrapolation=asked.allow_extrapolation,
    )


def _budget(asked: Budget) -> question.Budget:
    costs = {name: question.Cost(cost.base, cost.per_dose) for name, cost in asked.costs.items()}
    return question.Budget(asked.total, costs, asked.value_per_outcome)

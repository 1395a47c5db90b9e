"""POST /uplift."""

import time
from contextlib import ExitStack

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api import uplift_body, uplift_reply
from service.api.hot import HotRoutes
from service.api.openapi import answers, takes
from service.api.uplift_body import UpliftBody
from service.api.uplift_schemas import Budget, UpliftOptions, UpliftReply, UpliftRequest
from service.container import Container
from service.core import question
from service.core.question import Question
from service.core.uplift_version import UpliftVersion
from service.errors import ServiceError, UnknownCampaign, UnknownModel

router = APIRouter()


@router.post("/uplift", responses=answers(UpliftReply), openapi_extra=takes(UpliftRequest), tags=["scoring"])
async def uplift(request: Request) -> Response:
    """Treatment effects of users, and who should get what; 404 while no bundle of kind uplift is loaded."""
    hot: HotRoutes = request.app.state.hot
    return await hot.respond("/uplift", request)


async def reply_to(container: Container, raw: bytes, request_id: str) -> memoryview:
    """The reply to a body; both are bytes, the reply a view that is not copied.

    Raises:
        ServiceError: 400, 404, 422, 500 or 503.
    """
    with ExitStack() as held:
        asked, version = _quick(container, raw, held) or _documented(container, raw, held)
        user_ids = asked.user_ids
        answering = container.uplifter.answer(version, asked.users, _question(asked.options))
        del asked  # see there
        answer = await answering
    started = time.perf_counter()
    reply = uplift_reply.to_bytes(request_id, answer, user_ids)
    container.metrics.stages["serialise"].observe(time.perf_counter() - started)
    return reply


def _quick(container: Container, raw: bytes, held: ExitStack) -> tuple[UpliftBody, UpliftVersion] | None:
    """The request and who answers it, where nothing at all is wrong or unusual with either."""
    guess = uplift_body.routing(raw)
    try:
        model = _model(container, guess.model, guess.campaign)
        version = held.enter_context(container.uplifter.lease(model))
    except ServiceError:
        return None
    asked = uplift_body.quick(raw, version.told, container.settings)
    if asked is None or (asked.options.model, asked.options.campaign) != (guess.model, guess.campaign):
        return None
    return asked, version


def _documented(container: Container, raw: bytes, held: ExitStack) -> tuple[UpliftBody, UpliftVersion]:
    """The same by the documented models, or what is wrong, the body's faults first."""
    asked = uplift_body.documented(raw, container.settings)
    options = asked.options
    model = _model(container, options.model, options.campaign)
    try:
        return asked, held.enter_context(container.uplifter.lease(model))
    except UnknownModel as error:
        if options.campaign is None or options.model is not None:
            raise
        raise UnknownCampaign("No model of kind uplift is served for the campaign.") from error


def _model(container: Container, model: str | None, campaign: str | None) -> str | None:
    """The model that a request names, else its campaign's, else None for the default route's."""
    if campaign is None:
        return model
    route = container.settings.routes.campaigns.get(campaign)
    if route is None:
        raise UnknownCampaign("routes.campaigns has no such campaign.")
    return model or route


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

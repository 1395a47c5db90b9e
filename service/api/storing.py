"""POST /behaviours, POST /users and DELETE /users/{user_id}: writes to the behaviour store."""

import math
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.api import body
from service.api.ids import ids_fit
from service.api.openapi import answers, takes
from service.api.problems import invalid, pointer, to_json
from service.api.schemas import BehavioursRequest, DeleteReply, UsersRequest, WriteReply
from service.behaviours import Event, StoreError
from service.container import Container
from service.errors import Problem, StoreUnavailable

router = APIRouter()
T = TypeVar("T")

_MAX_FEATURES = 1000


@router.post("/behaviours", responses=answers(WriteReply), openapi_extra=takes(BehavioursRequest), tags=["storing"])
async def behaviours(request: Request) -> Response:
    """Append behaviours; the reply comes after the write."""
    container: Container = request.app.state.container
    limits = container.settings.limits
    async with container.gate.enter(request.headers, "write"):
        asked = await body.read(request, BehavioursRequest, container.settings, {"events": limits.events})
        ids_fit(asked, limits.id_bytes)
        events = [Event(one.user_id, one.item_id, int(one.ts), one.type, one.value) for one in asked.events]
        done = await _written(container.store.append(events))
    return _reply(done.accepted, done.duplicates)


@router.post("/users", responses=answers(WriteReply), openapi_extra=takes(UsersRequest), tags=["storing"])
async def users(request: Request) -> Response:
    """Store user features; they replace what was stored for these users."""
    container: Container = request.app.state.container
    limits = container.settings.limits
    async with container.gate.enter(request.headers, "write"):
        asked = await body.read(request, UsersRequest, container.settings, {"users": limits.users})
        ids_fit(asked, limits.id_bytes)
        problems = [problem for number, one in enumerate(asked.users) for problem in _not_plain(number, one.features)]
        if problems:
            raise invalid(problems)
        # The last entry of a user counts, as if they had been sent one by one.
        by_user = {one.user_id: one.features for one in asked.users}
        accepted = await _written(container.store.put_users(list(by_user.items())))
    return _reply(accepted, len(asked.users) - accepted)


@router.delete("/users/{user_id}", responses=answers(DeleteReply), tags=["storing"])
async def delete_user(request: Request, user_id: str) -> Response:
    """Forget a user's behaviours and features."""
    container: Container = request.app.state.container
    async with container.gate.enter(request.headers, "write"):
        deleted = await _written(container.store.delete_user(user_id))
        container.histories.forget(user_id)
    return Response(to_json({"deleted": deleted}), media_type="application/json")


async def _written(work: Awaitable[T]) -> T:
    try:
        return await work
    except StoreError as error:
        raise StoreUnavailable("The behaviour store did not take the write; nothing was acknowledged.") from error


def _reply(accepted: int, duplicates: int) -> Response:
    return Response(to_json({"accepted": accepted, "duplicates": duplicates}), media_type="application/json")


def _not_plain(number: int, features: dict[str, object]) -> list[Problem]:
    """What cannot be stored whatever bundle reads it later: objects, nested arrays, NaN and infinities."""
    place = ("users", number, "features")
    if len(features) > _MAX_FEATURES:
        return [Problem(pointer(place), "too_many_items", f"at most {_MAX_FEATURES} features a user")]
    problems = []
    for name, value in features.items():
        for part in value if isinstance(value, list) else (value,):
            if isinstance(part, dict | list):
                problems.append(
                    Problem(pointer((*place, name)), "schema", "a scalar or a list of scalars was expected")
                )
            elif isinstance(part, bool):
                problems.append(Problem(pointer((*place, name)), "schema", "a text or a number was expected"))
            elif isinstance(part, int | float) and not _finite(part):
                problems.append(Problem(pointer((*place, name)), "not_finite", "the number is not finite"))
    return problems


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number) and abs(int(number)) < 2**63
    except OverflowError:
        return False

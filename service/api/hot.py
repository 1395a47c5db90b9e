"""The routes that answer millions of requests, without the framework's parts.

``RequestContext`` (and, under uvicorn, the connection itself: ``service.hot_protocol``) asks here before FastAPI, whose
router, dependency solver and response objects cost more than reading the request. FastAPI has the same routes for its
document, and answers them through ``respond`` wherever a request reaches it all the same (below another path, say).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from service.api import body, problems
from service.api.accounts import Accounts
from service.api.identity import Headers, Identity, identify, identifying
from service.api.keys import Scope as KeyScope
from service.errors import CRASHED, NotReady, ServiceError
from service.logs import REQUEST

if TYPE_CHECKING:
    from service.api.fast_path import FastPath
    from service.container import Container

log = structlog.get_logger("service.request")

VERSIONED: Final = "/v1"
METHOD: Final = "POST"

# (container, body, request id) -> the reply's bytes; raises ServiceError.
Answer = Callable[["Container", bytes, str], Awaitable[bytes | memoryview]]


@dataclass(frozen=True, slots=True)
class Hot:
    """One route.

    Attributes:
        route: Its path, without the version.
        scope: What the caller's key must allow.
        answers: Media type of a request -> who answers it and the media type of the reply.
        accepted: Media types of a request other than JSON and of the reply that it accepts -> who answers it so.
    """

    route: str
    scope: KeyScope
    answers: Mapping[str, tuple[Answer, str]]
    accepted: Mapping[tuple[str, str], Answer] = field(default_factory=dict)

    def choose(self, media_type: str, accept: str) -> tuple[Answer, str]:
        """Who answers a request, and the media type of the reply."""
        if media_type != body.JSON:
            for wanted in (part.partition(";")[0].strip().lower() for part in accept.split(",")):
                if (media_type, wanted) in self.accepted:
                    return self.accepted[media_type, wanted], wanted
        return self.answers[media_type]


class Reply(NamedTuple):
    """A whole reply: status, headers and body."""

    status: int
    headers: Headers
    body: bytes | memoryview


class HotRoutes:
    """Finds and answers.

    Args:
        routes: All of them.
        accounts: Where answers are written down.
    """

    def __init__(self, routes: Iterable[Hot], accounts: Accounts) -> None:
        self._by_path = {prefix + hot.route: hot for hot in routes for prefix in ("", VERSIONED)}
        self._accounts = accounts
        self.container: Container | None = None
        self.fast: FastPath | None = None

    def find(self, method: str, path: str) -> Hot | None:
        """The route of a request, or None: FastAPI's."""
        return self._by_path.get(path) if method == METHOD else None

    async def serve(self, hot: Hot, headers: Headers, uri_bytes: int, receive: Receive) -> Reply:
        """The reply to a request, also where it is a problem.

        Args:
            hot: The route.
            headers: Of the request, names in lower case.
            uri_bytes: Length of path and query.
            receive: Gives the body, as ASGI says.
        """
        started = perf_counter()
        identity = identify(headers)
        token = REQUEST.set((identity.request_id, identity.trace_id))
        status = 0
        try:
            reply = await self._reply(hot, identity, uri_bytes, receive)
            status = reply.status
            return reply
        finally:
            self._accounts.close(hot.route, METHOD, status, perf_counter() - started)
            REQUEST.reset(token)

    async def _reply(self, hot: Hot, identity: Identity, uri_bytes: int, receive: Receive) -> Reply:
        try:
            self._accounts.check_sizes(identity.header_bytes, uri_bytes)
            found, media_type = await self._answer(hot, identity.headers, receive, identity.request_id)
        except ServiceError as error:
            problems.note(error)
            return problem(error, identity.request_id, identity.traceparent)
        except Exception:
            log.exception("request_crashed")
            return problem(ServiceError(CRASHED), identity.request_id, identity.traceparent)
        return ok(media_type, found, identity.added())

    async def _answer(
        self, hot: Hot, headers: Mapping[str, str], receive: Receive, request_id: str
    ) -> tuple[bytes | memoryview, str]:
        """The body of the reply and its media type."""
        container = self.container
        if container is None:
            raise NotReady("The service is starting.")
        async with container.gate.enter(headers, hot.scope):
            media_type, raw = await body.read_bytes(headers, receive, container.settings, hot.answers)
            answer, reply_type = hot.choose(media_type, headers.get("accept", ""))
            return await answer(container, raw, request_id), reply_type

    async def respond(self, route: str, request: Request) -> Response:
        """The same for a request that came through FastAPI.

        Raises:
            ServiceError: Whatever is wrong.
        """
        request_id = request.scope["request_id"]
        reply, media_type = await self._answer(self._by_path[route], request.headers, request.receive, request_id)
        return Response(bytes(reply), media_type=media_type)


def ok(media_type: str, body: bytes | memoryview, headers: Headers) -> Reply:
    """What was asked for, as a whole reply."""
    head = [(b"content-length", b"%d" % len(body)), (b"content-type", media_type.encode())]
    return Reply(200, head + headers, body)


def problem(error: ServiceError, request_id: str, traceparent: str) -> Reply:
    """An error as a whole reply."""
    made = problems.response(error, request_id)
    return Reply(made.status_code, made.raw_headers + identifying(request_id, traceparent), bytes(made.body))

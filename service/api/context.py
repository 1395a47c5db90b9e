"""Around every request: its id, its trace, its time, its log line, and a problem document if all else failed."""

import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.api.accounts import Accounts
from service.api.hot import VERSIONED, Hot, HotRoutes
from service.api.identity import identify
from service.errors import CRASHED, ServiceError
from service.logs import REQUEST

log = structlog.get_logger("service.request")


class RequestContext:
    """ASGI middleware; sits outside of the exception handlers and so sees every answer. Hands hot routes over.

    Args:
        app: What it wraps.
        hot: Routes that are not left to the app.
        accounts: Where answers are written down.
    """

    def __init__(self, app: ASGIApp, hot: HotRoutes, accounts: Accounts) -> None:
        self._app = app
        self._hot = hot
        self._accounts = accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope; anything but HTTP (the lifespan) is passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        hot = self._hot.find(scope["method"], scope["path"])
        if hot is None:
            await self._pass_on(scope, receive, send)
        else:
            await self._answer(hot, scope, receive, send)

    async def _answer(self, hot: Hot, scope: Scope, receive: Receive, send: Send) -> None:
        reply = await self._hot.serve(hot, scope["headers"], _uri_bytes(scope), receive)
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await send({"type": "http.response.body", "body": bytes(reply.body)})

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        identity = identify(scope["headers"])
        scope["request_id"] = identity.request_id
        status = 0

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *identity.added()]}
            await send(message)

        token = REQUEST.set((identity.request_id, identity.trace_id))
        try:
            self._accounts.check_sizes(identity.header_bytes, _uri_bytes(scope))
            await self._app(scope, receive, send_identified)
        except ServiceError as error:
            await problems.response(error, identity.request_id)(scope, receive, send_identified)
        except Exception:
            log.exception("request_crashed")
            if status != 0:
                raise  # half an answer is out: only closing the connection tells the client so
            await problems.response(ServiceError(CRASHED), identity.request_id)(scope, receive, send_identified)
        finally:
            self._accounts.close(_route(scope), scope["method"], status, time.perf_counter() - started)
            REQUEST.reset(token)


def _uri_bytes(scope: Scope) -> int:
    return len(scope.get("raw_path") or b"") + len(scope["query_string"])


def _route(scope: Scope) -> str:
    # The route's pattern, not the path: whoever calls random paths must not make new time series.
    route = getattr(scope.get("route"), "path", None) or "unknown"
    return route.removeprefix(VERSIONED) or route

"""Around every request: its id, its trace, its time, its log line, and a problem document if all else failed."""

import re
import secrets
import time
from collections.abc import Iterable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import problems
from service.errors import HeadersTooLarge, ServiceError, UriTooLong
from service.metrics import Metrics
from service.settings import LimitSettings

log = structlog.get_logger("service.request")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}\Z")
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
_VERSIONED = "/v1"
# Asked every few seconds by whatever watches the service; their lines would bury the others.
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def uuid7() -> str:
    """A UUID of version 7: 48 bits of milliseconds, then random, so that ids sort by time."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class RequestContext:
    """ASGI middleware; sits outside of the exception handlers and so sees every answer.

    Args:
        app: What it wraps.
        limits: Longest headers and URI.
        metrics: Rate, errors and duration by route.
        log_requests: Whether answers below 500 get a line.
    """

    def __init__(self, app: ASGIApp, limits: LimitSettings, metrics: Metrics, *, log_requests: bool) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope; anything but HTTP (the lifespan) is passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id, trace_id, traceparent = _identify(scope["headers"])
        scope["request_id"] = request_id
        added = [(b"x-request-id", request_id.encode()), (b"traceparent", traceparent.encode())]
        status = 0

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id, trace_id=trace_id):
            try:
                self._check_sizes(scope)
                await self._app(scope, receive, send_identified)
            except ServiceError as error:
                await problems.response(error, request_id)(scope, receive, send_identified)
            except Exception:
                log.exception("request_crashed")
                if status != 0:
                    raise  # half an answer is out: only closing the connection tells the client so
                failure = ServiceError("The service failed; its log has the details under this request id.")
                await problems.response(failure, request_id)(scope, receive, send_identified)
            finally:
                self._finish(scope, status, time.perf_counter() - started)

    def _check_sizes(self, scope: Scope) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._limits.header_bytes:
            raise HeadersTooLarge(f"All headers together may take {self._limits.header_bytes} bytes.")
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > self._limits.uri_bytes:
            raise UriTooLong(f"Path and query may take {self._limits.uri_bytes} bytes.")

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's pattern, not the path: whoever calls random paths must not make new time series.
        route = getattr(scope.get("route"), "path", None) or "unknown"
        route = route.removeprefix(_VERSIONED) or route
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if status >= 500:
            log.warning("request", route=route, method=method, status=status, ms=round(seconds * 1e3, 2))
        elif self._log_requests and route not in _PROBES:
            log.info("request", route=route, method=method, status=status, ms=round(seconds * 1e3, 2))


def _identify(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str, str]:
    """Request id, trace id and our ``traceparent``, continued from the caller's where it is well formed."""
    request_id = ""
    trace_id, flags = "", "00"
    for name, value in headers:
        if name == b"x-request-id" and not request_id and REQUEST_ID.match(value):
            request_id = value.decode("ascii")
        elif name == b"traceparent" and not trace_id:
            found = _TRACEPARENT.match(value)
            if found and found[1] != b"0" * 32 and found[2] != b"0" * 16:
                trace_id, flags = found[1].decode(), found[3].decode()
    trace_id = trace_id or secrets.token_hex(16)
    return request_id or uuid7(), trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"

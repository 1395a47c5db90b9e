"""Hot routes answered by the connection itself, where uvicorn runs on httptools.

uvicorn makes a scope, an application task, three coroutines and two writes of every request, and the framework's
middleware adds its own. A hot route needs none of that: its reply is one piece of bytes. Everything else goes uvicorn's
way, and so does a hot route whose head is in any way unusual (a query, an upgrade, HTTP/1.0). A plain request of
``service.api.fast_path``, whole in one piece, does not even need uvicorn's parser.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import Message
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.api.body import JSON
from service.api.fast_path import FastPath, Flight
from service.api.hot import METHOD, Hot, HotRoutes, Reply, ok
from service.api.identity import identifying
from service.compiled.reply import ResponseHeads

_METHOD: Final = METHOD.encode()
_HEADS: Final = ResponseHeads()
_HOLD_S: Final = 0.005  # for a body that comes right behind its head, but not with it


class HotCycle:
    """One request of a hot route and its reply, as ``HttpToolsProtocol`` wants to see it.

    Args:
        protocol: The connection.
        routes: All hot routes.
        hot: The one.
        keep_alive: Whether the connection outlives the reply.
    """

    def __init__(self, protocol: "HotProtocol", routes: HotRoutes, hot: Hot, *, keep_alive: bool) -> None:
        self._protocol = protocol
        self._routes = routes
        self._hot = hot
        self._headers = protocol.headers
        self._uri_bytes = len(protocol.url)
        self._continue = protocol.expect_100_continue
        self._waiter: asyncio.Future[None] | None = None
        # What the protocol reads and writes.
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.more_body = True
        self.disconnected = False
        self.response_complete = False
        self.message_event = self

    def set(self) -> None:
        """Something of the body has come, its end, or the end of the connection."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def run_asgi(self, _app: object) -> None:
        """Answer the request."""
        protocol = self._protocol
        try:
            reply = await self._routes.serve(self._hot, self._headers, self._uri_bytes, self.receive)
            if protocol.flow.write_paused and not self.disconnected:
                await protocol.flow.drain()
        except BaseException:
            protocol.transport.close()  # nobody would answer this request any more
            raise
        self.response_complete = True
        if not self.disconnected:
            default = protocol.server_state.default_headers
            protocol.transport.write(reply_bytes(reply, default, keep_alive=self.keep_alive))
            if not self.keep_alive:
                protocol.transport.close()
            protocol.on_response_complete()

    async def receive(self) -> Message:
        """The body as far as it has come, as ASGI says."""
        protocol = self._protocol
        if self._continue and not protocol.transport.is_closing():
            protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._continue = False
        while not self.body and self.more_body and not self.disconnected:
            protocol.flow.resume_reading()
            self._waiter = protocol.loop.create_future()
            await self._waiter
        if self.disconnected:
            return {"type": "http.disconnect"}
        chunk, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": chunk, "more_body": self.more_body}


class HotProtocol(HttpToolsProtocol):
    """uvicorn's connection, with a shorter way for hot routes and the shortest one for plain requests.

    Args:
        config: uvicorn's; its application must be the service's, else every request goes uvicorn's way.
        server_state: uvicorn's.
        app_state: Of the application's lifespan.
        _loop: The event loop.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._routes: HotRoutes | None = self.app.state.hot if isinstance(self.app, FastAPI) else None
        self._fast: FastPath | None = None if self._routes is None else self._routes.fast
        self._flight: Flight | None = None
        self._held = b""  # what came while a flight was under way, or before its body was whole
        self._hold_timer: asyncio.TimerHandle | None = None
        self._inside = False  # uvicorn's parser has seen a part of a message
        self._rests_since = 0.0

    # --- the fast path -------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._flight is not None:
            self._held += data
            self.flow.pause_reading()
            return
        if self._held:
            data = self._release() + data
        if self._fast is not None and self._between_requests():
            flight = self._fast.take(self, data)
            if flight is not None:
                self._flight = flight
                cycle: Any = flight
                self.cycle = cycle  # any object with the members of uvicorn's own
                return
            if self._fast.awaits(data):
                self._held = data
                self._hold_timer = self.loop.call_later(_HOLD_S, self._pass_on)
                return
        super().data_received(data)

    def _release(self) -> bytes:
        data, self._held = self._held, b""
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        return data

    def _pass_on(self) -> None:
        """The body takes its time: the ordinary route knows how long it may."""
        data = self._release()
        if not self.transport.is_closing():
            super().data_received(data)

    def shutdown(self) -> None:
        """See ``HttpToolsProtocol``; half a request gets its answer too."""
        if self._held and self._flight is None:
            self._pass_on()
        super().shutdown()

    def _between_requests(self) -> bool:
        done = self.cycle is None or self.cycle.response_complete
        return done and not self._inside and not self.flow.write_paused

    def answer_scores(self, flight: Flight, body: bytes) -> None:
        """See ``Connection``."""
        if flight.keep_alive:
            self._land(flight, _HEADS.put_before(body, self.server_state.default_headers, flight.head))
        else:
            headers = identifying(flight.head.request_id, flight.head.traceparent)
            self.answer(flight, ok(JSON, body, headers))

    def answer(self, flight: Flight, reply: Reply) -> None:
        """See ``Connection``."""
        self._land(flight, reply_bytes(reply, self.server_state.default_headers, keep_alive=flight.keep_alive))

    def _land(self, flight: Flight, reply: bytes) -> None:
        flight.response_complete = True
        self._flight = None
        if flight.disconnected:
            return
        self.server_state.total_requests += 1
        self.transport.write(reply)
        if not flight.keep_alive:
            self.transport.close()
        elif self._held:
            data, self._held = self._held, b""
            self.flow.resume_reading()
            self.data_received(data)
        else:
            self._rest()

    def answer_ordinarily(self, flight: Flight) -> None:
        """See ``Connection``."""
        flight.response_complete = True
        self._flight = None
        if flight.disconnected:
            return
        data, self._held = flight.data + self._held, b""
        self.flow.resume_reading()
        super().data_received(data)
        if not flight.keep_alive and self.cycle is not None:
            self.cycle.keep_alive = False  # the server began to stop meanwhile

    # --- between requests ----------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """See ``HttpToolsProtocol``."""
        self._rests_since = self.loop.time()
        super().on_response_complete()

    def _rest(self) -> None:
        """Wait for the next request. No timer is set for each of thousands a second: it looks about when it rings."""
        self._rests_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._ring_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, if it has rested for as long as it may."""
        self.timeout_keep_alive_task = None
        if self._held or self._flight is not None or not self._between_requests():
            return  # whoever answers sets the timer again
        left = self._rests_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._ring_in(left)
        else:
            super().timeout_keep_alive_handler()

    def _ring_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    # --- uvicorn's parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """See ``HttpToolsProtocol``."""
        self._inside = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """See ``HttpToolsProtocol``."""
        self._inside = False
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Begin to answer; the body may still be on its way."""
        routes, hot = self._routes, self._hot()
        if routes is None or hot is None:
            super().on_headers_complete()
            return
        under_way = self.cycle
        cycle: Any = HotCycle(self, routes, hot, keep_alive=self.parser.should_keep_alive())
        self.cycle = cycle
        if under_way is None or under_way.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:  # sent before the reply to the request before it
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _hot(self) -> Hot | None:
        parser = self.parser
        if self._routes is None or self.limit_concurrency is not None:
            return None
        if parser.get_method() != _METHOD or parser.should_upgrade() or parser.get_http_version() != "1.1":
            return None
        return self._routes.find(METHOD, self.url.decode("latin-1"))


def reply_bytes(reply: Reply, default_headers: Iterable[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
    """A reply as it goes over the wire."""
    parts: list[bytes | memoryview] = [STATUS_LINE[reply.status]]
    for name, value in (*default_headers, *reply.headers):
        parts += (name, b": ", value, b"\r\n")
    parts += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", reply.body)
    return b"".join(parts)

"""Hot routes answered by the connection itself, where uvicorn runs on httptools.

uvicorn makes a scope, an application task, three coroutines and two writes of every request, and the framework's
middleware adds its own. A hot route needs none of that: its reply is one piece of bytes. Everything else goes uvicorn's
way, and so does a hot route whose head is in any way unusual (a query, an upgrade, HTTP/1.0).
"""

import asyncio
from typing import Any, Final

from fastapi import FastAPI
from starlette.types import Message
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.api.hot import METHOD, Hot, HotRoutes, Reply

_METHOD: Final = METHOD.encode()


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
            protocol.transport.write(self._bytes(reply))
            if not self.keep_alive:
                protocol.transport.close()
            protocol.on_response_complete()

    def _bytes(self, reply: Reply) -> bytes:
        parts = [STATUS_LINE[reply.status]]
        for name, value in (*self._protocol.server_state.default_headers, *reply.headers):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n", reply.body)
        return b"".join(parts)

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
    """uvicorn's connection, with a shorter way for hot routes.

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

    def on_headers_complete(self) -> None:
        """Begin to answer; the body may still be on its way."""
        routes, hot = self._routes, self._hot()
        if routes is None or hot is None:
            super().on_headers_complete()
            return
        under_way = self.cycle
        cycle: Any = HotCycle(self, routes, hot, keep_alive=self.parser.should_keep_alive())
        self.cycle = cycle  # any object with the members of uvicorn's own
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

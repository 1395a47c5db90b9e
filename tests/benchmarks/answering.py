"""Servers that answer as a test wants, and a load on them."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.serving.load import PATIENCE_S, Closed, Load, Open, generator, target
from benchmarks.serving.load_program import Program


class Recording(ThreadingHTTPServer):
    """Keeps the bodies it was sent; ``answer`` decides each status."""

    daemon_threads = True
    request_queue_size = 64  # connections come faster than they are accepted

    def __init__(self, answer: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []
        self.answer = answer
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, or the kernel waits 40 ms for an acknowledgement in between
    server: Recording

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.server.lock:
            self.server.bodies.append(body)
            status = self.server.answer(len(self.server.bodies))
        self.send_response(status)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(answer: Any = lambda _: 200) -> Iterator[tuple[str, Recording]]:
    server = Recording(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def talking(talk: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that leaves each connection to a function."""

    class Talk(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            talk(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Talk) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def answering(pieces: Sequence[bytes]) -> Callable[[socket.socket], None]:
    """Answers each request in pieces that are sent one by one."""

    def talk(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        while block := connection.recv(65536):
            received += block
            if received.endswith(b"\r\n\r\n{}"):
                received = b""
                for piece in pieces:
                    connection.sendall(piece)

    return talk


@dataclass(frozen=True, slots=True)
class Put:
    """Puts a load on with one program and waits for its end."""

    program: Program
    folder: Path

    def __call__(
        self,
        url: str,
        plan: Closed | Open,
        bodies: tuple[bytes, ...] = (b"{}",),
        warm_up: int = 0,
        patience_s: float = PATIENCE_S,
    ) -> Load:
        where = target(url, "/score", bodies)
        with generator(where, plan, self.folder, warm_up, patience_s, self.program) as ready:
            return ready.run()

"""Servers for the store client's tests: one that does as it is told, and a real one on a port."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from service.behaviours.processes import die_with_parent
from service.behaviours.server_binary import find_server

Words = list[bytes]
Script = Callable[[Words], str]


@dataclass
class ScriptedServer:
    """Answers MGET of keys with the keys themselves, the way its script says for each command.

    Attributes:
        script: From the words of a command to what happens: now, mute (no reply, and none to later commands of this
            connection before ``let_go`` is set), half (half a reply, then the end), reset, or garbage.
        connections: How many there have been.
    """

    script: Script
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                words = await _words(reader)
                if words[0] != b"MGET":
                    writer.write(b"+OK\r\n")
                elif not await self._answer(writer, words):
                    break
        writer.transport.abort()

    async def _answer(self, writer: asyncio.StreamWriter, words: Words) -> bool:
        reply = b"*%d\r\n" % (len(words) - 1) + b"".join(b"$%d\r\n%b\r\n" % (len(key), key) for key in words[1:])
        kind = self.script(words)
        if kind == "mute":
            await self.let_go.wait()
        elif kind != "now":
            writer.write({"half": reply[: len(reply) // 2], "garbage": b"!?\r\n"}.get(kind, b""))
            with suppress(OSError):
                await writer.drain()
            return kind == "garbage"
        writer.write(reply)
        return True


async def _words(reader: asyncio.StreamReader) -> Words:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[ScriptedServer]:
    """A running scripted server on a free port of the loopback interface."""
    server = ScriptedServer(script)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.let_go.set()
        listening.close()


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def real_server(folder: Path, port: int, *options: str, config: Path | None = None) -> Iterator[None]:
    """The server program on a port, with options such as ``--requirepass``; killed at the end."""
    arguments = [str(find_server()), *([str(config)] if config is not None else [])]
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    with subprocess.Popen(
        [*arguments, *place, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent(os.getpid(), signal.SIGKILL),
    ) as process:
        try:
            give_up = time.monotonic() + 10
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError("the server did not start")
                time.sleep(0.01)
            yield
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""One side of the store client benchmark: one client of Redis, asked for the same two keys again and again.

Run by the interpreter of the environment that has the client's library. Reads commands as JSON lines from standard
input and answers each with one line: ``{"open": name, "path": socket, "port": port, "over": "unix"|"tcp"}`` connects
and checks what a read brings, ``{"reads": n, "readers": r}`` reads. Only the clients that are ours import this project.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import uvloop

PREFIX, USER = "bench", "user-12345"
KEYS = [f"{PREFIX}:seq:{{{USER}}}", f"{PREFIX}:feat:{{{USER}}}"]
Read = Callable[[], Awaitable[Any]]
Place = tuple[str, str, int]  # over, path, port


async def bare(place: Place, stack: AsyncExitStack) -> Read:
    """The least that asyncio and hiredis can do: no time-outs, no errors, nothing when the connection goes."""
    import hiredis

    incomplete = object()
    pack: Callable[[Any], bytes] = hiredis.pack_command  # its own type names a tuple of one word

    class Bare(asyncio.Protocol):
        def __init__(self) -> None:
            self.reader = hiredis.Reader(notEnoughData=incomplete)
            self.futures: deque[asyncio.Future[Any]] = deque()
            self.loop = asyncio.get_running_loop()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            self.reader.feed(data)
            while (reply := self.reader.gets()) is not incomplete:
                self.futures.popleft().set_result(reply)

        def ask(self) -> asyncio.Future[Any]:
            future = self.loop.create_future()
            self.futures.append(future)
            self.transport.write(pack(("MGET", *KEYS)))
            return future

    loop = asyncio.get_running_loop()
    over, path, port = place
    if over == "unix":
        _, protocol = await loop.create_unix_connection(Bare, path)
    else:
        _, protocol = await loop.create_connection(Bare, "127.0.0.1", port)
    stack.callback(protocol.transport.close)
    return protocol.ask


def _settings(place: Place) -> Any:
    from service.settings import StoreSettings

    over, path, port = place
    url = f"unix://{path}" if over == "unix" else f"redis://127.0.0.1:{port}/0"
    # The time-outs run as they do in production, but a pause of this machine is no failure.
    return StoreSettings(url=url, prefix=PREFIX, timeout_ms=1000, connect_timeout_ms=1000)


async def pipelined(place: Place, stack: AsyncExitStack) -> Read:
    from service.behaviours.address import plain_address
    from service.behaviours.pipelined import PipelinedCommands

    settings = _settings(place)
    address = plain_address(settings.url)
    if address is None:
        raise ValueError("the benchmark's address is a plain one")
    commands = PipelinedCommands(settings, address)
    stack.push_async_callback(commands.close)
    return lambda: commands.mget(KEYS)


async def pooled(place: Place, stack: AsyncExitStack) -> Read:
    from service.behaviours.pooled import PoolCommands

    commands = PoolCommands(_settings(place))
    stack.push_async_callback(commands.close)
    return lambda: commands.mget(KEYS)


async def whole_read(place: Place, stack: AsyncExitStack) -> Read:
    """What a request pays: breaker, metrics, the read, both values decoded, the copy kept for bad times."""
    from service.behaviours import open_store
    from service.behaviours.histories import Histories
    from service.metrics import Metrics

    settings = _settings(place)
    histories = Histories(open_store(settings), settings, Metrics())
    stack.push_async_callback(histories.close)

    async def read() -> Any:
        history = await histories.read(USER)
        if history.source != "store":
            raise RuntimeError("the store did not answer within a second; what was timed is no read")
        return history

    return read


async def redis_py(place: Place, stack: AsyncExitStack) -> Read:
    import redis.asyncio

    over, path, port = place
    client = redis.asyncio.Redis(unix_socket_path=path) if over == "unix" else redis.asyncio.Redis(port=port)
    stack.push_async_callback(client.aclose)
    return lambda: client.mget(KEYS)


async def coredis_(place: Place, stack: AsyncExitStack) -> Read:
    import coredis  # type: ignore[import-not-found]  # lives in the peers' environment

    over, path, port = place
    options = {"unix_socket_path": path} if over == "unix" else {"host": "127.0.0.1", "port": port}
    client = await stack.enter_async_context(coredis.Redis(**options))
    return lambda: client.mget(KEYS)


async def glide_(place: Place, stack: AsyncExitStack) -> Read:
    import glide  # type: ignore[import-not-found]  # lives in the peers' environment

    over, _, port = place
    if over == "unix":
        raise NotImplementedError("valkey-glide does not speak over Unix sockets")
    configuration = glide.GlideClientConfiguration([glide.NodeAddress("127.0.0.1", port)])
    client = await glide.GlideClient.create(configuration)
    stack.push_async_callback(client.close)
    return lambda: client.mget(KEYS)


CLIENTS: dict[str, Callable[[Place, AsyncExitStack], Awaitable[Read]]] = {
    "bare": bare,
    "pipelined": pipelined,
    "pooled": pooled,
    "whole_read": whole_read,
    "redis-py": redis_py,
    "coredis": coredis_,
    "valkey-glide": glide_,
}


def digest(reply: Any) -> str:
    """What a read brought, the same for the same values whatever the client's types are."""
    if hasattr(reply, "user"):
        events, features = reply.user.behaviours.tobytes(), reply.user.features
    else:
        sequence, document = (bytes(value) for value in reply)
        events, features = sequence[1:], json.loads(document)  # the format byte is not kept in decoded records
    return hashlib.sha256(events + json.dumps(features, sort_keys=True).encode()).hexdigest()


async def measure(read: Read, reads: int, readers: int) -> dict[str, float]:
    """Microseconds a read: processor time of all threads, and wall time."""

    async def reader() -> None:
        for _ in range(reads // readers):
            await read()

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(reader() for _ in range(readers)))
    done = reads // readers * readers
    return {
        "cpu_us": (time.process_time() - cpu) / done * 1e6,
        "wall_us": (time.perf_counter() - wall) / done * 1e6,
    }


def version_of(name: str) -> str:
    try:
        return importlib.metadata.version({"redis-py": "redis"}.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return ""


async def main() -> None:
    loop = asyncio.get_running_loop()
    # What a library prints is no answer, and a compiled one does not ask Python where standard output is.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    async with AsyncExitStack() as stack:
        read: Read | None = None
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            if "open" in command:
                place = (command["over"], command["path"], command["port"])
                read = await CLIENTS[command["open"]](place, stack)
                answer: dict[str, Any] = {"digest": digest(await read()), "version": version_of(command["open"])}
            elif read is None:
                raise RuntimeError("open a client first")
            else:
                answer = await measure(read, command["reads"], command["readers"])
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    uvloop.run(main())

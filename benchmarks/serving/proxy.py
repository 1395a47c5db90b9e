"""A TCP proxy in front of a store that can be slow, silent, cut off or half broken, switched while it runs.

``python -m benchmarks.serving.proxy SOCKET`` prints its port and then takes the name of a fault on each line of its
standard input: in a process of its own it does not share an event loop with what it disturbs.
"""

import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

_BLOCK = 64 * 1024


class Fault(Enum):
    """What the proxy does with replies."""

    NONE = "none"
    SLOW = "slow"  # every reply comes late
    STALL = "stall"  # connections are accepted, nothing is answered
    RESET = "reset"  # connections are reset
    HALF = "half"  # half of the first reply, then the end


@dataclass
class Proxy:
    """Forward a TCP port to a Unix socket.

    Attributes:
        target: The store's socket.
        fault: What goes wrong now; assign to change it.
        delay_s: Lateness of SLOW.
    """

    target: Path
    fault: Fault = Fault.NONE
    delay_s: float = 0.5
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def switch(self, fault: Fault) -> None:
        """Change the fault; open connections are cut where the new one says so."""
        self.fault = fault
        if fault is Fault.RESET:
            for writer in list(self._writers):
                _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        self._writers.add(writer)
        store_writer: asyncio.StreamWriter | None = None
        try:
            if self.fault is Fault.RESET:
                return
            store_reader, store_writer = await asyncio.open_unix_connection(str(self.target))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, store_writer, replies=False))
                group.create_task(self._pump(store_reader, writer, replies=True))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # either side went away, which is what a proxy is for here
        finally:
            self._writers.discard(writer)
            if task is not None:
                self._tasks.discard(task)
            if store_writer is not None:
                store_writer.close()
            _reset(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        while data := await reader.read(_BLOCK):
            if replies and self.fault is Fault.SLOW:
                await asyncio.sleep(self.delay_s)
            if replies and self.fault is Fault.STALL:
                continue
            if replies and self.fault is Fault.HALF:
                writer.write(data[: max(1, len(data) // 2)])
                await writer.drain()
                break
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            # SO_LINGER 0: closing sends RST instead of FIN
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


@asynccontextmanager
async def proxy_to(target: Path) -> AsyncIterator[Proxy]:
    """A running proxy on a free port of the loopback interface."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()


class ProxyProcess:
    """A proxy in a process of its own; ends with its parent because its standard input does.

    Args:
        target: The store's Unix socket.
    """

    def __init__(self, target: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving.proxy", str(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._line())

    def _line(self) -> str:
        if self._process.stdout is None:
            raise RuntimeError("the proxy has no output")
        return self._process.stdout.readline()

    def switch(self, fault: Fault) -> None:
        """Change the fault; returns when it is on."""
        if self._process.stdin is None:
            raise RuntimeError("the proxy has no input")
        self._process.stdin.write(fault.value + "\n")
        self._process.stdin.flush()
        self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


async def _main(target: Path) -> None:
    loop = asyncio.get_running_loop()
    async with proxy_to(target) as proxy:
        print(proxy.port, flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            proxy.switch(Fault(line.strip()))
            print("on", flush=True)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))

"""The store goes down, comes back slow, comes back: what do callers of /score see?

Run ``python -m benchmarks.serving.outage``; tests run the same drill at a tenth of the requests.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.serving.process import service_process
from benchmarks.serving.proxy import Fault, ProxyProcess
from service.behaviours import EmbeddedServer
from tests.service import tiny_bundle

WORKERS = 4
USERS = 50
# A request of the drill: the store holds the users' histories, so an empty one means that the store was not read.
_CANDIDATES = tiny_bundle.ITEMS[:20]


@dataclass
class Phase:
    """What the callers saw while one fault was on."""

    name: str
    statuses: Counter[int] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    undeclared: int = 0
    ms: list[float] = field(default_factory=list)
    first_store_s: float | None = None
    last_other_s: float = 0.0

    def summary(self) -> dict[str, Any]:
        """JSON of the phase."""
        return {
            "requests": sum(self.statuses.values()),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "sources": dict(self.sources),
            "without_store_and_not_degraded": self.undeclared,
            "p50_ms": round(float(np.percentile(self.ms, 50)), 2),
            "p99_ms": round(float(np.percentile(self.ms, 99)), 2),
            "first_store_after_s": self.first_store_s and round(self.first_store_s, 3),
            "all_store_after_s": round(self.last_other_s, 3),
        }


async def _load(client: httpx.AsyncClient, phase: Phase, requests: int, least_s: float = 0.0) -> None:
    started = time.perf_counter()
    sent = 0

    async def worker() -> None:
        nonlocal sent
        while sent < requests or time.perf_counter() - started < least_s:
            sent += 1
            begun = time.perf_counter()
            body = {"user_id": f"user-{sent % USERS}", "candidates": _CANDIDATES}
            reply = await client.post("/score", json=body)
            now = time.perf_counter()
            phase.ms.append((now - begun) * 1e3)
            phase.statuses[reply.status_code] += 1
            if reply.status_code == 200:
                _count(phase, reply.json(), now - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(worker())


def _count(phase: Phase, reply: dict[str, Any], at_s: float) -> None:
    source = reply["behaviours"]["source"]
    phase.sources[source] += 1
    if source == "store":
        phase.first_store_s = at_s if phase.first_store_s is None else phase.first_store_s
        return
    phase.last_other_s = at_s
    phase.undeclared += not reply["degraded"]


async def _fill(client: httpx.AsyncClient) -> None:
    now = int(time.time())
    for user in range(USERS):
        events = [
            {"user_id": f"user-{user}", "item_id": item, "ts": now - 1000 + place}
            for place, item in enumerate(tiny_bundle.ITEMS)
        ]
        (await client.post("/behaviours", json={"events": events})).raise_for_status()


async def _phases(client: httpx.AsyncClient, proxy: ProxyProcess, requests: int) -> list[Phase]:
    done = []
    quarter = requests // 4
    plan = (
        ("steady", Fault.NONE, quarter, 0.0),
        ("down", Fault.RESET, quarter, 0.0),
        ("slow 500 ms", Fault.SLOW, quarter, 0.0),
        ("back", Fault.NONE, requests - 3 * quarter, 2.5),
    )
    for name, fault, count, least_s in plan:
        proxy.switch(fault)
        phase = Phase(name)
        await _load(client, phase, count, least_s)
        done.append(phase)
    return done


def drill(requests: int = 2000, **store: Any) -> dict[str, Any]:
    """Run the drill: service, store, proxy and callers each in a process of their own.

    Args:
        requests: Requests over all phases; half of them fall into the outage.
        store: Further settings of the store.

    Returns:
        A summary of each phase.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        EmbeddedServer(None) as server,
        ProxyProcess(server.socket_path) as proxy,
    ):
        folder = Path(name)
        tiny_bundle.publish(folder / "models")
        settings = {
            "models.dir": folder / "models",
            "store.url": f"redis://127.0.0.1:{proxy.port}/0",
            "log.requests": False,
        } | {f"store.{key}": value for key, value in store.items()}
        with service_process(folder, settings) as service:
            phases = asyncio.run(_drill(service.url, proxy, requests))
    return {phase.name: phase.summary() for phase in phases}


async def _drill(url: str, proxy: ProxyProcess, requests: int) -> list[Phase]:
    async with httpx.AsyncClient(base_url=url, timeout=10) as client:
        await _fill(client)
        return await _phases(client, proxy, requests)


def main() -> None:
    """Print the drill's result as JSON and keep it beside the other benchmarks."""
    from benchmarks.record import write_record

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--no-cache", action="store_true", help="switch the stale copies off: the empty rung answers")
    arguments = parser.parse_args()
    store = {"cache_ttl_s": 0} if arguments.no_cache else {}
    result = drill(arguments.requests, **store)
    print(json.dumps(result, indent=1))
    write_record("serving-outage-empty" if arguments.no_cache else "serving-outage", result)


if __name__ == "__main__":
    main()

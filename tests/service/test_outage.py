"""The store goes away under load: the drill of benchmarks/serving/outage.py at a tenth of its requests."""

import asyncio
import time
from pathlib import Path

import pytest

from benchmarks.serving.outage import drill
from benchmarks.serving.proxy import Fault, proxy_to
from service.behaviours import EmbeddedServer, StoreError, open_store
from service.settings import StoreSettings


@pytest.mark.parametrize("cache_ttl_s", [0, 300])
def test_an_outage_is_never_a_5xx_and_always_said(cache_ttl_s: int) -> None:
    result = drill(200, cache_ttl_s=cache_ttl_s)
    for phase in result.values():
        assert set(phase["statuses"]) == {"200"}
        assert phase["without_store_and_not_degraded"] == 0
    away = "cache" if cache_ttl_s else "empty"
    assert "store" not in result["down"]["sources"]
    assert away in result["down"]["sources"]
    assert "store" not in result["slow 500 ms"]["sources"]
    back = result["back"]["first_store_after_s"]
    if back > 2:  # beside other tests a probe may find no core within its 8 ms, and the next comes a second later
        back = drill(200, cache_ttl_s=cache_ttl_s)["back"]["first_store_after_s"]
    assert back <= 2


@pytest.mark.parametrize("fault", [Fault.SLOW, Fault.STALL, Fault.RESET, Fault.HALF])
def test_a_fault_costs_no_more_than_the_stores_budget(valkey: EmbeddedServer, fault: Fault) -> None:
    async def run() -> list[float]:
        async with proxy_to(Path(valkey.socket_path)) as proxy:
            settings = StoreSettings(url=f"redis://127.0.0.1:{proxy.port}/0", timeout_ms=50, connect_timeout_ms=100)
            store = open_store(settings)
            await store.ensure_marker()
            proxy.switch(fault)
            seconds = []
            for _ in range(3):
                started = time.perf_counter()
                with pytest.raises(StoreError):
                    await store.read(["u"])
                seconds.append(time.perf_counter() - started)
            proxy.switch(Fault.NONE)
            async with asyncio.timeout(10):
                while True:
                    try:
                        await store.ensure_marker()
                        break
                    except StoreError:
                        continue
            assert len((await store.read(["u"])).users) == 1
            await store.close()
            return seconds

    assert max(asyncio.run(run())) < 1.0

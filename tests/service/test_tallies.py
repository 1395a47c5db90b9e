"""What is gathered and folded against what the metrics library counts one by one."""

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.metrics import Metrics
from service.tallies import Tallies

BOUNDS = (0.001, 0.5, 1.0, 2.5)
EDGES = [0.0, 0.001, float(np.nextafter(0.001, 1)), 0.5, 1.0, 2.5, 1e9, float("inf"), float("nan")]
values = st.floats(0, 5) | st.sampled_from(EDGES)


def exposed(registry: CollectorRegistry) -> list[bytes]:
    return [line for line in generate_latest(registry).splitlines() if b"_created" not in line and b"_sum" not in line]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), values), max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_folding_gives_what_observing_gives(seen: list[tuple[str, float]], folds: list[int]) -> None:
    plain, folded = CollectorRegistry(), CollectorRegistry()
    one_by_one = Histogram("seconds", "s", ["of"], buckets=BOUNDS, registry=plain)
    counted = Counter("times", "t", ["of"], registry=plain)
    level = Gauge("level", "l", registry=plain)
    tallies = Tallies()
    spreads = tallies.spreads(Histogram("seconds", "s", ["of"], buckets=BOUNDS, registry=folded))
    counts = tallies.counts(Counter("times", "t", ["of"], registry=folded))
    held = tallies.level(Gauge("level", "l", registry=folded))
    for place, (of, value) in enumerate(seen):
        one_by_one.labels(of).observe(value)
        spreads.labels(of).observe(value)
        counted.labels(of).inc(place)
        counts.labels(of).inc(place)
        level.set(place)
        held.set(place)
        if place in folds:
            tallies.fold()
    tallies.fold()
    assert exposed(folded) == exposed(plain)
    for of in {of for of, _ in seen}:
        sums = [registry.get_sample_value("seconds_sum", {"of": of}) for registry in (plain, folded)]
        assert sums[0] is not None
        assert sums[1] is not None
        np.testing.assert_allclose(sums[1], sums[0], rtol=1e-12)


def test_a_busy_series_folds_by_itself() -> None:
    registry = CollectorRegistry()
    spread = Tallies().spread(Histogram("seconds", "s", buckets=BOUNDS, registry=registry))
    for _ in range(5000):
        spread.observe(0.1)
    assert registry.get_sample_value("seconds_count") == 4096


def test_numbers_arrive_without_a_scrape() -> None:
    async def run() -> None:
        registry = CollectorRegistry()
        tallies = Tallies()
        count = tallies.count(Counter("times", "t", registry=registry))
        tallies.start(0.001)
        count.inc(2)
        async with asyncio.timeout(5):
            while registry.get_sample_value("times_total") != 2:
                await asyncio.sleep(0.001)
        count.inc()
        tallies.stop()
        assert registry.get_sample_value("times_total") == 3

    asyncio.run(run())


def test_a_scrape_has_everything_up_to_now() -> None:
    metrics = Metrics()
    metrics.requests.labels("/score", "POST", "200").inc()
    metrics.stages["wait"].observe(0.003)
    metrics.in_flight.set(7)
    text = metrics.exposition().decode()
    assert 'ctrlift_http_requests_total{method="POST",route="/score",status="200"} 1.0' in text
    assert 'ctrlift_stage_seconds_bucket{le="0.004",stage="wait"} 1.0' in text
    assert 'ctrlift_stage_seconds_bucket{le="0.002",stage="wait"} 0.0' in text
    assert "ctrlift_in_flight 7.0" in text

"""POST /uplift for 1,000 users and 4 treatments against calling the same graph directly, by CPU time.

Run ``python -m benchmarks.serving.uplift_throughput``. The service runs in a process of its own and its user plus
system time is counted; the graph alone runs here on inputs that are ready, with the same options and one thread. Rounds
of both take turns, so that whatever else the machine does falls on both. Before anything is timed, both have to give
the same outcomes.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.record import write_record
from benchmarks.serving.campaign_bundle import ARMS, IDS, NUMBERS, campaign_bundle, people
from benchmarks.serving.load import Closed, target
from benchmarks.serving.rounds import Measure, in_turns, ratios
from benchmarks.serving.running import put_load, service
from bundle import effects
from bundle.population import Person, UpliftQuery
from service.behaviours import EmbeddedServer
from service.core.uplift_version import UpliftVersion, load_uplift

USERS = 1000
TOLERANCE = 1e-6
# At their published sizes: three layers of 200, heads of two layers of 100.
NETWORKS = {"dragonnet": ("dragonnet", 1), "tarnet, five members": ("tarnet", 5)}


def bodies(store: bool) -> tuple[bytes, list[dict[str, Any]]]:
    """The request with its users' features, or with their ids alone; and the features to store."""
    columns = people(USERS, seed=1)
    names = (*NUMBERS, *IDS)
    users = [
        {"user_id": columns["user"][row], "features": {name: columns[name][row] for name in names}}
        for row in range(USERS)
    ]
    asked = [{"user_id": user["user_id"]} for user in users] if store else users
    return orjson.dumps({"users": asked}), users


def direct(version: UpliftVersion, users: list[dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """A call of the graph on the encoded users."""
    query = UpliftQuery([Person(user["user_id"], user["features"]) for user in users], 0.0)
    inputs = version.encode(version.population(query, None)).take(None)
    return lambda: version.network.raw(inputs)


def check(version: UpliftVersion, call: Callable[[], dict[str, Any]], reply: dict[str, Any]) -> float:
    """Largest difference between the outcomes of both; raises where it is more than rounding."""
    expected = effects.outcomes(call()["outcome_logits"], version.part.outcome)
    got = np.array([[user["outcomes"][arm] for arm in ARMS] for user in reply["users"]])
    difference = float(np.abs(got - expected).max())
    if not difference <= TOLERANCE:
        raise SystemExit(f"the service and the graph differ by {difference:.2g}: nothing was timed")
    return difference


def measure(bundle: Path, *, stored: bool, rounds: int, count: int) -> dict[str, Any]:
    """Time one bundle both ways.

    Args:
        bundle: of kind uplift, in a model store that holds it alone.
        stored: the store holds the features, and the request the ids.
        rounds: of both sides.
        count: requests, and calls, in a round.
    """
    version = load_uplift(bundle)
    body, users = bodies(stored)
    call = direct(version, users)
    settings = {"store.timeout_us_per_key": 200}
    with ExitStack() as stack:
        # Started here and not by the service, so that its CPU time is not counted as the service's.
        url = stack.enter_context(EmbeddedServer(None)).url if stored else "memory://"
        server = stack.enter_context(service(bundle.parent.parent, url, settings))
        if stored:
            server.post("/users", orjson.dumps({"users": users}))
        reply = server.post("/uplift", body)
        difference = check(version, call, reply)
        where, plan = target(server.url, "/uplift", [body]), Closed(connections=1, requests=count)

        def request_ms() -> float:
            return put_load(server, where, plan).cpu_us / 1e3

        sides = {"graph": calls_ms(call, count), "request": request_ms}
        for side in sides.values():
            side()
        found = in_turns(sides, rounds)
    quotients = ratios(found["graph"], found["request"])
    return {
        "largest_difference": difference,
        "graph_cpu_ms": round(statistics.median(found["graph"]), 3),
        "request_cpu_ms": round(statistics.median(found["request"]), 3),
        "ratio": round(statistics.median(quotients), 3),
        "ratios": [round(quotient, 3) for quotient in quotients],
        "body_bytes": len(body),
        "reply_bytes": len(orjson.dumps(reply)),
    }


def calls_ms(call: Callable[[], object], count: int) -> Measure:
    """A measure of this process's CPU time a call in ms."""

    def measured() -> float:
        started = time.process_time()
        for _ in range(count):
            call()
        return (time.process_time() - started) / count * 1e3

    return measured


def main() -> None:
    """Print the result as JSON and keep it beside the other benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=30, help="of each side in a round")
    parser.add_argument(
        "--store", type=Path, help="a model store with <network>-<members>/campaign/1.0.0 from an earlier run"
    )
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "users": USERS,
        "treatments": len(ARMS) - 1,
        "features": len(NUMBERS) + len(IDS),
        "rounds": arguments.rounds,
        "requests": arguments.requests,
        "measure": "CPU time; ratio = CPU of the graph alone / CPU of the service, a request each; medians of rounds",
        "bar": 0.60,
        "aim": 0.85,
    }
    with tempfile.TemporaryDirectory() as folder:
        for label, (network, members) in NETWORKS.items():
            store = (arguments.store or Path(folder)) / f"{network}-{members}"
            bundle = store / "campaign" / "1.0.0"
            if not bundle.is_dir():
                campaign_bundle(store, network, members)
            for stored in (False, True):
                name = f"{label}, {'features in the store' if stored else 'features in the request'}"
                found[name] = measure(bundle, stored=stored, rounds=arguments.rounds, count=arguments.requests)
    print(json.dumps(found, indent=1))
    write_record("serving-uplift-throughput", found)


if __name__ == "__main__":
    main()

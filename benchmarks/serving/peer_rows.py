"""Other ways to serve the same network beside the service, one after the other, each in turns with it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.direct import expected, open_direct
from benchmarks.serving.load import Closed
from benchmarks.serving.peers.answering import Given
from benchmarks.serving.peers.environments import PEERS, NotInstalled, versions
from benchmarks.serving.peers.starting import peer_server
from benchmarks.serving.rounds import ratios, summary
from benchmarks.serving.running import Server, Slice, check_scores, put_load
from benchmarks.serving.service_rows import CLIENTS, stored_service
from benchmarks.serving.slates import Slate, SlateSizes, slates
from benchmarks.serving.speed_bundle import SpeedFiles
from benchmarks.serving.variants import ONNX, variants

PLAIN: Final = "plain FastAPI, history-repeated graph"
_CHECKED: Final = 4


@dataclass(frozen=True, slots=True)
class PeerRun:
    """What all peers are measured with.

    Attributes:
        files: of the network.
        socket: of the behaviour store.
        peers: folder of the environments.
        rounds: of both sides.
        slice_s: of each side in a round.
    """

    files: SpeedFiles
    socket: Path
    peers: Path
    rounds: int
    slice_s: float


def peer_rows(run: PeerRun) -> dict[str, Any]:
    """Every peer under eight clients in turns with the service, on the same graph and with the same store.

    Returns:
        ``peers`` by title with requests a second, CPU time and how much more the service does: ``over``, on the same
        graph, and ``over_with_fastest``, with the fastest way that the service can run it here; and ``missing``, the
        reason by title.

    Raises:
        ScoresDiffer: if a peer does not give the same scores.
    """
    if run.files.repeated is None:
        raise ValueError("files must have the history-repeated graph, got a bundle alone")
    made = slates(SlateSizes())
    direct = open_direct(run.files.bundle, ONNX)
    wanted = expected(direct.version, made[:_CHECKED])
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        url = f"unix://{run.socket}"
        ours = {
            variant.name: stored_service(stack, run.files.store, url, made, variant.settings)
            for variant in (ONNX, *variants()[1:])
        }
        for title, name, repeats in contestants():
            graph = run.files.repeated if repeats else run.files.bundle / "model.onnx"
            given = Given(run.files.bundle, graph, repeats, str(run.socket), 0)
            try:
                with peer_server(run.peers, name, given, made[0]) as peer:
                    difference = check_scores(peer, made[:_CHECKED], wanted)
                    found[title] = _beside(run, ours, peer, made) | {"largest_difference": difference}
                found[title] |= {"full_framework": PEERS[name].full, "versions": versions(run.peers, name)}
            except NotInstalled as reason:
                missing[title] = str(reason)
    return {"clients": CLIENTS, "peers": found, "missing": missing}


def contestants() -> list[tuple[str, str, bool]]:
    """Title, name of the environment, and whether the history is repeated."""
    return [(PLAIN, "fastapi", True), *((peer.title, name, False) for name, peer in PEERS.items())]


def _beside(run: PeerRun, ours: dict[str, Server], peer: Server, made: list[Slate]) -> dict[str, Any]:
    sides = {**ours, "peer": peer}
    plans = {}
    for name, server in sides.items():
        first = put_load(server, server.target(made), Closed(connections=CLIENTS, requests=60))
        plans[name] = Closed(connections=CLIENTS, requests=max(60, round(first.load.per_second * run.slice_s)))
    found: dict[str, list[Slice]] = {name: [] for name in sides}
    for _ in range(run.rounds):
        for name, server in sides.items():
            found[name].append(put_load(server, server.target(made), plans[name]))
    rates = {name: [part.load.per_second for part in parts] for name, parts in found.items()}
    costs = {name: [part.cpu_us for part in parts] for name, parts in found.items()}
    fastest = list(ours)[-1]
    theirs = found["peer"]
    return {
        "over": summary(ratios(rates[ONNX.name], rates["peer"]), 3),
        "over_with_fastest": summary(ratios(rates[fastest], rates["peer"]), 3),
        "cpu_over": summary(ratios(costs["peer"], costs[ONNX.name]), 3),
        "cpu_over_with_fastest": summary(ratios(costs["peer"], costs[fastest]), 3),
        "requests_per_second": summary(rates["peer"], 1),
        "request_cpu_us": summary(costs["peer"], 1),
        "cores": summary([part.cores for part in theirs], 3),
        "p50_ms": summary([part.load.p50_ms for part in theirs], 2),
        "p99_ms": summary([part.load.p99_ms for part in theirs], 2),
        "service": {
            name: {"requests_per_second": summary(rates[name], 1), "request_cpu_us": summary(costs[name], 1)}
            for name in ours
        },
    }

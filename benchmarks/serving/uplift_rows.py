"""POST /uplift beside the direct call of the same graph, and over users and treatments."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.serving.campaign_bundle import ARMS, IDS, NUMBERS, campaign_bundle, people
from benchmarks.serving.load import Closed, target
from benchmarks.serving.running import put_load, service
from benchmarks.serving.uplift_throughput import measure

USERS: Final = (1, 10, 100, 1000)
TREATMENTS: Final = (1, 2, 4)
_ROOT: Final = Path(__file__).resolve().parents[2]
_SOURCES: Final = ("models/**/*.py", "training/**/*.py", "bundle/*.py", "benchmarks/serving/campaign_bundle.py")


def cached_campaign(folder: Path, network: str = "dragonnet", members: int = 1) -> Path:
    """A bundle of effects of four treatments, trained for a moment once and kept in the folder."""
    digest = hashlib.sha256(f"{network} {members} {version('torch')} {version('onnxruntime')}".encode())
    for pattern in _SOURCES:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    place = folder / f"campaign-{digest.hexdigest()[:16]}"
    if not place.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=folder) as scratch:
            campaign_bundle(Path(scratch) / "made", network, members)
            shutil.rmtree(place, ignore_errors=True)
            os.replace(Path(scratch) / "made", place)
    return place / "campaign" / "1.0.0"


def uplift_rows(bundle: Path, rounds: int, count: int, *, both: bool) -> dict[str, Any]:
    """1,000 users and 4 treatments, features in the request and, if ``both``, in the store."""
    found = {"features in the request": measure(bundle, stored=False, rounds=rounds, count=count)}
    if both:
        found["features in the store"] = measure(bundle, stored=True, rounds=rounds, count=count)
    return found


def uplift_curve(bundle: Path) -> list[dict[str, Any]]:
    """CPU time and latency over numbers of users and of treatments, one client."""
    columns = people(max(USERS), seed=1)
    names = (*NUMBERS, *IDS)
    users = [
        {"user_id": columns["user"][row], "features": {name: columns[name][row] for name in names}}
        for row in range(max(USERS))
    ]
    found = []
    with service(bundle.parent.parent, "memory://") as server:
        for count in USERS:
            for treatments in TREATMENTS:
                body = orjson.dumps({"users": users[:count], "treatments": list(ARMS[1 : 1 + treatments])})
                plan = Closed(connections=1, requests=max(10, min(200, 4000 // count)))
                part = put_load(server, target(server.url, "/uplift", [body]), plan)
                found.append(
                    {
                        "users": count,
                        "treatments": treatments,
                        "cpu_ms": round(part.cpu_us / 1e3, 3),
                        "cpu_us_a_user": round(part.cpu_us / count, 2),
                        "p50_ms": round(part.load.p50_ms, 3),
                        "p99_ms": round(part.load.p99_ms, 3),
                    }
                )
    return found

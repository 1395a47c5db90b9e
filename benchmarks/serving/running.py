"""Servers under load: the service as ``ctrlift serve`` runs it, or anything else that answers slates."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.serving.costs import process_tree, tree_cpu_seconds
from benchmarks.serving.load import Closed, Load, LoadFailed, Open, Target, generator, target
from benchmarks.serving.process import service_process
from benchmarks.serving.slates import Slate, event_bodies

TOLERANCE: Final = 1e-5
# A closed loop of many callers waits longer than a caller of a real service would; no answer is given up.
DEADLINE_MS: Final = 30_000
_TIMEOUT_S: Final = 60.0


class ScoresDiffer(RuntimeError):
    """Two sides of a comparison gave different scores, so nothing was timed."""


@dataclass(frozen=True, slots=True)
class Server:
    """Something that answers slates.

    Attributes:
        name: for messages.
        url: its address.
        pid: of its first process; its descendants belong to it.
        path: of the requests.
        task: whose scores are compared.
    """

    name: str
    url: str
    pid: int
    path: str = "/score"
    task: str = "pctr"

    def target(self, made: Sequence[Slate]) -> Target:
        """The slates as requests to it."""
        return target(self.url, self.path, [slate.body for slate in made])

    def post(self, path: str, body: bytes) -> Any:
        """One request outside any measurement.

        Raises:
            LoadFailed: if the answer is not a 200.
        """
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        try:
            connection.request("POST", path, body, {"content-type": "application/json"})
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        if reply.status != 200:
            raise LoadFailed(f"{self.name} answered {reply.status} to POST {path}: {content[:300]!r}")
        return orjson.loads(content)

    def store(self, made: Sequence[Slate]) -> None:
        """Have it store the histories; the service alone can."""
        for body in event_bodies(list(made)):
            self.post("/behaviours", body)

    def scores(self, slate: Slate) -> NDArray[np.float64]:
        """What it says to one slate, (C,)."""
        return np.array(self.post(self.path, slate.body)["scores"][self.task])


@dataclass(frozen=True, slots=True)
class Slice:
    """One stretch of load.

    Attributes:
        load: what the generator saw.
        cpu_us: user plus system time of the server's processes a request.
        cores: how many cores they kept busy.
    """

    load: Load
    cpu_us: float
    cores: float


def check_scores(server: Server, made: Sequence[Slate], expected: Sequence[NDArray[np.float64]]) -> float:
    """The largest difference between a server's scores and those expected, one (C,) a slate.

    Raises:
        ScoresDiffer: if it is above 1e-5.
    """
    return largest(server.name, [(server.scores(slate), wanted) for slate, wanted in zip(made, expected, strict=True)])


def largest(name: str, pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """The largest difference over pairs of scores.

    Raises:
        ScoresDiffer: if it is above 1e-5, or shapes differ.
    """
    differences = []
    for got, wanted in pairs:
        if got.shape != wanted.shape:
            raise ScoresDiffer(f"{name} gave scores of shape {got.shape}, expected {wanted.shape}: nothing was timed")
        differences.append(np.abs(got - wanted).max())
    found = float(np.max(differences))  # NumPy's, which keeps a NaN
    if not found <= TOLERANCE:
        raise ScoresDiffer(f"the scores of {name} differ by {found:.2g}, allowed is {TOLERANCE:g}: nothing was timed")
    return found


def put_load(server: Server, where: Target, plan: Closed | Open) -> Slice:
    """Put load on a server and count its CPU time meanwhile.

    Args:
        server: whose processes are counted.
        where: its address with the requests.
        plan: how they are sent.

    Raises:
        LoadFailed: if an answer is not a 200.
    """
    with tempfile.TemporaryDirectory() as folder, generator(where, plan, Path(folder)) as ready:
        pids = process_tree(server.pid)
        before = tree_cpu_seconds(pids)
        load = ready.run()
        spent = tree_cpu_seconds(pids) - before
    if load.errors:
        raise LoadFailed(f"{server.name}: {load.errors} of {load.requests} answers were no 200")
    return Slice(load, spent / load.requests * 1e6, spent / load.seconds)


@contextmanager
def service(models: Path, store_url: str, settings: Mapping[str, Any] | None = None) -> Iterator[Server]:
    """Our service with one engine thread a worker, no request log and a long deadline; the rest as it comes.

    Args:
        models: the model store.
        store_url: of the behaviour store.
        settings: further ones by dotted key.
    """
    given = {
        "models.dir": models,
        "store.url": store_url,
        "log.requests": False,
        "threads.engine": 1,
        "limits.deadline_ms": DEADLINE_MS,
    }
    with tempfile.TemporaryDirectory() as folder, service_process(Path(folder), given | dict(settings or {})) as run:
        yield Server("the service", run.url, run.process.pid)

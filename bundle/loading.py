"""Opening a bundle: every file is vouched for before any of it is parsed.

Order: manifest (size, schema version, content) - names, kinds and sizes of the files - digests - schema, items and
golden rows. The graph is parsed by the caller, after this. Only `BundleRefused` comes out.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle.conformal import CONFORMAL_FILE, Conformal
from bundle.correct import Correction
from bundle.encode import Encoder
from bundle.errors import BundleRefused, SchemaError
from bundle.files import digest_of, open_plain, sha256_of
from bundle.fitting import ITEMS_FILE, SCHEMA_FILE, VOCAB_FILE, FittedSchema
from bundle.golden import GOLDEN_FILE, GoldenRow, read_golden
from bundle.graph_tables import TABLES_FILE, Graph
from bundle.manifest import (
    GRAPH_FILES,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    SAMPLES_FILES,
    FileEntry,
    Manifest,
    parse_manifest,
)
from bundle.stages import OPERATORS_FILE, STAGES_FILE, Stages, parse_parameters, parse_stages
from bundle.uplift_golden import UPLIFT_GOLDEN_FILE, UpliftGoldenRow, read_uplift_golden

REQUIRED: Final = (SCHEMA_FILE, VOCAB_FILE, ITEMS_FILE)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a bundle may weigh."""

    file_bytes: int = 4 * 1024**3
    total_bytes: int = 8 * 1024**3
    files: int = 64


@dataclass(frozen=True)
class Bundle:
    """A verified bundle; only its graphs have not been parsed.

    Attributes:
        golden: of kind ctr; else empty.
        uplift_golden: of kind uplift; else empty.
        conformal: what conformal intervals are made of, where the manifest says that the bundle has it.
        tables: the file of embedding tables, (bytes,) uint8, mapped and read-only; None where the bundle has none.
    """

    path: Path
    manifest: Manifest
    fitted: FittedSchema
    golden: list[GoldenRow]
    uplift_golden: list[UpliftGoldenRow] = field(default_factory=list)
    conformal: Conformal | None = None
    tables: NDArray[np.uint8] | None = None

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

    def graph(self, graph_format: str) -> Graph:
        """The graph, read once and checked against its digest in the same breath.

        A path that is checked first and opened later can be exchanged in between; a parser given these bytes gets
        exactly what the manifest vouches for.

        Raises:
            BundleRefused: graph_missing, file_unreadable, digest.
        """
        return self.graph_file(self.graph_path(graph_format).name)

    def samples_graph(self, graph_format: str) -> Graph:
        """The second graph, which gives samples of the outcomes; see `graph`.

        Raises:
            BundleRefused: graph_missing, file_unreadable, digest.
        """
        name = SAMPLES_FILES.get(graph_format)
        if name is None or name not in self.manifest.files:
            raise BundleRefused("graph_missing", f"the bundle has no samples graph in format {graph_format!r}")
        return self.graph_file(name)

    def graph_file(self, name: str) -> Graph:
        """Any graph that the manifest lists; see `graph`.

        Raises:
            BundleRefused: graph_missing, file_unreadable, digest.
        """
        if name not in self.manifest.files:
            raise BundleRefused("graph_missing", f"the bundle has no graph {name!r}")
        return Graph(self._verified(name), self.tables, self.path)

    @property
    def has_stages(self) -> bool:
        """The ONNX graph is there a second time, cut around its operators."""
        return STAGES_FILE in self.manifest.files

    def stages(self) -> tuple[Stages, dict[int, list[NDArray[np.float32]]]]:
        """How the cut graph runs, and its operators' parameters by stage.

        Raises:
            BundleRefused: graph_missing, file_unreadable, digest.
            ValueError: One of the files is not usable.
        """
        if not self.has_stages or OPERATORS_FILE not in self.manifest.files:
            raise BundleRefused("graph_missing", "the bundle has no graph in stages")
        stages = parse_stages(self._verified(STAGES_FILE))
        return stages, parse_parameters(self._verified(OPERATORS_FILE), stages)

    def _verified(self, name: str) -> bytes:
        entry = self.manifest.files[name]
        try:
            with open_plain(self.path / name) as file:
                content = file.read(entry.size + 1)
        except OSError as error:
            raise BundleRefused("file_unreadable", f"{name} cannot be read: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleRefused("digest", f"{name} does not have the digest that the manifest says")
        return content


def open_bundle(path: Path, limits: Limits | None = None) -> Bundle:
    """Verify and open a bundle.

    Raises:
        BundleRefused: with `reason` one of not_a_folder, manifest_missing, manifest_too_large, manifest_damaged,
            schema_version, file_missing, file_undeclared, file_kind, file_size, too_large, digest, file_unreadable,
            schema_damaged, schema_differs, golden_damaged, conformal_damaged, graph_missing. The message names the
            file.
    """
    if path.is_symlink() or not path.is_dir():
        raise BundleRefused("not_a_folder", f"{path.name} is not a folder")
    manifest = read_manifest(path)
    _check_listing(path, manifest, limits or Limits())
    for name, entry in manifest.files.items():
        if name != TABLES_FILE:
            _check_digest(path / name, entry)
    tables = _mapped(path / TABLES_FILE, manifest.files.get(TABLES_FILE))
    try:
        fitted = FittedSchema.load(path, mapped=True)
    except (SchemaError, ValueError, OSError) as error:
        raise BundleRefused("schema_damaged", f"{SCHEMA_FILE} or its arrays are not usable: {error}") from error
    if manifest.uplift is not None:
        return _uplift_bundle(path, manifest, fitted, tables)
    try:
        golden = read_golden(path / GOLDEN_FILE, manifest.tasks)
    except (ValueError, OSError) as error:
        raise BundleRefused("golden_damaged", f"{GOLDEN_FILE} is not usable: {error}") from error
    return Bundle(path, manifest, fitted, golden, tables=tables)


def _uplift_bundle(path: Path, manifest: Manifest, fitted: FittedSchema, tables: NDArray[np.uint8] | None) -> Bundle:
    """The parts that only bundles of kind uplift have."""
    part, treatment = manifest.uplift, fitted.schema.treatment
    if part is None or treatment is None or treatment.arms != part.treatments:
        raise BundleRefused("schema_differs", f"{SCHEMA_FILE} declares other treatments than {MANIFEST_FILE}")
    try:
        golden = read_uplift_golden(path / UPLIFT_GOLDEN_FILE, [output.name for output in manifest.outputs])
    except (ValueError, OSError) as error:
        raise BundleRefused("golden_damaged", f"{UPLIFT_GOLDEN_FILE} is not usable: {error}") from error
    try:
        conformal = Conformal.load(path / CONFORMAL_FILE, len(part.treatments)) if part.conformal else None
    except (ValueError, OSError) as error:
        raise BundleRefused("conformal_damaged", f"{CONFORMAL_FILE} is not usable: {error}") from error
    return Bundle(path, manifest, fitted, [], golden, conformal, tables)


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


def _needed_files(manifest: Manifest) -> tuple[str, ...]:
    """Files that a bundle of this kind cannot do without, its graphs apart."""
    part = manifest.uplift
    if part is None:
        return (*REQUIRED, GOLDEN_FILE)
    # Whatever format the graph is served in, its samples must be there in the same one.
    formats = [kind for kind, name in GRAPH_FILES.items() if name in manifest.files] if part.samples else []
    conformal = (CONFORMAL_FILE,) if part.conformal else ()
    return (*REQUIRED, UPLIFT_GOLDEN_FILE, *conformal, *(SAMPLES_FILES[kind] for kind in formats))


def _check_listing(folder: Path, manifest: Manifest, limits: Limits) -> None:
    """Compare the folder's entries with the manifest by name, kind and size, without opening any."""
    files: Mapping[str, FileEntry] = manifest.files
    for name in _needed_files(manifest):
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


def _mapped(path: Path, entry: FileEntry | None) -> NDArray[np.uint8] | None:
    """The file's content as the pages that all processes share, after its digest was checked.

    It is digested and mapped through one descriptor, so what was checked is what is used. The pages stay the file's:
    a published bundle must not be written to, only removed or replaced.
    """
    if entry is None:
        return None
    try:
        with open_plain(path) as file:
            if digest_of(file)[0] != entry.sha256:
                raise BundleRefused("digest", f"{path.name} does not have the digest that the manifest says")
            return np.memmap(file, dtype=np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError) as error:
        raise BundleRefused("file_unreadable", f"{path.name} cannot be read: {error}") from error

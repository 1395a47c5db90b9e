"""Writing the files of one bundle into an empty folder. `ModelStore.publish` gives that folder its name."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundle.conformal import CONFORMAL_FILE, Conformal
from bundle.files import sha256_of
from bundle.fitting import FittedSchema
from bundle.golden import GOLDEN_FILE, GoldenRow, write_golden
from bundle.graph_tables import TABLES_FILE
from bundle.manifest import FILE_NAME, GRAPH_FILES, MANIFEST_FILE, SAMPLES_FILES, FileEntry, Manifest
from bundle.stages import stage_files
from bundle.uplift_golden import UPLIFT_GOLDEN_FILE, UpliftGoldenRow, write_uplift_golden

CARD_FILE = "card.html"


def write_bundle_files(
    folder: Path,
    manifest: Manifest,
    fitted: FittedSchema,
    golden: Sequence[GoldenRow],
    graphs: Mapping[str, Path],
    extra: Mapping[str, bytes] | None = None,
    card: Callable[[Mapping[str, FileEntry]], str] | None = None,
) -> Manifest:
    """Write everything but the manifest, take the digests, write the manifest last.

    Args:
        folder: empty; what else lies in it becomes part of the bundle.
        manifest: without `files`.
        fitted: the declaration with what was learned.
        golden: requests to replay at every load.
        graphs: format (onnx, torchscript) to the exported file, which is copied.
        extra: further files by name.
        card: makes the HTML of the model card from the digests of all other files.

    Returns:
        The manifest as written.

    Raises:
        ValueError: for an unknown graph format, no graph, or golden rows that do not fit.
    """
    _check_graphs(graphs)
    fitted.save(folder)
    write_golden(folder / GOLDEN_FILE, golden, manifest.tasks)
    _copy(folder, graphs, GRAPH_FILES)
    return _finish(folder, manifest, extra or {}, card)


@dataclass(frozen=True, slots=True)
class UpliftFiles:
    """What goes into a bundle of kind uplift besides its declaration.

    Attributes:
        golden: requests to replay at every load.
        graphs: format (onnx, torchscript) to the exported file, which is copied.
        samples: the same for the second graph, where the manifest says that there is one.
        conformal: where the manifest says so.
        extra: further files by name.
        card: makes the HTML of the model card from the digests of all other files.
    """

    golden: Sequence[UpliftGoldenRow]
    graphs: Mapping[str, Path]
    samples: Mapping[str, Path] = field(default_factory=dict)
    conformal: Conformal | None = None
    extra: Mapping[str, bytes] = field(default_factory=dict)
    card: Callable[[Mapping[str, FileEntry]], str] | None = None


def write_uplift_files(folder: Path, manifest: Manifest, fitted: FittedSchema, files: UpliftFiles) -> Manifest:
    """Write a bundle of kind uplift: everything but the manifest, the digests, then the manifest.

    Args:
        folder: empty; what else lies in it becomes part of the bundle.
        manifest: without `files`.
        fitted: the declaration with what was learned.
        files: the rest.

    Returns:
        The manifest as written.

    Raises:
        ValueError: if the parts are not those that the manifest names, or golden rows do not fit.
    """
    part = manifest.uplift
    if part is None:
        raise ValueError("the manifest is not of kind uplift")
    _check_graphs(files.graphs)
    formats = set(files.graphs) if part.samples else set()
    if set(files.samples) != formats:
        raise ValueError(f"samples must be given as {sorted(formats)}, got {sorted(files.samples)}")
    if (files.conformal is not None) != part.conformal:
        raise ValueError("conformal must be given where the manifest says so, and only there")
    fitted.save(folder)
    write_uplift_golden(folder / UPLIFT_GOLDEN_FILE, files.golden, [output.name for output in manifest.outputs])
    _copy(folder, files.graphs, GRAPH_FILES)
    _copy(folder, files.samples, SAMPLES_FILES)
    if files.conformal is not None:
        files.conformal.save(folder / CONFORMAL_FILE)
    return _finish(folder, manifest, files.extra, files.card)


def _check_graphs(graphs: Mapping[str, Path]) -> None:
    unknown = sorted(set(graphs) - set(GRAPH_FILES))
    if unknown or not graphs:
        raise ValueError(f"graphs must be given as {sorted(GRAPH_FILES)}, got {sorted(graphs)}")


def _copy(folder: Path, graphs: Mapping[str, Path], names: Mapping[str, str]) -> None:
    """Copy graphs, and what lies beside an ONNX graph: the tables that it shares, and its pieces where it was cut."""
    for kind, path in graphs.items():
        shutil.copyfile(path, folder / names[kind])
        if kind == "onnx":
            for found in (path.with_name(TABLES_FILE), *stage_files(path.parent)):
                if found.is_file():
                    shutil.copyfile(found, folder / found.name)


def _finish(
    folder: Path,
    manifest: Manifest,
    extra: Mapping[str, bytes],
    card: Callable[[Mapping[str, FileEntry]], str] | None,
) -> Manifest:
    """Further files, the card, and the manifest with the digest of all of them."""
    for name, content in extra.items():
        if not FILE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the plain name of a file")
        with (folder / name).open("xb") as file:  # x: an extra must not replace a file of the bundle
            file.write(content)
    files = _entries(folder)
    if card is not None:
        (folder / CARD_FILE).write_text(card(files), encoding="utf-8")
        files = _entries(folder)
    # Validated again rather than copied, so that what is written is what a reader accepts.
    written = Manifest.model_validate(manifest.model_dump() | {"files": files})
    (folder / MANIFEST_FILE).write_text(written.to_text(), encoding="utf-8")
    return written


def _entries(folder: Path) -> dict[str, FileEntry]:
    entries = {}
    for path in sorted(folder.iterdir()):
        digest, size = sha256_of(path)
        entries[path.name] = FileEntry(sha256=digest, size=size)
    return entries

"""Writing the files of one bundle into an empty folder. `ModelStore.publish` gives that folder its name."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bundle.files import sha256_of
from bundle.fitting import FittedSchema
from bundle.golden import GOLDEN_FILE, GoldenRow, write_golden
from bundle.manifest import FILE_NAME, GRAPH_FILES, MANIFEST_FILE, FileEntry, Manifest

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
    unknown = sorted(set(graphs) - set(GRAPH_FILES))
    if unknown or not graphs:
        raise ValueError(f"graphs must be given as {sorted(GRAPH_FILES)}, got {sorted(graphs)}")
    fitted.save(folder)
    write_golden(folder / GOLDEN_FILE, golden, manifest.tasks)
    for kind, path in graphs.items():
        shutil.copyfile(path, folder / GRAPH_FILES[kind])
    for name, content in (extra or {}).items():
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

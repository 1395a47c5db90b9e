"""Reading and writing files of a folder that somebody else may have prepared."""

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

_BLOCK: Final = 1024 * 1024


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file for reading. Links are not followed and a FIFO or device never blocks or is read.

    Raises:
        OSError: if it is missing, a link, or not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:  # whatever happens, the descriptor must not leak; it is raised again
        os.close(descriptor)
        raise


def sha256_of(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a regular file, read in blocks.

    Raises:
        OSError: as `open_plain`.
    """
    with open_plain(path) as file:
        return digest_of(file)


def digest_of(file: BinaryIO) -> tuple[str, int]:
    """SHA-256 and size of what is left of an open file, read in blocks.

    Raises:
        OSError: if it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file below a folder, and the folder itself, durable."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            sync_tree(path)
            continue
        with open_plain(path) as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new one, also after a crash."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)

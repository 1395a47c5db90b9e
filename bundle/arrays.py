"""Named arrays in one .npz file, read as data only: no pickle, no compression, sizes checked before allocation."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_BYTES: Final = 2 * 1024**3
_SUFFIX: Final = ".npy"
_ALIGNMENT: Final = 64
_LOCAL_HEADER: Final = 30  # bytes of a member's header before its name
_ZIP64_EXTRA: Final = 20
_PADDING_EXTRA: Final = struct.Struct("<HH")
_PADDING_ID: Final = 0xD935  # the number that other tools give to padding; readers pass over what they do not know


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name, uncompressed and aligned, so that they can be used where they lie.

    Equal arrays give equal bytes.

    Raises:
        ValueError: for an array of Python objects.
    """
    # Not np.savez: its keywords would clash with an array called "file", and names here come from a declaration.
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(name + _SUFFIX)
            entry.extra = _padding(file.tell() + _LOCAL_HEADER + len(entry.filename.encode()) + _ZIP64_EXTRA)
            with archive.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), allow_pickle=False)


def _padding(start: int) -> bytes:
    """What moves a member's content from `start` to an aligned place; numpy aligns the values within it."""
    empty = -(start + _PADDING_EXTRA.size) % _ALIGNMENT
    return _PADDING_EXTRA.pack(_PADDING_ID, empty) + bytes(empty)


def read_npz(path: Path, max_bytes: int = MAX_BYTES, *, mapped: bool = False) -> dict[str, NDArray[Any]]:
    """Read what `write_npz` wrote.

    Compressed members are refused: a few hundred bytes of them can ask for all memory.

    Args:
        path: of the file.
        max_bytes: of all arrays together.
        mapped: give read-only views of the file's pages, which all processes share, instead of copies; the file must
            not be written to as long as they live.

    Raises:
        ValueError: if the file is damaged, compressed, larger than `max_bytes`, or a member is not a plain array.
        OSError: if it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > max_bytes:
                raise ValueError(f"{path.name}: larger than {max_bytes} bytes")
            pages = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray) if mapped else None
            return {_array_name(path, member): _read_member(path, archive, member, pages) for member in members}
    # numpy parses an array header as Python source, hence the errors of a tokenizer.
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        EOFError,
        RuntimeError,
        SyntaxError,
        TokenError,
        struct.error,
    ) as error:
        raise ValueError(f"{path.name}: is not a readable archive ({error})") from error


def _array_name(path: Path, member: zipfile.ZipInfo) -> str:
    if not member.filename.endswith(_SUFFIX):
        raise ValueError(f"{path.name}: holds something that is not an array")
    return member.filename.removesuffix(_SUFFIX)


def _read_member(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, pages: NDArray[np.uint8] | None
) -> NDArray[Any]:
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{path.name}: array {member.filename!r} is compressed")
    with archive.open(member) as stream:
        shape, by_column, dtype, header_bytes = _header(path, stream)
        if dtype.hasobject:
            raise ValueError(f"{path.name}: array {member.filename!r} holds Python objects")
        # Before reading: a header may claim any shape, and numpy would allocate it.
        elements = 1
        for length in shape:
            elements *= length
        if elements * dtype.itemsize != member.file_size - header_bytes:
            raise ValueError(f"{path.name}: array {member.filename!r} has another size than its header says")
    start = _start(member, pages) + header_bytes if pages is not None else 0
    if pages is not None and not by_column and start % _ALIGNMENT == 0:  # numpy copies what is not aligned at each use
        return np.frombuffer(pages, dtype, count=elements, offset=start).reshape(shape)
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _start(member: zipfile.ZipInfo, pages: NDArray[np.uint8]) -> int:
    """Where the content of a member begins in the file."""
    name, extra = struct.unpack_from("<HH", pages.data, member.header_offset + _LOCAL_HEADER - 4)
    return member.header_offset + _LOCAL_HEADER + int(name) + int(extra)


def _header(path: Path, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, by_column, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"{path.name}: unknown array format {version}")
    return shape, by_column, dtype, stream.tell()

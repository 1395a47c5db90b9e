"""Named arrays in one .npz file, read as data only: no pickle, no compression, sizes checked before allocation."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_BYTES: Final = 2 * 1024**3
_SUFFIX: Final = ".npy"


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name, uncompressed; equal arrays give equal bytes.

    Raises:
        ValueError: for an array of Python objects.
    """
    # Not np.savez: its keywords would clash with an array called "file", and names here come from a declaration.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in sorted(arrays):
            with archive.open(zipfile.ZipInfo(name + _SUFFIX), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), allow_pickle=False)


def read_npz(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """Read what `write_npz` wrote.

    Compressed members are refused: a few hundred bytes of them can ask for all memory.

    Raises:
        ValueError: if the file is damaged, compressed, larger than `max_bytes`, or a member is not a plain array.
        OSError: if it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > max_bytes:
                raise ValueError(f"{path.name}: larger than {max_bytes} bytes")
            return {_array_name(path, member): _read_member(path, archive, member) for member in members}
    # numpy parses an array header as Python source, hence the errors of a tokenizer.
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, SyntaxError, TokenError) as error:
        raise ValueError(f"{path.name}: is not a readable archive ({error})") from error


def _array_name(path: Path, member: zipfile.ZipInfo) -> str:
    if not member.filename.endswith(_SUFFIX):
        raise ValueError(f"{path.name}: holds something that is not an array")
    return member.filename.removesuffix(_SUFFIX)


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise ValueError(f"{path.name}: array {member.filename!r} is compressed")
    with archive.open(member) as stream:
        shape, dtype, header_bytes = _header(path, stream)
        if dtype.hasobject:
            raise ValueError(f"{path.name}: array {member.filename!r} holds Python objects")
        # Before reading: a header may claim any shape, and numpy would allocate it.
        elements = 1
        for length in shape:
            elements *= length
        if elements * dtype.itemsize != member.file_size - header_bytes:
            raise ValueError(f"{path.name}: array {member.filename!r} has another size than its header says")
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _header(path: Path, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"{path.name}: unknown array format {version}")
    return shape, dtype, stream.tell()

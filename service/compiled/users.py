"""Users of a body of /uplift as columns, read by compiled code: no object is made of any of them."""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from service.compiled.library import ADDRESS, BYTES, COUNT, compiled_function

_SHORTEST: Final = b'{"user_id":"u"}'
Int32 = NDArray[np.int32]
Flags = NDArray[np.bool_]


class _Users(ctypes.Structure):
    """``Users`` of users.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("most", "features")),
        *((name, ctypes.c_void_p) for name in ("names", "lengths", "is_id", "numbers", "codes", "silent")),
        *((name, ctypes.c_void_p) for name in ("text_start", "text_length", "texts", "slots")),
        ("table", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("id_start", "id_length")),
        *((name, ctypes.c_int64) for name in ("users_start", "users_stop")),
    )


class Texts(Sequence[str]):
    """Pieces of a body as texts, made when they are asked for.

    Args:
        body: UTF-8.
        start, stop: (N,) of each piece, in bytes.
    """

    def __init__(self, body: bytes, start: Int32, stop: Int32) -> None:
        self.body, self.start, self.stop = body, start, stop

    def __len__(self) -> int:
        return len(self.start)

    def __iter__(self) -> Iterator[str]:
        body = self.body
        return (body[a:b].decode() for a, b in zip(self.start.tolist(), self.stop.tolist(), strict=True))

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> "Texts": ...

    def __getitem__(self, place: int | slice) -> "str | Texts":
        if isinstance(place, slice):
            return Texts(self.body, self.start[place], self.stop[place])
        return self.body[self.start[place] : self.stop[place]].decode()


@dataclass(frozen=True, slots=True)
class Coded:
    """A column of texts: the different ones, and which of them each user has, (U,); -1 is none."""

    texts: Texts
    codes: Int32


@dataclass(frozen=True, slots=True)
class ReadUsers:
    """What a body says about its U users.

    Attributes:
        user_ids: (U,).
        columns: By feature: numbers (U,) with NaN for none, or texts.
        silent: By feature, (U,) True where a user does not name it; features that everybody names are left out.
        rest: The body without the users, null in their place.
    """

    user_ids: Texts
    columns: dict[str, NDArray[np.float64] | Coded]
    silent: dict[str, Flags]
    rest: bytes


class UserReader:
    """Reads bodies whose users may be told by some features.

    Args:
        names: Of the features.
        is_id: Whether a feature is an id, else it is a number.
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
    """

    def __init__(self, names: Sequence[str], is_id: Sequence[bool], path: Path | None = None) -> None:
        self._read = compiled_function("ctrlift_read_users", (BYTES, COUNT, ADDRESS), path)
        self._names, self._is_id = tuple(names), tuple(is_id)
        written = [name.encode() for name in names]
        self._texts = (ctypes.c_char_p * max(1, len(names)))(*written)
        self._lengths = np.array([len(name) for name in written], dtype=np.int32)
        self._ids = np.array(is_id, dtype=np.uint8)

    def read(self, body: bytes, most: int) -> ReadUsers | None:
        """What the body says; None where it has to be read in another way, or has more than ``most`` users."""
        if not body.isascii():
            try:
                body.decode()
            except UnicodeDecodeError:
                return None
        most = min(most, len(body) // len(_SHORTEST))
        features = len(self._names)
        shape, table = (max(1, features), max(1, most)), 1 << max(1, 2 * most - 1).bit_length()
        numbers = np.empty(shape)
        codes, start, length = (np.empty(shape, dtype=np.int32) for _ in range(3))
        silent = np.empty(shape, dtype=np.bool_)
        counts, slots = np.empty(shape[0], dtype=np.int32), np.empty((shape[0], table), dtype=np.int32)
        id_start, id_length = (np.empty(shape[1], dtype=np.int32) for _ in range(2))
        arrays = (self._lengths, self._ids, numbers, codes, silent, start, length, counts, slots)
        asked = _Users(
            most,
            features,
            ctypes.addressof(self._texts),
            *(array.ctypes.data for array in arrays),
            table,
            id_start.ctypes.data,
            id_length.ctypes.data,
        )
        users = int(self._read(body, len(body), ctypes.byref(asked)))
        if users < 0:
            return None
        columns: dict[str, NDArray[np.float64] | Coded] = {}
        for place, (name, is_id) in enumerate(zip(self._names, self._is_id, strict=True)):
            if is_id:
                first, count = start[place], int(counts[place])
                texts = Texts(body, first[:count], first[:count] + length[place, :count])
                columns[name] = Coded(texts, codes[place, :users])
            else:
                columns[name] = numbers[place, :users]
        unsaid = silent[:features, :users]
        return ReadUsers(
            user_ids=Texts(body, id_start[:users], id_start[:users] + id_length[:users]),
            columns=columns,
            silent={name: unsaid[place] for place, name in enumerate(self._names) if unsaid[place].any()},
            rest=body[: asked.users_start] + b"null" + body[asked.users_stop :],
        )

"""Users of a body of /uplift as columns, read by compiled code: no object is made of any of them."""

import ctypes
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
from numpy.typing import NDArray

from bundle.user_columns import UserColumns
from service.compiled.library import ADDRESS, BYTES, COUNT, compiled_function

_SHORTEST: Final = b'{"user_id":"u"}'
# What stands between two stored values: JSON has no such byte.
_NUL: Final = b"\0"
Int = NDArray[np.int64]
Flags = NDArray[np.bool_]


class _Told(ctypes.Structure):
    """``Told`` of told.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("room", "features")),
        *((name, ctypes.c_void_p) for name in ("names", "lengths", "is_id", "numbers", "ids", "silent")),
    )


class _Users(ctypes.Structure):
    """``Users`` of users.cpp."""

    _fields_ = (
        ("told", _Told),
        *((name, ctypes.c_void_p) for name in ("id_start", "id_stop")),
        *((name, ctypes.c_int64) for name in ("users_start", "users_stop", "unsaid", "longest")),
    )


class Texts(Sequence[str]):
    """Strings of a body as texts, made when they are asked for.

    Args:
        body: UTF-8.
        start, stop: (N,) of each string with its quotes, in bytes.
    """

    def __init__(self, body: bytes, start: Int, stop: Int) -> None:
        self.body, self.start, self.stop = body, start, stop

    def __len__(self) -> int:
        return len(self.start)

    def __iter__(self) -> Iterator[str]:
        body, places = self.body, zip(self.start.tolist(), self.stop.tolist(), strict=True)
        return (str(body[start + 1 : stop - 1], "utf-8") for start, stop in places)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> "Texts": ...

    def __getitem__(self, place: int | slice) -> "str | Texts":
        if isinstance(place, slice):
            return Texts(self.body, self.start[place], self.stop[place])
        return self.body[self.start[place] + 1 : self.stop[place] - 1].decode()


class _Reading:
    """What one reader reads bodies by, the same for all of them."""

    def __init__(self, names: Sequence[str], is_id: Sequence[bool], path: Path | None) -> None:
        self.read = compiled_function("ctrlift_read_users", (BYTES, COUNT, ADDRESS), path)
        self.read_stored = compiled_function("ctrlift_read_stored", (BYTES, COUNT, ADDRESS, COUNT, COUNT), path)
        self.names, self.is_id = tuple(names), tuple(is_id)
        # As a body without blanks and escapes has them.
        written = [b'"%b":' % name.encode() for name in names]
        self._texts = (ctypes.c_char_p * max(1, len(names)))(*written)
        self._lengths = np.array([len(name) for name in written], dtype=np.int32)
        self._ids = np.array(is_id, dtype=np.uint8)
        self.fixed = (ctypes.addressof(self._texts), self._lengths.ctypes.data, self._ids.ctypes.data)


class UserBlock:
    """U users of a body: what each of them is told by, and their ids.

    Args:
        reading: How they were read.
        body: What from.
        room: Users that there is room for.

    Attributes:
        user_ids: (U,).
        longest: Bytes of the longest of them.
        ts: Seconds; when the body was read.
        unsaid: How many times a user does not name a feature.
        rest: The body without the users, null in their place.
    """

    user_ids: Texts
    longest: int
    unsaid: int
    rest: bytes

    def __init__(self, reading: _Reading, body: bytes, room: int) -> None:
        features = len(reading.names)
        cells = features * room
        # One piece of memory, the widest values first: numbers, ids, where ids stand, and who is silent.
        self._memory = np.empty(17 * cells + 16 * room, dtype=np.uint8)
        self._base = base = self._memory.__array_interface__["data"][0]
        self._told = _Told(room, features, *reading.fixed, base, base + 8 * cells, base + 16 * (cells + room))
        self._reading = reading
        self._features, self._room, self._users = features, room, 0
        self.body = body
        self.ts = time.time()

    def __len__(self) -> int:
        return self._users

    @property
    def names(self) -> tuple[str, ...]:
        """(F,) of the features."""
        return self._reading.names

    @property
    def addresses(self) -> tuple[int, int, int]:
        """How many values a column has room for, and where numbers and ids lie."""
        return self._room, self._base, self._base + 8 * self._features * self._room

    @property
    def numbers(self) -> NDArray[np.float64]:
        """(F, U) of every feature, NaN for none; of no meaning for ids."""
        cells = self._features * self._room
        return self._columns(self._memory[: 8 * cells].view(np.float64))

    @property
    def ids(self) -> NDArray[np.uint64]:
        """(F, U) id64 of every feature, 0 for none; of no meaning for numbers."""
        cells = self._features * self._room
        return self._columns(self._memory[8 * cells : 16 * cells].view(np.uint64))

    @property
    def silent(self) -> Flags:
        """(F, U), True where a user does not name the feature."""
        return self._columns(self._memory[16 * self._room * (self._features + 1) :].view(np.bool_))

    def _columns(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(self._features, self._room)[:, : self._users]

    def read(self) -> bool:
        """Fill the block; False where the body has to be read in another way."""
        room, first = self._room, 16 * self._features * self._room
        asked = _Users(self._told, self._base + first, self._base + first + 8 * room)
        users = int(self._reading.read(self.body, len(self.body), ctypes.byref(asked)))
        if users < 0:
            return False
        start, stop = self._memory[first : first + 16 * room].view(np.int64).reshape(2, room)[:, :users]
        self._users = users
        self.user_ids = Texts(self.body, start, stop)
        self.unsaid, self.longest = int(asked.unsaid), int(asked.longest)
        self.rest = self.body[: asked.users_start] + b"null" + self.body[asked.users_stop :]
        return True

    def fill(self, values: Sequence[bytes | None], longest: int) -> bool:
        """Take what users are silent about from what is stored about them.

        Args:
            values: (U,) features as they are stored; None for a user that the store does not know.
            longest: Bytes that one value may have.

        Returns:
            False, and nothing was taken, where the values have to be read in another way.
        """
        if b"" in values:
            return False  # it is no object, and would be taken for nothing at all
        text = _NUL.join([b"" if value is None else value for value in values])
        silent = self.silent
        before = silent.copy()
        reading = self._reading
        if reading.read_stored(text, len(text), ctypes.byref(self._told), len(self), longest) == 0:
            self.unsaid = 0  # whoever is silent still has been asked
            return True
        silent[...] = before
        self.numbers[before], self.ids[before] = np.nan, 0
        return False

    def columns(self) -> UserColumns:
        """The same by feature."""
        rows = zip(self.names, self._reading.is_id, self.numbers, self.ids, self.silent, strict=True)
        columns: dict[str, NDArray[Any]] = {}
        silent: dict[str, Flags] = {}
        for name, is_id, numbers, ids, flags in rows:
            columns[name] = ids if is_id else numbers
            if flags.any():
                silent[name] = flags
        return UserColumns(self.user_ids, self.ts, columns, silent)


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
        self._reading = _Reading(names, is_id, path)

    def read(self, body: bytes, most: int) -> UserBlock | None:
        """What the body says; None where it has to be read in another way, or has more than ``most`` users."""
        found = UserBlock(self._reading, body, max(1, min(most, len(body) // len(_SHORTEST))))
        return found if found.read() else None

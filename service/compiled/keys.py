"""Keys of the users of a body, as one command to the store by compiled code: no text is made of any of them."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, overload

import numpy as np

from service.compiled.library import ADDRESS, BYTES, COUNT, compiled_function
from service.compiled.users import Texts

_WORD: Final = len("$9223372036854775807\r\n}\r\n")


@cache
def _packer() -> Any:
    return compiled_function("ctrlift_pack_keys", (BYTES, ADDRESS, ADDRESS, COUNT, BYTES, COUNT, ADDRESS))


class UserKeys(Sequence[str]):
    """A first key, and ``<prefix><user>}`` for each user.

    Args:
        first: The first key.
        prefix: Of the others.
        users: Their ids, as compiled code found them in a body.
    """

    def __init__(self, first: str, prefix: str, users: Texts) -> None:
        self._first, self._prefix, self._users = first, prefix, users

    def __len__(self) -> int:
        return 1 + len(self._users)

    def __iter__(self) -> Iterator[str]:
        yield self._first
        for user in self._users:
            yield f"{self._prefix}{user}}}"

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        return list(self)[place]

    def command(self, name: str) -> bytes:
        """A command of this name with all the keys, as it goes over the wire.

        Raises:
            CompiledUnavailable: The library is gone.
        """
        users, first, prefix = self._users, self._first.encode(), self._prefix.encode()
        start, stop = (np.ascontiguousarray(places) for places in (users.start, users.stop))
        room = len(users) * (_WORD + len(prefix)) + int((stop - start).sum())
        out = np.empty(room, dtype=np.uint8)
        places = start.ctypes.data, stop.ctypes.data
        length = int(_packer()(users.body, *places, len(users), prefix, len(prefix), out.ctypes.data))
        head = b"*%d\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (1 + len(self), len(name), name.encode(), len(first), first)
        return head + out[:length].tobytes()

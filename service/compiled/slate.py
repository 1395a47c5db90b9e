"""A body of /score read by compiled code: numbers and hashes side by side, and no object for any of its parts."""

import struct
from ctypes import addressof
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from service.compiled.blocks import block
from service.compiled.library import ADDRESS, BYTES, COUNT, compiled_function
from service.settings import LimitSettings

# ``Slate`` of slate.h.
_SLATE: Final = struct.Struct("=dQ8iq")
_MEMBER: Final = struct.calcsize("=4iQ")
_MOST_MEMBERS: Final = 256
_SHORTEST_MEMBER: Final = len(b'"a":1,')
_SHORTEST_CELL: Final = len(b"1,")
_CELL: Final = 8
_DEEPEST: Final = 3  # brackets in brackets that a plain body has


class SlateLimits(NamedTuple):
    """How much a body may hold.

    Attributes:
        candidates: Most of them; 0 where no body may be read here.
        id_bytes: Of the user's and the candidates' ids, in UTF-8.
    """

    candidates: int
    id_bytes: int

    @classmethod
    def of(cls, limits: LimitSettings) -> Self:
        """The same of the settings."""
        return cls(limits.candidates if limits.json_depth >= _DEEPEST else 0, limits.id_bytes)


class Slate:
    """What a body says.

    Attributes:
        body: Its bytes.
        block: What was read, for ``SlateEncoder``.
        address: Of the block; passing a number costs a fraction of passing the block.
        candidates: How many there are.
        user_id: None for nobody in particular.
        model: None where the body does not say.
        raw: Whether the logits are wanted too.
        ts: Seconds; None where the body does not say.
    """

    __slots__ = ("address", "block", "body", "candidates", "model", "raw", "ts", "user_id")

    def __init__(self, body: bytes, filled: Any, address: int) -> None:
        ts, _, user, user_length, model, model_length, raw, candidates, _, _, _ = _SLATE.unpack_from(filled)
        self.body, self.block, self.address, self.candidates = body, filled, address, candidates
        self.user_id: str | None = None if user < 0 else body[user : user + user_length].decode()
        self.model: str | None = None if model < 0 else body[model : model + model_length].decode()
        self.raw = raw == 1
        self.ts: float | None = None if ts != ts else ts


class SlateReader:
    """Reads bodies that are plain in every way. Holds no state; safe to share between threads.

    Args:
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
    """

    def __init__(self, path: Path | None = None) -> None:
        arguments = (BYTES, COUNT, COUNT, COUNT, COUNT, ADDRESS, COUNT)
        self._read = compiled_function("ctrlift_read_slate", arguments, path, holds_lock=True)

    def read(self, body: bytes, limits: SlateLimits) -> Slate | None:
        """What the body says; None where it has to be read in another way, be it wrong or only unusual."""
        length = len(body)
        members = min(_MOST_MEMBERS, length // _SHORTEST_MEMBER)
        room = _SLATE.size + members * _MEMBER + (length // _SHORTEST_CELL) * _CELL
        filled = block(room)
        address = addressof(filled)
        if not self._read(body, length, limits.candidates, limits.id_bytes, members, address, room):
            return None
        return Slate(body, filled, address)

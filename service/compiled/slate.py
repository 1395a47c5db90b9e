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
_LONGEST: Final = 256 * 1024  # a longer body would hold the event loop for a millisecond
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


class Slate(NamedTuple):
    """What a body says.

    Attributes:
        user_id: None for nobody in particular.
        model: None where the body does not say.
        raw: Whether the logits are wanted too.
        candidates: How many there are.
        ts: Seconds; None where the body does not say.
        body: Its bytes.
        block: What was read, for ``SlateEncoder``.
        address: Of the block; passing a number costs a fraction of passing the block.
    """

    user_id: str | None
    model: str | None
    raw: bool
    candidates: int
    ts: float | None
    body: bytes
    block: Any
    address: int


class SlateReader:
    """Reads bodies that are plain in every way. Holds no state; safe to share between threads.

    Args:
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
    """

    def __init__(self, path: Path | None = None) -> None:
        arguments = (BYTES, COUNT, COUNT, COUNT, ADDRESS, COUNT)
        self._read = compiled_function("ctrlift_read_slate", arguments, path, holds_lock=True)

    def read(self, body: bytes, limits: SlateLimits) -> Slate | None:
        """What the body says; None where it has to be read in another way, be it wrong or only unusual."""
        if len(body) > _LONGEST:
            return None
        # No part of a body takes more than four times its own bytes.
        size = _SLATE.size + _CELL * (1 + len(body) // _SHORTEST_CELL)
        filled = block(size)
        address = addressof(filled)
        if not self._read(body, len(body), limits.candidates, limits.id_bytes, address, size):
            return None
        ts, _, user, user_length, model, model_length, raw, candidates, _, _, _ = _SLATE.unpack_from(filled)
        user_id = None if user < 0 else body[user : user + user_length].decode()
        named = None if model < 0 else body[model : model + model_length].decode()
        given = user_id, named, raw == 1, candidates, None if ts != ts else ts, body, filled, address
        return tuple.__new__(Slate, given)  # a third of what the class's own way costs

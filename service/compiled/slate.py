"""A body of /score read by compiled code: numbers and hashes side by side, and no object for any of its parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Self

from service.compiled.library import compiled_module
from service.settings import LimitSettings

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
        block: What was read, for ``SlateEncoder``; see slate.h.
    """

    user_id: str | None
    model: str | None
    raw: bool
    candidates: int
    ts: float | None
    body: bytes
    block: bytes


class SlateReader:
    """Reads bodies that are plain in every way. Holds no state; safe to share between threads.

    Args:
        path: Of the library; by default where ``build`` puts it.

    Attributes:
        read: What a body says, within limits; None where it has to be read in another way, be it wrong or only unusual.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
    """

    read: Callable[[bytes, SlateLimits], Slate | None]

    def __init__(self, path: Path | None = None) -> None:
        self.read = compiled_module(path).slate_reader(Slate)

"""A slate and what is stored about its user to a network's inputs, by compiled code: no object for any candidate."""

import struct
from ctypes import addressof
from itertools import compress
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundle.fitting import FittedSchema
from bundle.layout import id_width
from service.compiled.blocks import block
from service.compiled.library import ADDRESS, BYTES, COUNT, NUMBER, compiled_function
from service.compiled.slate import Slate
from service.compiled.slate_plan import SlatePlan

# ``Head`` of slate_encoding.cpp; counts of unseen ids and flags of missing features stand behind it.
_HEAD: Final = struct.Struct("=11q")
_ALIGNED: Final = 64
_PIECES: Final = 24  # that the block is cut into, each of them aligned
_RECORD: Final = 20
_LONG: Final = 200_000  # values, and comparisons of candidates with behaviours, that an event loop may wait for
_IDS, _NUMBERS, _FLAGS = np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.bool_)


class Unsupported(ValueError):
    """Slates of this declaration are encoded in the ordinary way; the message says why in one sentence."""


class EncodedSlate(NamedTuple):
    """One user's encoded slate.

    Attributes:
        inputs: What ``EncodedRows.take`` gives for all rows.
        length: Behaviours that were used.
        unseen: By field, how many ids its table does not know; fields that know all of them are left out.
        missing: Features that neither the request nor the store gave.
    """

    inputs: dict[str, NDArray[Any]]
    length: int
    unseen: dict[str, int]
    missing: tuple[str, ...]


class SlateEncoder:
    """Encodes slates as ``Encoder`` does. Holds no state of its own; safe to share between threads.

    Args:
        fitted: Of a declaration with candidates.
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
        Unsupported: The declaration has no candidates.
    """

    def __init__(self, fitted: FittedSchema, path: Path | None = None) -> None:
        if fitted.schema.kind != "ctr":
            raise Unsupported("the declaration asks for effects of treatments and so has no candidates")
        arguments = (ADDRESS, ADDRESS, BYTES, BYTES, COUNT, BYTES, COUNT, COUNT, NUMBER, ADDRESS, COUNT)
        self._encode = compiled_function("ctrlift_encode_slate", arguments, path, holds_lock=True)
        self._plan = plan = SlatePlan(fitted)
        layout = plan.layout
        self._longest = max((stream.max_len for stream in layout.streams), default=1)
        self._user, self._candidate = id_width(layout.user_ids), id_width(layout.candidate_ids)
        self._step, self._masks = id_width(layout.behaviour_ids), layout.masks
        self._user_numbers, self._candidate_numbers = len(layout.user_numbers), len(layout.candidate_numbers)
        self._step_numbers = len(layout.behaviour_numbers)
        self._columns = self._candidate + self._candidate_numbers
        self._counts_at = _rounded(_HEAD.size)
        self._flags_at = self._counts_at + _rounded(len(plan.unseen) * 8)
        fixed = (
            self._flags_at
            + len(plan.missing)
            + self._user * 8
            + self._user_numbers * 4
            + plan.features * 24
            + plan.filters * 32
        )
        self._fixed = fixed + _PIECES * _ALIGNED
        self._per_candidate = self._candidate * 8 + self._candidate_numbers * 4 + 8 + plan.matches * 24
        self._per_event = 16 + 4 * plan.filters
        self._per_step = self._step * 8 + self._step_numbers * 4 + self._masks

    def encode(
        self, slate: Slate, sequence: bytes | None, features: bytes | None, max_events: int, now: float
    ) -> EncodedSlate | None:
        """The network's inputs; None where the ordinary way has to answer, be something wrong or only unusual.

        Args:
            slate: The request.
            sequence: What the store has of the user's behaviours.
            features: What it has of the user's features.
            max_events: Behaviours that are looked at, the newest.
            now: Seconds; the request's time where it does not say.
        """
        candidates, events = slate.candidates, 0 if sequence is None else min(max_events, len(sequence) // _RECORD)
        if candidates * (self._columns + events * self._plan.matches) > _LONG:
            return None
        steps = max(1, min(self._longest, events))
        room = self._fixed + candidates * self._per_candidate + events * self._per_event + steps * self._per_step
        made = block(room)
        given = self._plan.address, slate.address, slate.body
        stored = sequence, len(sequence or b""), features, len(features or b"")
        if not self._encode(*given, *stored, max_events, now, addressof(made), room):
            return None
        return self._cut(made, candidates)

    def _cut(self, made: Any, candidates: int) -> EncodedSlate:
        """The arrays as views of the block."""
        length, steps, *starts, unseen, missing = _HEAD.unpack_from(made)
        user, user_numbers, candidate, candidate_numbers, step, step_numbers, mask = starts
        array = np.ndarray
        inputs: dict[str, NDArray[Any]] = {
            "user_ids": array((1, self._user), _IDS, made, user),
            "user_numbers": array((1, self._user_numbers), _NUMBERS, made, user_numbers),
            "candidate_ids": array((1, candidates, self._candidate), _IDS, made, candidate),
            "candidate_numbers": array((1, candidates, self._candidate_numbers), _NUMBERS, made, candidate_numbers),
            "behaviour_ids": array((1, steps, self._step), _IDS, made, step),
            "behaviour_numbers": array((1, steps, self._step_numbers), _NUMBERS, made, step_numbers),
            "behaviour_mask": array((1, steps, self._masks), _FLAGS, made, mask),
        }
        notes = self._unseen(made) if unseen else {}, self._missing(made) if missing else ()
        return tuple.__new__(EncodedSlate, (inputs, length, *notes))  # a third of what the class's own way costs

    def _unseen(self, made: Any) -> dict[str, int]:
        names = self._plan.unseen
        counts = np.frombuffer(made, np.int64, len(names), self._counts_at).tolist()
        return {name: count for name, count in zip(names, counts, strict=True) if count > 0}

    def _missing(self, made: Any) -> tuple[str, ...]:
        names = self._plan.missing
        return tuple(compress(names, np.frombuffer(made, np.uint8, len(names), self._flags_at)))


def _rounded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED

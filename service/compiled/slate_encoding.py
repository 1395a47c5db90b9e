"""A slate and what is stored about its user to a network's inputs, by compiled code: no object for any candidate."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from bundle.fitting import FittedSchema
from service.compiled.library import compiled_module
from service.compiled.slate import Slate
from service.compiled.slate_plan import SlatePlan

# ``Array`` of slate_encoding.h.
_ARRAYS: Final = (
    *("user_ids", "user_numbers", "candidate_ids", "candidate_numbers"),
    *("behaviour_ids", "behaviour_numbers", "behaviour_mask"),
)


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

    Attributes:
        encode: The network's inputs; None where the ordinary way has to answer, be something wrong or only unusual. It
            takes the request, what the store has of the user's behaviours and of the user's features, how many
            behaviours are looked at, the newest, and the time where the request does not say, in seconds.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
        Unsupported: The declaration has no candidates.
    """

    encode: Callable[[Slate, bytes | None, bytes | None, int, float], EncodedSlate | None]

    def __init__(self, fitted: FittedSchema, path: Path | None = None) -> None:
        if fitted.schema.kind != "ctr":
            raise Unsupported("the declaration asks for effects of treatments and so has no candidates")
        make, plan = compiled_module(path).slate_encoder, SlatePlan(fitted)
        names = _ARRAYS, tuple(plan.unseen), tuple(plan.missing)
        self.encode = make(plan.address, plan, Slate, EncodedSlate, *names)

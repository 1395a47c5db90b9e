"""Users with histories, slates of candidates, and the same requests as JSON and as queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import orjson

from benchmarks.serving.speed_config import NOW, context_values, query
from bundle.request import ScoreQuery

USERS: Final = 64
_EVENTS_AT_ONCE: Final = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class SlateSizes:
    """How many of what: ``items`` exist, a user has ``steps`` behaviours and gets ``candidates``."""

    candidates: int = 100
    steps: int = 50
    items: int = 50_000
    users: int = USERS


@dataclass(frozen=True, slots=True)
class Slate:
    """One user's request, and the history that the store holds for it."""

    user_id: str
    candidates: list[str]
    history: list[str]
    context: dict[str, float] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The request without the history: the store has it."""
        asked = {"user_id": self.user_id, "candidates": self.candidates, "context": self.context}
        return orjson.dumps(asked)

    @property
    def query(self) -> ScoreQuery:
        """The same with the history inline, for scoring without a store."""
        return query(self.candidates, self.history, self.context)

    def events(self) -> list[dict[str, Any]]:
        """The history as POST /behaviours takes it."""
        first = NOW - 10_000
        return [
            {"user_id": self.user_id, "item_id": item, "ts": first + place} for place, item in enumerate(self.history)
        ]


def slates(sizes: SlateSizes, seed: int = 0) -> list[Slate]:
    """Different users with different candidates, so that no answer can be kept from an earlier request.

    Other sizes are other users: a store holds the histories of several sizes side by side.
    """
    rng = np.random.default_rng(seed)
    name = f"user-{sizes.candidates}-{sizes.steps}-{sizes.items}"

    def items(count: int) -> list[str]:
        return [str(number) for number in rng.choice(sizes.items, count, replace=False) + 1]

    return [
        Slate(f"{name}-{number}", items(sizes.candidates), items(sizes.steps), context_values(number))
        for number in range(sizes.users)
    ]


def event_bodies(made: list[Slate]) -> Iterator[bytes]:
    """Bodies for POST /behaviours that store every history."""
    events = [event for slate in made for event in slate.events()]
    for start in range(0, len(events), _EVENTS_AT_ONCE):
        yield orjson.dumps({"events": events[start : start + _EVENTS_AT_ONCE]})

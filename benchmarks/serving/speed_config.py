"""What the network of the speed benchmarks is called, how large it is, and requests for it. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bundle.request import Behaviour, ScoreQuery

NAME: Final = "speed"
VERSION: Final = "1.0.0"
NOW: Final = 1_700_000_000
WIDTH: Final = 18
CATEGORIES: Final = 500
CONTEXT: Final = tuple(f"context_{number}" for number in range(16))
ATTENTION: Final = (80, 40)
TOP: Final = (200, 80)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedConfig:
    """What may differ between speed networks.

    Attributes:
        items: that a request may name; each has a row of its own unless ``buckets`` says otherwise.
        buckets: rows that items are hashed into; None gives a vocabulary.
        steps: longest history.
        tasks: logits a candidate; more than one stand on a mixture of experts.
        seed: of the weights.
        linear: one linear layer takes the place of the network; everything around it stays.
    """

    items: int = 50_000
    buckets: int | None = None
    steps: int = 50
    tasks: int = 1
    seed: int = 0
    linear: bool = False

    @property
    def task_names(self) -> tuple[str, ...]:
        """One name a task."""
        return ("ctr", *(f"task_{number}" for number in range(2, self.tasks + 1)))


def item_names(count: int) -> list[str]:
    """Ids of items as requests write them."""
    return [str(number) for number in range(1, count + 1)]


def buckets_of(megabytes: int) -> int:
    """Rows of the item table that take so many MB (2^20 bytes) of float32."""
    return megabytes * 2**20 // (4 * WIDTH)


def query(candidates: Sequence[str], past: Sequence[str], context: Mapping[str, float] | None = None) -> ScoreQuery:
    """A request with its behaviours and 16 numbers of the context inline; by default its length decides the numbers."""
    behaviours = [Behaviour(item, NOW - 10_000 + place) for place, item in enumerate(past)]
    numbers = context_values(len(past)) if context is None else context
    return ScoreQuery(None, list(candidates), NOW, numbers, behaviours=behaviours)


def context_values(seed: int) -> dict[str, float]:
    """The sixteen numbers of one request."""
    numbers = np.round(np.random.default_rng(seed).normal(size=len(CONTEXT)), 3)
    return dict(zip(CONTEXT, numbers.tolist(), strict=True))


def golden_queries(config: SpeedConfig) -> list[ScoreQuery]:
    """Requests that break graphs: nobody's history, one step, the longest one, one candidate, many, unseen ones."""
    names = item_names(min(config.items, 5000))
    return [
        query(names[:3], []),
        query(names[:1], names[5:6]),
        query(names[:7], names[10 : 10 + config.steps]),
        query(["never seen", *names[20:40]], names[50:60]),
        query(names[-100:], [*names[100 : 99 + config.steps], "never seen"]),
    ]

"""MLServer: a model with a REST handler of its own, in the server's process; ``mlserver start`` loads this class."""

from __future__ import annotations

import redis.asyncio
from mlserver import MLModel
from mlserver.handlers import custom_handler
from pydantic import BaseModel

from benchmarks.serving.peers.answering import Answering, Given, sequence_key


class Asked(BaseModel):
    """A request."""

    user_id: str
    candidates: list[str]
    context: dict[str, float]


class Reply(BaseModel):
    """An answer."""

    scores: dict[str, list[float]]


class Score(MLModel):
    """Reads the store and runs the graph in the handler."""

    async def load(self) -> bool:
        """Once at the start."""
        given = Given.from_environment()
        self.answering = Answering(given)
        self.store = redis.asyncio.Redis(unix_socket_path=given.store)
        return True

    @custom_handler(rest_path="/score")
    async def score(self, asked: Asked) -> Reply:
        """Score one user's candidates."""
        stored = await self.store.get(sequence_key(asked.user_id))
        return Reply(scores={"pctr": self.answering.scores(asked.candidates, asked.context, stored)})

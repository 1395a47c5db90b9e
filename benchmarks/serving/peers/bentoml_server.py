"""BentoML: a service with one worker; ``bentoml serve`` runs this file."""

from __future__ import annotations

import bentoml
import redis.asyncio

from benchmarks.serving.peers.answering import Answering, Given, sequence_key


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Score:
    """Reads the store and runs the graph in the handler."""

    def __init__(self) -> None:
        given = Given.from_environment()
        self.answering = Answering(given)
        self.store = redis.asyncio.Redis(unix_socket_path=given.store)

    @bentoml.api(route="/score")
    async def score(
        self, user_id: str, candidates: list[str], context: dict[str, float]
    ) -> dict[str, dict[str, list[float]]]:
        """Score one user's candidates."""
        stored = await self.store.get(sequence_key(user_id))
        return {"scores": {"pctr": self.answering.scores(candidates, context, stored)}}

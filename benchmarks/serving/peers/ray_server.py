"""Ray Serve: one proxy and one replica on this machine, no dashboard."""

from __future__ import annotations

import signal
import sys
from typing import Any

import ray
import redis.asyncio
from ray import serve
from starlette.requests import Request

from benchmarks.serving.peers.answering import Answering, Given, sequence_key


@serve.deployment(num_replicas=1, max_ongoing_requests=100, logging_config={"log_level": "ERROR"})
class Score:
    """Reads the store and runs the graph in the replica."""

    def __init__(self) -> None:
        given = Given.from_environment()
        self.answering = Answering(given)
        self.store = redis.asyncio.Redis(unix_socket_path=given.store)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Score one user's candidates."""
        asked = await request.json()
        return self.answering.reply(asked, await self.store.get(sequence_key(asked["user_id"])))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": Given.from_environment().port})
    serve.run(Score.bind(), route_prefix="/score", blocking=False)
    signal.pause()

"""mosec: an HTTP front in Rust, one worker process without batching. Its workers are synchronous, so is its Redis."""

from __future__ import annotations

from typing import Any

import redis
from mosec import Server, Worker

from benchmarks.serving.peers.answering import Answering, Given, sequence_key


class Score(Worker):
    """Decodes, reads the store and runs the graph."""

    def __init__(self) -> None:
        super().__init__()
        given = Given.from_environment()
        self.answering = Answering(given)
        self.store = redis.Redis(unix_socket_path=given.store)

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        """Score one user's candidates."""
        return self.answering.reply(data, self.store.get(sequence_key(data["user_id"])))


if __name__ == "__main__":
    server = Server()
    server.append_worker(Score, num=1, route="/score")
    server.run()

"""LitServe: uvicorn in front of one inference process without batching."""

from __future__ import annotations

from typing import Any

import litserve
import redis

from benchmarks.serving.peers.answering import Answering, Given, sequence_key


class Score(litserve.LitAPI):
    """Reads the store and runs the graph in the inference process, which is synchronous."""

    def setup(self, device: str) -> None:
        """Once in the inference process."""
        given = Given.from_environment()
        self.answering = Answering(given)
        self.store = redis.Redis(unix_socket_path=given.store)

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        """Score one user's candidates."""
        return self.answering.reply(x, self.store.get(sequence_key(x["user_id"])))


if __name__ == "__main__":
    server = litserve.LitServer(Score(api_path="/score"), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=Given.from_environment().port,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )

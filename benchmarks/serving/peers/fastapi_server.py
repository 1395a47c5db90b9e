"""What most teams write first: FastAPI, pydantic models, redis.asyncio, the session called in the handler."""

from __future__ import annotations

import redis.asyncio
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serving.peers.answering import Answering, Given, sequence_key

given = Given.from_environment()
answering = Answering(given)
store = redis.asyncio.Redis(unix_socket_path=given.store)
app = FastAPI()


class Asked(BaseModel):
    """A request."""

    user_id: str
    candidates: list[str]
    context: dict[str, float]


class Reply(BaseModel):
    """An answer."""

    scores: dict[str, list[float]]


@app.post("/score")
async def score(asked: Asked) -> Reply:
    """Score one user's candidates."""
    stored = await store.get(sequence_key(asked.user_id))
    return Reply(scores={"pctr": answering.scores(asked.candidates, asked.context, stored)})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=given.port, access_log=False, log_level="warning")

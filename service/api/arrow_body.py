"""The other body of /score: one Arrow IPC stream whose rows are the candidates.

Column ``item_id`` names them, the other columns are candidate features. Everything else that a JSON body says stands,
as the same JSON object without ``candidates`` and ``candidate_features``, under ``request`` in the schema's metadata.
Both kinds of body are judged by the same models, so that the problem documents are the same.
"""

import asyncio
import importlib
import sys
from functools import partial
from time import perf_counter
from types import ModuleType
from typing import Any, Final

import msgspec
import orjson

from service.api import body, score_body
from service.api.arrow_stream import check_stream
from service.api.openapi import ARROW
from service.api.problems import invalid
from service.api.score_body import QuickBody, ScoreBody
from service.api.scoring import answer_to, facts_of, reply_of
from service.container import Container
from service.core.scorer import Answer
from service.errors import BadRequest, Problem
from service.settings import Settings

__all__ = ["ARROW", "arrow_reply_to", "reply_to"]

ITEM: Final = "item_id"
REQUEST, REPLY = b"request", b"reply"  # keys of the schemas' metadata


async def reply_to(container: Container, raw: bytes, request_id: str) -> bytes:
    """The reply to an Arrow body as JSON.

    Raises:
        ServiceError: 400, 404, 422, 500 or 503.
    """
    asked, answer = await _answered(container, raw)
    return reply_of(container, request_id, answer, raw=asked.raw)


async def arrow_reply_to(container: Container, raw: bytes, request_id: str) -> bytes:
    """The same as an Arrow stream: a row a candidate, the rest of the reply under ``reply`` in the metadata.

    Raises:
        ServiceError: See ``reply_to``.
    """
    asked, answer = await _answered(container, raw)
    started = perf_counter()
    reply = _stream(request_id, answer, raw=asked.raw)
    container.metrics.stages["serialise"].observe(perf_counter() - started)
    return reply


async def _answered(container: Container, raw: bytes) -> tuple[ScoreBody, Answer]:
    if "pyarrow" not in sys.modules:
        # A large library that most services never need; loading it must not stop the others' requests.
        await asyncio.to_thread(importlib.import_module, "pyarrow")
    settings = container.settings
    document = read(raw, settings)
    asked = quick(document, settings)
    return await answer_to(container, asked, partial(score_body.checked, document, settings))


def quick(document: dict[str, Any], settings: Settings) -> ScoreBody | None:
    """The request, or None where it has to be read with more care."""
    try:
        asked = msgspec.convert(document, QuickBody)
    except msgspec.ValidationError:
        return None
    return score_body.of_quick(asked, settings.limits)


def read(raw: bytes, settings: Settings) -> dict[str, Any]:
    """A stream as the JSON object that says the same.

    Raises:
        ServiceError: 400 where it is no stream that may be decoded, 422 where a column cannot be a JSON body's.
    """
    most = settings.limits.candidates
    rows = check_stream(raw, most)
    if rows > most:
        raise invalid([Problem("/candidates", "too_many_items", f"at most {most} entries, {rows} came")])
    schema, batches = _decoded(raw)
    document = _request(schema, settings)
    columns = {
        name: [value for batch in batches for value in _values(batch.column(place))]
        for place, name in enumerate(schema.names)
    }
    if ITEM in columns:
        document["candidates"] = columns.pop(ITEM)
    if columns:
        document["candidate_features"] = columns
    return document


def _decoded(raw: bytes) -> tuple[Any, list[Any]]:
    """Schema and record batches, every offset and text of them checked."""
    pa = _arrow()
    try:
        with pa.ipc.open_stream(pa.py_buffer(raw)) as stream:
            names = stream.schema.names
            batches = list(stream)
        for batch in batches:
            batch.validate(full=True)
    # UnicodeDecodeError: a name; OverflowError and MemoryError: a length that nothing can have.
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, KeyError, TypeError) as error:
        raise BadRequest("The body is not an Arrow stream that can be read.") from error
    if len(set(names)) != len(names):
        raise BadRequest("The Arrow stream has a column twice.")
    return stream.schema, batches


def _request(schema: Any, settings: Settings) -> dict[str, Any]:
    """What the metadata say of the request."""
    document = body.parse((schema.metadata or {}).get(REQUEST, b"{}"), settings.limits.json_depth)
    if not isinstance(document, dict):
        raise BadRequest("The metadata's request must be a JSON object.")
    columns = [name for name in ("candidates", "candidate_features") if name in document]
    if columns:
        raise invalid([Problem(f"/{name}", "schema", "is given by the columns of the stream") for name in columns])
    return document


def _values(column: Any) -> list[Any]:
    """A column as Python values; the short way makes none of the library's scalars in between."""
    types = _arrow().types
    texts = types.is_string(column.type) or types.is_large_string(column.type)
    numbers = types.is_integer(column.type) or types.is_floating(column.type)
    if texts or (numbers and not column.null_count):
        return list(column.to_numpy(zero_copy_only=False).tolist())
    return list(column.to_pylist())


def _stream(request_id: str, answer: Answer, *, raw: bool) -> bytes:
    pa = _arrow()
    columns = {f"p{task}": values[0] for task, values in answer.scored.probabilities.items()}
    if raw:
        columns |= {f"logit_{task}": answer.scored.logits[0, :, k].copy() for k, task in enumerate(answer.tasks)}
    facts = orjson.dumps(facts_of(request_id, answer))
    batch = pa.record_batch([pa.array(values) for values in columns.values()], list(columns))
    batch = batch.replace_schema_metadata({REPLY: facts})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _arrow() -> ModuleType:
    """The library, which ``_answered`` has loaded."""
    return sys.modules["pyarrow"]

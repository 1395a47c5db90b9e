"""The compiled form of a served version: a slate's bytes to the graph's inputs, and its logits to the reply's bytes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
import structlog
from numpy.typing import NDArray

from bundle.behaviours import pack
from bundle.loading import Bundle
from bundle.request import ScoreQuery, rows_from_query
from service.compiled.library import CompiledUnavailable
from service.compiled.reply import ReplyWriter
from service.compiled.slate import SlateLimits, SlateReader
from service.compiled.slate_encoding import EncodedSlate, SlateEncoder

log = structlog.get_logger(__name__)

_ANY: Final = SlateLimits(candidates=1 << 20, id_bytes=1 << 20)
_EVENTS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class CompiledVersion:
    """What a bundle needs of compiled code.

    Attributes:
        encoder: Of its declaration.
        reply: Of its correction.
    """

    encoder: SlateEncoder
    reply: ReplyWriter


def compiled_version(bundle: Bundle) -> CompiledVersion | None:
    """The compiled form of a bundle, if it gives the same inputs and scores for the golden requests; else None, and a
    line in the log: then every request goes the ordinary way.
    """
    manifest = bundle.manifest
    try:
        encoder = SlateEncoder(bundle.fitted)
        reply = ReplyWriter(manifest.correction, manifest.tasks, manifest.name, manifest.version)
        reader = SlateReader()
    except CompiledUnavailable:
        return None  # said once, where the service starts
    except ValueError as error:
        log.info("not_compiled", model=manifest.name, version=manifest.version, reason=str(error))
        return None
    for number, row in enumerate(bundle.golden):
        if not (_encodes(bundle, reader, encoder, row.query) and _writes(bundle, reply, row.logits)):
            log.warning("compiled_differs", model=manifest.name, version=manifest.version, golden=number)
            return None
    return CompiledVersion(encoder, reply)


def _encodes(bundle: Bundle, reader: SlateReader, encoder: SlateEncoder, query: ScoreQuery) -> bool:
    rows = rows_from_query(bundle.fitted, query, None)
    body = orjson.dumps(
        {
            "user_id": query.user_id,
            "candidates": query.candidates,
            "ts": query.ts,
            "context": query.context,
            "user_features": query.user_features,
            "candidate_features": query.candidate_features,
        }
    )
    slate = reader.read(body, _ANY)
    if slate is None:
        return True  # what is declined goes the ordinary way
    events = rows.behaviours.events
    found = encoder.encode(slate, pack(events) if len(events) else None, None, _EVENTS, time.time())
    return found is None or _same(found, bundle.encoder.encode(rows).take(None))


def _same(found: EncodedSlate, wanted: Mapping[str, NDArray[Any]]) -> bool:
    # An ulp of float32 apart at most: a logarithm of another library may differ in its last bit.
    return found.inputs.keys() == wanted.keys() and all(
        array.shape == wanted[name].shape
        and array.dtype == wanted[name].dtype
        and np.allclose(array, wanted[name], rtol=3e-7, atol=0)
        for name, array in found.inputs.items()
    )


def _writes(bundle: Bundle, reply: ReplyWriter, logits: NDArray[Any]) -> bool:
    slate = np.ascontiguousarray(logits, dtype=np.float32)[None]
    written = reply.write(slate, "golden", "store", 0, (), False, False)
    if written is None:
        return True
    scores = orjson.loads(written.body)["scores"]
    wanted = bundle.manifest.correction.probabilities(slate.astype(np.float64), bundle.manifest.tasks)
    return all(np.allclose(scores[f"p{task}"], values[0], rtol=1e-12, atol=0) for task, values in wanted.items())

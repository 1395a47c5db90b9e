"""POST /score with its two kinds of body: JSON, and a stream of Arrow columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.serving.direct import expected, open_direct
from benchmarks.serving.load import JSON, Closed, target
from benchmarks.serving.rounds import summary
from benchmarks.serving.running import Server, Slice, largest, loaded
from benchmarks.serving.service_rows import CLIENTS, stored_service
from benchmarks.serving.slates import Slate, SlateSizes, slates
from benchmarks.serving.variants import Variant

ARROW: Final = "application/vnd.apache.arrow.stream"
SIZES: Final = (100, 1000)
_CHECKED: Final = 4
_LEAST_REQUESTS: Final = 24


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of body and the kind of answer that it asks for.

    Attributes:
        write: a slate as bytes.
        read: scores (C,) of the first task from an answer's bytes.
    """

    content_type: str
    accept: str
    write: Callable[[Slate], bytes]
    read: Callable[[bytes, str], NDArray[np.float64]]


def arrow_body(slate: Slate) -> bytes:
    """The candidates as a column, the rest as JSON in the metadata."""
    rest = orjson.dumps({"user_id": slate.user_id, "context": slate.context})
    batch = pa.record_batch({"item_id": slate.candidates}).replace_schema_metadata({b"request": rest})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _json_scores(reply: bytes, task: str) -> NDArray[np.float64]:
    return np.array(orjson.loads(reply)["scores"][task], dtype=np.float64)


def _arrow_scores(reply: bytes, task: str) -> NDArray[np.float64]:
    with pa.ipc.open_stream(pa.py_buffer(reply)) as stream:
        table = stream.read_all()
    return np.asarray(table.column(task).to_numpy(), dtype=np.float64)


FORMS: Final[Mapping[str, Form]] = {
    "JSON": Form(JSON, "", lambda slate: slate.body, _json_scores),
    "Arrow, answered in JSON": Form(ARROW, "", arrow_body, _json_scores),
    "Arrow, answered in Arrow": Form(ARROW, ARROW, arrow_body, _arrow_scores),
}


def body_rows(bundle: Path, store_url: str, variant: Variant, rounds: int, slice_s: float) -> dict[str, Any]:
    """Every kind of body under eight clients, in turns, at each size of slate.

    Returns:
        By number of candidates and kind of body: requests a second, CPU time a request and bytes of a body.

    Raises:
        ScoresDiffer: if a kind of body does not give the scores of the graph.
    """
    found = {}
    for candidates in SIZES:
        made = slates(SlateSizes(candidates=candidates))
        wanted = expected(open_direct(bundle, variant).version, made[:_CHECKED])
        with ExitStack() as stack:
            server = stored_service(stack, bundle.parent.parent, store_url, made, variant.settings)
            check_forms(server, made[:_CHECKED], wanted)
            found[str(candidates)] = _in_turns(server, made, rounds, slice_s)
    return found


def check_forms(server: Server, made: Sequence[Slate], wanted: Sequence[NDArray[np.float64]]) -> None:
    """Have every kind of body answered with the scores that are wanted, one (C,) a slate.

    Raises:
        ScoresDiffer: if one is not.
    """
    for name, form in FORMS.items():
        replies = [server.send(form.write(slate), form.content_type, form.accept) for slate in made]
        scores = [form.read(reply, server.task) for reply in replies]
        largest(f"the body {name}", list(zip(scores, wanted, strict=True)))


def _in_turns(server: Server, made: Sequence[Slate], rounds: int, slice_s: float) -> dict[str, Any]:
    seen: dict[str, list[Slice]] = {name: [] for name in FORMS}
    with ExitStack() as stack:
        ready = {}
        for name, form in FORMS.items():
            bodies = [form.write(slate) for slate in made]
            where = target(server.url, server.path, bodies, form.content_type, form.accept)
            with loaded(server, where, Closed(connections=CLIENTS, requests=_LEAST_REQUESTS)) as first:
                requests = max(_LEAST_REQUESTS, round(first.slice().load.per_second * slice_s))
            plan = Closed(connections=CLIENTS, requests=requests)
            ready[name] = stack.enter_context(loaded(server, where, plan))
        for _ in range(rounds):
            for name, side in ready.items():
                seen[name].append(side.slice())
    return {
        name: {
            "requests_per_second": summary([part.load.per_second for part in parts], 1),
            "request_cpu_us": summary([part.cpu_us for part in parts], 1),
            "loop_us": summary([part.first_us for part in parts], 1),
            "body_bytes": len(FORMS[name].write(made[0])),
        }
        for name, parts in seen.items()
    }

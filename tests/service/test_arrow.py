"""POST /score with an Arrow stream: the same verdicts and scores as the same request in JSON, and nothing worse."""

import asyncio
import io
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from benchmarks.serving.app import quiet_settings, running
from service.api import arrow_body
from service.api.arrow_body import ARROW
from service.api.arrow_stream import END, MARK
from service.api.flat_table import FlatTable
from service.errors import BadRequest, InvalidFeatures

LIMITS = {"candidates": 20, "behaviours": 3, "id_bytes": 40, "deadline_ms": 30_000}
TEXTS = pa.list_(pa.string())


def stream(columns: dict[str, pa.Array], request: Any = None, *, batches: int = 1, **options: Any) -> bytes:
    """An Arrow stream of these columns, its rows spread over some batches."""
    metadata = {} if request is None else {"request": request if isinstance(request, bytes) else json.dumps(request)}
    schema = pa.schema({name: column.type for name, column in columns.items()}, metadata=metadata)
    table = pa.Table.from_arrays(list(columns.values()), schema=schema)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for part in range(batches):
            size = -(-len(table) // batches)
            writer.write_table(table.slice(part * size, size))
    return sink.getvalue()


GOOD = stream({"item_id": pa.array(["1", "2"]), "price": pa.array([1.5, None])}, {"user_id": "7", "behaviours": []})


def send(models: Path, *requests: tuple[bytes, str, str]) -> list[httpx.Response]:
    """Post (body, content type, accept) to a fresh service."""

    async def post() -> list[httpx.Response]:
        async with running(quiet_settings(models, "memory://", limits=LIMITS)) as client:
            return [
                await client.post("/score", content=content, headers={"content-type": kind, "accept": accept})
                for content, kind, accept in requests
            ]

    return asyncio.run(post())


def random_request(rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, pa.Array]]:
    """The part of a request that is said once, and its columns; half of them have something wrong with them."""
    sane = rng.random() < 0.5

    def one(good: list[Any], wrong: list[Any] | None = None) -> Any:
        values = wrong if wrong is not None and not sane and rng.random() < 0.3 else good
        return values[rng.integers(len(values))]

    rows = one([1, 1, 3, 5, 20], [0, 21])
    past = {"item_id": "3", "ts": 5}
    said: dict[str, Any] = {
        "behaviours": one([[], [past], [past | {"type": "rate", "value": 4.5}] * 2], [[past] * 4, "none"])
    }
    optional: dict[str, tuple[list[Any], list[Any]]] = {
        "user_id": (["7", None], ["", 7, "x" * 41]),
        "context": ([{"hour": 3}, {}], [{"hour": "3"}, {"price": 1}, {"colour": 1}, 5]),
        "user_features": ([{"age": 31, "occupation": "writer"}, {"age": None}], [{"age": math.nan}, []]),
        "ts": ([1000, 1000.5, None], [-1, "now", 2**32]),
        "raw": ([True, False], [1]),
        "model": (["movies", None], ["films", 3]),
        "behaviours": ([[]], [[{"item_id": "3"}], None]),
    }
    for name, (good, wrong) in optional.items():
        if rng.random() < 0.3:
            said[name] = one(good, wrong)
    if not sane and rng.random() < 0.05:
        said["surprise"] = 1
    ids = [one(["1", "2", "39", "unseen", "ü"], ["", "x" * 41] if rng.random() < 0.1 else None) for _ in range(rows)]
    columns = {"item_id": pa.array(ids, one([pa.string(), pa.large_string()]))}
    if not sane and rows <= LIMITS["candidates"] and rng.random() < 0.1:
        wrong = one([pa.array([None] * rows, pa.string()), pa.array(range(rows)), None])
        columns = {} if wrong is None else {"item_id": wrong}
    numbers = [pa.array(rng.normal(size=rows), kind) for kind in (pa.float64(), pa.float32())]
    some = [pa.array([one([1, -7, None]) for _ in range(rows)], kind) for kind in (pa.float64(), pa.int64())]
    prices = [
        pa.array([one([1.0, math.nan, math.inf, None]) for _ in range(rows)], pa.float64()),
        pa.array([one(["1", "x"]) for _ in range(rows)], pa.string()),
        pa.array([one([[], ["1"], None]) for _ in range(rows)], TEXTS),
    ]
    features: dict[str, tuple[list[pa.Array], list[pa.Array]]] = {
        "price": ([*numbers, *some, pa.nulls(rows)], prices),
        "category": ([pa.array([one(["drama", None, "comedy"]) for _ in range(rows)], pa.string())], prices),
    }
    for name, (fitting, unfit) in features.items():
        if rng.random() < 0.5:
            columns[name] = one(fitting, unfit)
    if not sane and rng.random() < 0.1:
        columns[one(["age", "a/b~c"])] = pa.array([True] * rows)
    return said, columns


def as_json(said: dict[str, Any], columns: dict[str, pa.Array]) -> bytes:
    """The same request as a JSON body."""
    document = dict(said)
    values = {name: column.to_pylist() for name, column in columns.items()}
    if "item_id" in values:
        document["candidates"] = values.pop("item_id")
    if values:
        document["candidate_features"] = values
    return json.dumps(document).encode()


def without_ids(reply: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = reply.json()
    return {name: value for name, value in found.items() if name not in {"request_id", "instance"}}


def test_streams_get_what_the_same_json_gets(published: Path) -> None:
    rng = np.random.default_rng(0)
    asked = [random_request(rng) for _ in range(600)]
    streams = [(stream(columns, said, batches=int(rng.integers(1, 4))), ARROW, "*/*") for said, columns in asked]
    documents = [(as_json(said, columns), "application/json", "*/*") for said, columns in asked]
    binary, plain = send(published, *streams), send(published, *documents)
    for ours, theirs, (said, columns) in zip(binary, plain, asked, strict=True):
        assert ours.status_code == theirs.status_code, (said, columns, ours.text, theirs.text)
        assert ours.headers["content-type"] == theirs.headers["content-type"]
        assert without_ids(ours) == without_ids(theirs), (said, columns)
    codes = [reply.status_code for reply in plain]
    assert {200, 404, 422} <= set(codes)
    assert min(codes.count(200), codes.count(422)) > 100, "both verdicts have to be met often"


def test_the_reply_is_a_stream_where_the_caller_asks_for_one(published: Path) -> None:
    body = stream({"item_id": pa.array(["1", "2", "3"])}, {"behaviours": [], "ts": 1000, "raw": True})
    plain, binary, problem = send(
        published,
        (body, ARROW, "application/json"),
        (body, f"{ARROW}; charset=binary", f"text/html, {ARROW};q=0.9"),
        (body[:-1], ARROW, ARROW),
    )
    assert plain.headers["content-type"] == "application/json"
    assert binary.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(binary.content).read_all()
    said = plain.json()
    assert table.column_names == ["pctr", "pcvr", "pctcvr", "logit_ctr", "logit_cvr"]
    for task, scores in said["scores"].items():
        assert table[task].to_pylist() == scores
    assert table["logit_cvr"].to_pylist() == said["logits"]["cvr"]
    facts = json.loads(table.schema.metadata[b"reply"])
    assert facts.pop("request_id") == binary.headers["x-request-id"]
    assert facts == {name: said[name] for name in ("model", "behaviours", "degraded", "warnings")}
    assert (problem.status_code, problem.headers["content-type"]) == (400, "application/problem+json")


@pytest.fixture(scope="module")
def read() -> Callable[[bytes], dict[str, Any]]:
    """Decode as the service does, without the service."""
    settings = quiet_settings(Path("none"), "memory://", limits=LIMITS)
    return lambda raw: arrow_body.read(raw, settings)


def test_a_stream_that_is_cut_off_anywhere_is_refused(read: Callable[[bytes], Any]) -> None:
    assert read(GOOD)["candidates"] == ["1", "2"]
    for length in range(len(GOOD)):
        with pytest.raises(BadRequest):
            read(GOOD[:length])
    for rest in (b"\0", END, GOOD):
        with pytest.raises(BadRequest):
            read(GOOD + rest)


def test_flipped_bits_are_refused_or_read_and_take_no_memory(read: Callable[[bytes], Any]) -> None:
    columns = {
        "item_id": pa.array(["1", "22", "3"]),
        "price": pa.array([1.5, None, 2.0]),
        "tags": pa.array([["a"], [], None], TEXTS),
    }
    good = stream(columns, {"user_id": "7"}, batches=2)
    rng = np.random.default_rng(0)
    before = pa.default_memory_pool().max_memory()
    refused = 0
    for turn in range(6000):
        damaged = bytearray(good)
        for _ in range(1 + turn % 4):
            place = int(rng.integers(len(good)))
            damaged[place] = int(rng.integers(256)) if turn % 2 else damaged[place] ^ 1 << int(rng.integers(8))
        refused += is_refused(read, bytes(damaged))
    assert refused > 1500
    assert pa.default_memory_pool().max_memory() - before < 2**20


def is_refused(read: Callable[[bytes], Any], raw: bytes) -> bool:
    """Whether a stream is refused; any other exception than the service's own is a failure."""
    try:
        read(raw)
    except (BadRequest, InvalidFeatures):
        return True
    return False


def message_at(raw: bytes, number: int) -> tuple[int, FlatTable, bytearray]:
    """Where the metadata of a message stands in a stream, its table, and the stream to be changed."""
    at, found = 0, bytearray(raw)
    for _ in range(number + 1):
        (length,) = struct.unpack_from("<i", raw, at + 4)
        start = at + 8
        table = FlatTable.root(memoryview(found)[start : start + length])
        at = start + length + table.number("<q", 3)
    return start, table, found


def test_lengths_that_are_not_there_are_refused(read: Callable[[bytes], Any]) -> None:
    for form, values in (("<i", (2**31 - 1, -1)), ("<q", (2**62, -1, 2**31))):
        for place in range(0, len(GOOD) - 8, 4):
            for value in values:
                damaged = bytearray(GOOD)
                struct.pack_into(form, damaged, place, value)
                is_refused(read, bytes(damaged))


def test_columns_that_share_their_bytes_are_refused(read: Callable[[bytes], Any]) -> None:
    good = stream({"item_id": pa.array(["1", "2"]), "a": pa.array(["text"] * 2), "b": pa.array(["text"] * 2)})
    start, message, damaged = message_at(good, 1)
    batch = message.table(2)
    pairs = list(batch.pairs(2))
    raw = bytes(damaged)
    third, last = (struct.pack("<qq", *pairs[number]) for number in (5, 8))
    assert raw.count(last) == 1
    with pytest.raises(BadRequest, match="overlap"):
        read(raw.replace(last, third))
    assert start


def test_fields_that_share_their_name_are_refused(read: Callable[[bytes], Any]) -> None:
    columns = {"n" * 2000: pa.array([1, 2]), **{f"c{number}": pa.array([1, 2]) for number in range(30)}}
    start, message, damaged = message_at(stream(columns), 0)
    schema = message.table(2)
    vector = schema._target(1)
    first = vector + 4 + struct.unpack_from("<I", damaged, start + vector + 4)[0]
    for number in range(31):
        place = vector + 4 + 4 * number
        if first > place:
            struct.pack_into("<I", damaged, start + place, first - place)
    with pytest.raises(BadRequest, match=r"share|column twice"):
        read(bytes(damaged))


def test_null_columns_hold_no_more_rows_than_are_allowed(read: Callable[[bytes], Any]) -> None:
    with pytest.raises(InvalidFeatures) as caught:
        read(stream({"item_id": pa.nulls(2**30)}))
    (problem,) = caught.value.problems
    assert (problem.pointer, problem.code) == ("/candidates", "too_many_items")


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_streams_are_refused(read: Callable[[bytes], Any], codec: str) -> None:
    with pytest.raises(BadRequest, match="must not be compressed"):
        read(stream({"item_id": pa.array(["a" * 1000] * 5)}, compression=codec))


NO_FORM = [
    pa.array(["a", "b"]).dictionary_encode(),
    pa.array([b"a", b"b"]),
    pa.array([[1], [2]]),
    pa.array([[None], []]),
    pa.array([["a"], ["b"]], pa.list_(pa.string(), 1)),
    pa.array([[["a"]], []], pa.list_(TEXTS)),
    pa.array([{"a": 1}, {"a": 2}]),
    pa.array([1, 2], pa.timestamp("s", "UTC")),
    pa.array(["a", "b"], pa.string_view()),
    pa.array([1, 2], pa.decimal128(5)),
]


@pytest.mark.parametrize("column", NO_FORM, ids=lambda column: str(column.type))
def test_columns_without_a_json_form_are_named(read: Callable[[bytes], Any], column: pa.Array) -> None:
    for name, pointer in (("item_id", "/candidates"), ("a/b", "/candidate_features/a~1b")):
        with pytest.raises(InvalidFeatures) as caught:
            read(stream({name: column, "other": pa.array([1, 2])}))
        assert [problem.pointer for problem in caught.value.problems] == [pointer]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "whole Arrow stream"),
        (END, "one Arrow stream"),
        (b'{"candidates": ["1"]}', "whole Arrow stream"),
        (MARK + struct.pack("<i", 8) + bytes(8) + END, "whole Arrow stream"),
        (stream({"item_id": pa.array(["1"])}, b'{"user_id": 1'), "not JSON"),
        (stream({"item_id": pa.array(["1"])}, b"[" * 50), "nested deeper"),
        (stream({"item_id": pa.array(["1"])}, b"\xff"), "UTF-8"),
        (stream({"item_id": pa.array(["1"])}, b"[1]"), "must be a JSON object"),
    ],
)
def test_what_is_no_request_is_refused(read: Callable[[bytes], Any], raw: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        read(raw)


def test_columns_are_not_said_twice(read: Callable[[bytes], Any]) -> None:
    with pytest.raises(InvalidFeatures) as caught:
        read(stream({"item_id": pa.array(["1"])}, {"candidates": ["2"]}))
    assert [problem.pointer for problem in caught.value.problems] == ["/candidates"]
    twice = pa.schema([("item_id", pa.string()), ("item_id", pa.string())])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, twice) as writer:
        writer.write_batch(pa.record_batch([pa.array(["1"]), pa.array(["2"])], schema=twice))
    with pytest.raises(BadRequest, match="column twice"):
        read(sink.getvalue())

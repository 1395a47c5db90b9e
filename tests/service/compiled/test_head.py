"""The compiled reader of heads against the server's own parser: it may give up, it may never differ."""

import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httptools
import pytest

from service.api.body import read_bytes
from service.api.identity import identify
from service.compiled.head import Head, HeadReader
from service.compiled.library import CompiledUnavailable
from service.settings import Settings
from tests.service.compiled.heads import BODY, FURTHER, ODD, PATHS, TRACE, mutations, plain, request

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
SETTINGS = Settings()  # whose deadline is shorter than the wait for a body, so that reading one needs no timer
KEPT = ("authorization", "x-api-key", "x-request-deadline-ms")


class Heard:
    """What the server's parser makes of some bytes."""

    def __init__(self, data: bytes) -> None:
        self.url = self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = self.complete = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def accepted_body(heard: Heard) -> bytes:
    """The body as the ordinary way takes it; raises what that would answer."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": heard.body, "more_body": False}

    headers = {name.decode(): value.decode("latin-1") for name, value in reversed(heard.headers)}
    reading = read_bytes(headers, receive, SETTINGS)
    with pytest.raises(StopIteration) as ended:
        reading.send(None)
    _, body = ended.value.value
    return bytes(body)


def check_same(head: Head, data: bytes) -> None:
    """What was accepted is what the server's parser and ``identify`` say."""
    heard = Heard(data)
    parser = heard.parser
    assert (heard.begun, heard.complete) == (1, 1)
    assert parser.get_method() == b"POST"
    assert parser.get_http_version() == "1.1"
    assert parser.should_keep_alive()
    assert not parser.should_upgrade()
    assert head.path.encode() == heard.url
    assert head.uri_bytes == len(heard.url)
    assert head.body == heard.body == accepted_body(heard)
    once, twice = identify(heard.headers), identify(heard.headers)
    assert head.header_bytes == once.header_bytes
    assert head.others == {name: once.headers[name] for name in KEPT if name in once.headers}
    if once.request_id == twice.request_id:  # the caller's
        assert head.request_id == once.request_id
    else:
        assert UUID7.match(head.request_id)
    if once.trace_id == twice.trace_id:
        assert head.trace_id == once.trace_id
    assert TRACEPARENT.match(head.traceparent)
    assert head.traceparent[3:35] == head.trace_id
    assert head.traceparent[53:] == once.traceparent[53:]
    assert head.traceparent[36:52] not in {span.decode() for _, value in heard.headers for span in value.split(b"-")}


@pytest.fixture(scope="module")
def reader(compiled_library: Path) -> HeadReader:
    return HeadReader(PATHS, compiled_library)


@pytest.mark.parametrize("seed", range(3))
def test_plain_requests_are_read_as_the_server_reads_them(reader: HeadReader, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(500):
        data = plain(rng)
        head = reader.read(data)
        assert head is not None, data
        check_same(head, data)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_to_a_request_it_is_read_alike_or_not_at_all(reader: HeadReader, seed: int) -> None:
    read = 0
    for data in mutations(random.Random(100 + seed), 3000):
        head = reader.read(data)
        if head is not None:
            read += 1
            check_same(head, data)
    assert 100 < read < 1500


@pytest.mark.parametrize("header", FURTHER, ids=repr)
def test_further_headers_do_no_harm(reader: HeadReader, header: bytes) -> None:
    data = request(header)
    head = reader.read(data)
    assert head is not None
    check_same(head, data)


@pytest.mark.parametrize("header", ODD, ids=repr)
def test_odd_headers_are_left_to_the_server(reader: HeadReader, header: bytes) -> None:
    assert reader.read(request()) is not None
    assert reader.read(request(header)) is None


def lines(*headers: bytes, body: bytes = BODY, kind: bytes = b"application/json") -> bytes:
    """A request with exactly these headers about its body."""
    start = b"POST /score HTTP/1.1", b"Host: x", b"Content-Type: " + kind
    return b"\r\n".join((*start, *headers, b"", body))


LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"
SMUGGLED = {
    "a length and chunks": lines(LENGTH, b"Transfer-Encoding: chunked"),
    "chunks and a length": lines(b"Transfer-Encoding: chunked", LENGTH),
    "chunks hidden by a blank": lines(b"Transfer-Encoding : chunked", LENGTH),
    "chunks hidden by a tab": lines(b"Transfer-Encoding:\tchunked", LENGTH),
    "chunks alone": lines(b"Transfer-Encoding: chunked", body=CHUNKED),
    "two lengths": lines(LENGTH, b"Content-Length: 0"),
    "the same length twice": lines(LENGTH, LENGTH),
    "a list of lengths": lines(LENGTH + b", %d" % len(BODY)),
    "no length": lines(),
    "no length and no body": lines(body=b""),
    "a length with a sign": lines(b"Content-Length: +%d" % len(BODY)),
    "a negative length": lines(b"Content-Length: -1"),
    "a length with a nought before it": lines(b"Content-Length: 0%d" % len(BODY)),
    "a hexadecimal length": lines(b"Content-Length: 0x%x" % len(BODY)),
    "a length with a point": lines(LENGTH + b".0"),
    "a length in parts": lines(b"Content-Length: 5 4"),
    "a length of 19 digits": lines(b"Content-Length: " + b"9" * 19),
    "a length that wraps to the right one": lines(b"Content-Length: %d" % (2**64 + len(BODY))),
    "a length that is too short": lines(b"Content-Length: %d" % (len(BODY) - 1)),
    "a length that is too long": lines(b"Content-Length: %d" % (len(BODY) + 1)),
    "a second request behind the first": request() + request(),
    "a line's end behind the request": request() + b"\r\n",
    "a line's end before the request": b"\r\n" + request(),
    "lines that end with LF": request(end=b"\n"),
    "lines that end with CR": request(end=b"\r"),
    "a folded line": lines(LENGTH, b"X: a\r\n b"),
    "a blank before the colon": lines(b"Content-Length : %d" % len(BODY)),
    "a blank before the first name": request().replace(b"\r\nHost", b"\r\n Host"),
    "NUL in a value": lines(LENGTH, b"X: a\0b"),
    "NUL in a name": lines(LENGTH, b"X\0: a"),
    "another line in a value": lines(LENGTH, b"X: a\nTransfer-Encoding: chunked"),
    "no host": request().replace(b"Host", b"Hose"),
    "two hosts": lines(LENGTH, b"Host: x"),
    "no type": request().replace(b"-Type", b"-Kind"),
    "another type": lines(LENGTH, kind=b"application/jsonp"),
    "a relative of the type": lines(LENGTH, kind=b"application/x+json"),
    "two types": lines(LENGTH, kind=b"application/json, text/plain"),
    "HTTP/1.0": request(line=b"POST /score HTTP/1.0"),
    "HTTP/2": request(line=b"POST /score HTTP/2.0"),
    "no version": request(line=b"POST /score"),
    "another method": request(line=b"PUT /score HTTP/1.1"),
    "a method in lower case": request(line=b"post /score HTTP/1.1"),
    "a query": request(line=b"POST /score?a HTTP/1.1"),
    "a fragment": request(line=b"POST /score#a HTTP/1.1"),
    "an escaped path": request(line=b"POST /scor%65 HTTP/1.1"),
    "a longer path": request(line=b"POST /scores HTTP/1.1"),
    "a whole address": request(line=b"POST http://x/score HTTP/1.1"),
    "two blanks behind the path": request(line=b"POST /score  HTTP/1.1"),
    "a tab behind the path": request(line=b"POST /score\tHTTP/1.1"),
    "more behind the version": request(line=b"POST /score HTTP/1.1 "),
    "65 headers": request(*(b"X: 1" for _ in range(62))),
    "nothing": b"",
    "only an end": b"\r\n\r\n",
}


@pytest.mark.parametrize("data", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_what_two_parsers_may_read_differently_is_left_to_the_server(reader: HeadReader, data: bytes) -> None:
    assert reader.read(lines(LENGTH)) is not None
    assert reader.read(data) is None


def test_a_request_of_64_headers_is_plain(reader: HeadReader) -> None:
    data = request(*(b"X: 1" for _ in range(61)))
    head = reader.read(data)
    assert head is not None
    check_same(head, data)


def test_only_a_whole_request_is_read(reader: HeadReader) -> None:
    data = request(b"Accept: */*", b"traceparent: " + TRACE)
    assert [end for end in range(len(data) + 1) if reader.read(data[:end]) is not None] == [len(data)]


def test_a_request_awaits_what_its_plain_head_announces(compiled_library: Path) -> None:
    reader = HeadReader(PATHS, compiled_library)
    data = request(b"Accept: */*")
    head = len(data) - len(BODY)
    awaited = [reader.awaits(data[:end]) for end in range(len(data) + 1)]
    assert awaited == [0] * head + list(range(len(BODY), -1, -1))
    assert reader.awaits(data + b"x") == 0


@pytest.mark.parametrize(
    "header", [b"Transfer-Encoding: chunked", b"Expect: 100-continue", LENGTH, b"Host: x"], ids=repr
)
def test_nothing_unplain_is_waited_for(reader: HeadReader, header: bytes) -> None:
    assert reader.awaits(lines(LENGTH)[:-3]) == 3
    assert reader.awaits(lines(LENGTH, header)[:-3]) == 0


def test_the_first_of_a_header_counts(reader: HeadReader) -> None:
    head = reader.read(request(b"X-Api-Key: one", b"x-api-key: two", b"x-request-id: a", b"x-request-id: b"))
    assert head is not None
    assert head.others == {"x-api-key": "one"}
    assert head.request_id == "a"


def test_made_up_ids_are_of_now_and_never_the_same(reader: HeadReader) -> None:
    before = time.time_ns() // 1_000_000
    heads = [reader.read(request()) for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    read = [head for head in heads if head is not None]
    assert len(read) == 1000
    for part in ({head.request_id[14:] for head in read}, {head.trace_id for head in read}):
        assert len(part) == 1000
    assert len({head.traceparent[36:52] for head in read}) == 1000
    assert all(before <= int(head.request_id[:8] + head.request_id[9:13], 16) <= after for head in read)
    assert all(UUID7.match(head.request_id) for head in read)


def test_a_forked_process_makes_up_other_ids(reader: HeadReader) -> None:
    assert reader.read(request()) is not None  # some random bytes are at hand
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = reader.read(request())
            os.write(theirs, b"" if told is None else told.trace_id.encode())
        finally:
            os._exit(0)  # what follows is the parent's
    os.close(theirs)
    with os.fdopen(ours, "rb") as file:
        told_by_child = file.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    head = reader.read(request())
    assert head is not None
    assert len(told_by_child) == 32
    assert told_by_child != head.trace_id


def test_a_path_that_no_request_line_can_hold_is_refused(compiled_library: Path) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        HeadReader(["/sc ore"], compiled_library)


def test_without_a_library_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CompiledUnavailable, match="was not built"):
        HeadReader(PATHS, tmp_path / "none.so")


def test_under_the_sanitizers(run_sanitized: Callable[[str], None]) -> None:
    run_sanitized("tests.service.compiled.heads")

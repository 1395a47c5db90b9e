"""Requests, plain and unplain in every way that chance finds; also run as a program, in a sanitized process."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from service.compiled.head import HeadReader

PATHS = ("/score", "/v1/score")
BODY = b'{"user_id": "1", "candidates": ["1", "2"], "ts": 1000}'
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PLAIN = [b"Host: localhost:8000", b"Content-Type: application/json"]
# What a plain request may say besides.
FURTHER = [
    *(b"Accept: */*", b"accept:application/json, text/plain", b"ACCEPT:   text/html", b"User-Agent: x/1 (y; z)"),
    *(b"Authorization: Bearer abc", b"X-Api-Key: k-1", b"x-api-key: k-2", b"X-Request-Deadline-Ms: 50"),
    *(b"X-Request-Id: caller-1.a_B", b"x-request-id: not an id", b"X-REQUEST-ID: " + b"i" * 128),
    *(b"x-request-id: " + b"i" * 129, b"x-request-id: another"),
    *(b"traceparent: " + TRACE, b"Traceparent: " + TRACE.upper(), b"traceparent: " + TRACE.replace(b"00-4", b"01-4")),
    *(b"traceparent: 00-" + b"0" * 32 + TRACE[35:], b"traceparent: " + TRACE[:36] + b"0" * 16 + b"-01"),
    *(b"traceparent: " + TRACE + b"-x", b"traceparent: " + TRACE.replace(b"-00f0", b"-10f0")),
    *(b"tracestate: a=1,b=2", b"Accept-Encoding: gzip, deflate", b"Cookie: a=b\t; c", b"!#$%&'*+.^_`|~-9: token"),
    *(b"Keep-Alive: timeout=5", b"Forwarded: for=1.2.3.4", b"Date: Sun, 06 Nov 1994 08:49:37 GMT"),
]
# What it may not say, or may not say so.
ODD = [
    *(b"Transfer-Encoding: chunked", b"transfer-encoding: identity", b"Expect: 100-continue", b"Upgrade: h2c"),
    *(b"Content-Encoding: gzip", b"TE: trailers", b"Trailer: x", b"Proxy-Connection: keep-alive", b"Host: other"),
    *(b"Connection: close", b"Connection: Upgrade", b"Connection: keep-alive, te", b"Content-Length: 5"),
    *(b"Content-Type: text/plain", b"X : 1", b" folded: 1", b"\tfolded", b"X:", b"X: ", b"X: 1 ", b"X: 1\t", b"X:\t1"),
    *(b"X: \x00", b"X: a\rb", b"X: a\nb", b"X: \x7f", b"X: \xfc", b"X\xfc: 1", b": 1", b"X", b"", b"X(y): 1"),
]
_PIECES = [
    b"",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b"\x00",
    b"\x7f",
    b"\xff",
    b"0",
    b"a",
    b",",
    b";",
]


def request(*headers: bytes, body: bytes = BODY, line: bytes = b"POST /score HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    """A request of some lines and its length."""
    return end.join((line, *PLAIN, *headers, b"Content-Length: %d" % len(body), b"", body))


def plain(rng: random.Random) -> bytes:
    """A request that is right."""
    body = rng.choice([BODY, b"", b"\r\n\r\n", bytes(rng.randrange(256) for _ in range(rng.randrange(40)))])
    kind = rng.choice([b"application/json", b"Application/JSON", b"application/json ; a=b", b"application/json;x"])
    headers = [b"hOsT: " + rng.choice([b"a", b"[::1]:80"]), b"content-TYPE:" + b" " * rng.randrange(3) + kind]
    headers += [b"Content-length: %d" % len(body), *rng.choices(FURTHER, k=rng.randrange(9))]
    headers += rng.choice([[], [b"Connection: keep-alive"], [b"connection: Keep-Alive"]])
    rng.shuffle(headers)
    line = b"POST %s HTTP/1.1" % rng.choice(PATHS).encode()
    return b"\r\n".join((line, *headers, b"", body))


def mutations(rng: random.Random, count: int) -> Iterator[bytes]:
    """Requests that were right until something happened to them."""
    for _ in range(count):
        data = plain(rng)
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        place = rng.randrange(len(data))
        odd = rng.choice(ODD + lines)
        where = rng.randrange(1, len(lines) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            yield b"\r\n".join((*lines[:where], odd, *lines[where:], b"", body))
        elif kind == 1:
            yield b"\r\n".join((*lines[: where - 1], *lines[where:], b"", body))
        elif kind == 2:
            yield data[:place]
        elif kind == 3:
            yield data[:place] + rng.choice(_PIECES) + data[place + rng.randrange(2) :]
        elif kind == 4:
            yield data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
        else:
            yield data + rng.choice([b"\n", b"x", data])


def main() -> int:
    """Read them all with the library that the command line names."""
    reader = HeadReader(PATHS, Path(sys.argv[1]))
    rng = random.Random(5)
    read = 0
    for data in mutations(rng, 4000):
        waiting = reader.awaits(data)
        read += waiting == 0 and reader.read(data) is not None
    return 0 if 0 < read < 4000 and reader.read(plain(rng)) is not None else 1


if __name__ == "__main__":
    sys.exit(main())

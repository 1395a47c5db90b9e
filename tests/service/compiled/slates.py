"""Bodies of /score and stored values, plain and unplain in every way that chance finds; also run as a program, in a
sanitized process."""

import json
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bundle.behaviours import pack
from bundle.fitting import FittedSchema
from bundle.ids import id64
from bundle.schema import FeatureSchema
from service.compiled.slate import Slate, SlateLimits, SlateReader
from service.compiled.slate_encoding import SlateEncoder
from tests.bundle.samples import ITEMS, fitted_shop, random_log
from tests.service.bodies import ODDITIES, damaged

LIMITS = SlateLimits(6, 40)
WHOLE: dict[str, Any] = {
    "user_id": "196",
    "candidates": ["1", "ü:2", "unseen item", "東京 / 5"],
    "context": {"hour": 20, "day": "montag", "nothing": None, "temperature": -3.25e-2},
    "user_features": {"age": 31.5, "occupation": "writer", "größe": ""},
    "candidate_features": {"price": [None, 9.5, None, -3], "category": ["drama", None, "x:y", ""], "none": [None] * 4},
    "behaviours": None,
    "ts": 1000,
    "raw": True,
    "model": "movies@1.0.0",
}
_TEXTS = ["x", "", "ü", "a" * 17, "b" * 200, "東京", "😀", " spaced out ", "1e5", "/", "\x7f"]
# Values that the store may hold under any name.
STORED = [None, True, False, 7, -0.5, 1e30, "", "4", "ü", [], ["1", None, 2.5], [True], 2**53, 10**25]
# The same in ways that only the ordinary decoder reads, or that nothing does.
ODD_STORED = [
    *(b"", b"{", b"[]", b"null", b"{}x", b'{"a": {"b": 1}}', b'{"a": [[1]]}', b'{"a": [{}]}', b'{"age": 1e400}'),
    *(b'{"hour": "\\u0031"}', b'{"\\u0061ge": 3}', b'{"age": 1, "age": 2}', b'{"hour": 5, "hour": "1"}', b"\xff"),
    *(b'{"hour": "\xff"}', b'{"tags": ["1"]}', b'{"tags": "1,2"}', b'{"age": 9007199254740993}', b'{"age": 01}'),
    *(b'{"a": [1,]}', b'{"a": "\n"}', b'{"hour": "' + b"x" * 300 + b'"}', b'{"a": "' + b"x" * 65536 + b'"}'),
]


def number(rng: random.Random, digits: int = 18) -> int | float:
    """A number that JSON may hold, of so many digits at most where it is a whole one."""
    whole: int = rng.randrange(10 ** rng.randrange(1, digits)) * rng.choice([1, -1])
    return rng.choice([whole, rng.uniform(-1e3, 1e3), rng.uniform(-1, 1) * 10.0 ** rng.randrange(-40, 38), 0, -0.0])


def _value(rng: random.Random, kind: int) -> Any:
    if rng.random() < 0.2:
        return None
    return number(rng) if kind else rng.choice(_TEXTS)


def plain(rng: random.Random) -> dict[str, Any]:
    """A body that is right: some of the fields in any order, with values of its own."""
    body = {name: WHOLE[name] for name in WHOLE if name == "candidates" or rng.random() < 0.6}
    count = rng.randrange(1, LIMITS.candidates + 1)
    body["candidates"] = [rng.choice([text for text in _TEXTS if 0 < len(text.encode()) <= 40]) for _ in range(count)]
    for part in ("context", "user_features"):
        if part in body and rng.random() < 0.7:
            body[part] = {rng.choice(_TEXTS): _value(rng, rng.randrange(2)) for _ in range(rng.randrange(5))}
    if "candidate_features" in body:
        kinds = {rng.choice(_TEXTS): rng.randrange(2) for _ in range(rng.randrange(4))}
        body["candidate_features"] = {name: [_value(rng, kind) for _ in range(count)] for name, kind in kinds.items()}
    if "ts" in body:
        body["ts"] = rng.choice([None, 0, 1000, 1000.5, 4294967295, rng.uniform(0, 2e9)])
    return {name: body[name] for name in rng.sample(list(body), len(body))}


def bodies(seed: int, count: int) -> Iterator[bytes]:
    """As many bodies, some of them right."""
    rng = random.Random(seed)
    for _ in range(count):
        separators = rng.choice([(",", ":"), (", ", ": "), (" , ", "\t:\r\n")])
        text = json.dumps(plain(rng), ensure_ascii=rng.random() < 0.1, separators=separators)
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            text = damaged(text, rng)
        if rng.random() < 0.1:
            text = text.replace(rng.choice(["null", '"1"', "1000"]), rng.choice(ODDITIES), 1)
        raw = text.encode("utf-8", "replace")
        if rng.random() < 0.05:
            place = rng.randrange(len(raw))
            raw = raw[:place] + rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]) + raw[place:]
        yield raw


def meaning_of(value: Any) -> Any:
    """A value of a body as a block holds it: numbers as they are, texts by their hash."""
    return id64(value) if isinstance(value, str) else None if value is None else float(value)


def said(slate: Slate) -> dict[str, Any]:
    """What the block of a slate says, in words of a body: by side, what ``meaning_of`` gives for each value."""
    block = bytes(slate.block)
    candidates, first, members, size = struct.unpack_from("=3iq", block, 36)
    cells = [int.from_bytes(block[place : place + 8], "little") for place in range(56, size - 24 * members - 7, 8)]
    found: dict[str, Any] = {"user": {}, "context": {}, "candidate": {}}
    for place in range(members):
        start, length, side, kind, value = struct.unpack_from("=4iQ", block, size - 24 * (place + 1))
        name = slate.body[start : start + length].decode()
        if side < 2:
            found[("user", "context")[side]][name] = _cell(kind, value)
        else:
            found["candidate"][name] = [_cell(kind, cell) for cell in cells[value : value + candidates]]
    return found | {"candidates": cells[first : first + candidates]}


def _cell(kind: int, bits: int) -> Any:
    if kind == 1:
        read = struct.unpack("=d", bits.to_bytes(8, "little"))[0]
        return None if read != read else read
    return None if kind == 0 or bits == 0 else bits


def request(schema: FeatureSchema, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """A body that fits a declaration of the shop, and features that the store may hold besides."""
    body: dict[str, Any] = {"candidates": [rng.choice([*ITEMS, "unlisted"]) for _ in range(rng.randrange(1, 7))]}
    if rng.random() < 0.8:
        body["user_id"] = str(rng.randrange(40))
    if rng.random() < 0.7:
        body["ts"] = rng.choice([rng.randrange(95, 130), rng.uniform(95, 130)])
    stored: dict[str, Any] = {"elsewhere": rng.choice(STORED)} if rng.random() < 0.3 else {}
    sides: dict[str, dict[str, Any]] = {"user": {}, "context": {}, "candidate": {}}
    for feature in schema.feature:
        if feature.kind not in ("id", "number") or feature.name in (schema.ids.user, schema.ids.item):
            continue
        several = feature.kind == "id" and feature.max_values > 1
        values = [
            None
            if several or rng.random() < 0.2
            else number(rng, 15)
            if feature.kind == "number"
            else str(rng.randrange(6))
            for _ in body["candidates"]
        ]
        if rng.random() < 0.6:
            sides[feature.side][feature.name] = values if feature.side == "candidate" else values[0]
        if feature.side != "candidate" and rng.random() < 0.6:
            stored[feature.name] = None if several else rng.choice([values[0], values[0], rng.choice(STORED[:-2])])
    for side, name in (("user", "user_features"), ("context", "context"), ("candidate", "candidate_features")):
        if sides[side] or rng.random() < 0.2:
            body[name] = dict(rng.sample(list(sides[side].items()), len(sides[side])))
    return body, stored


def history(rng: random.Random, most: int = 30) -> bytes | None:
    """What the store may hold of a user's behaviours."""
    if rng.random() < 0.2:
        return None
    return pack(random_log(np.random.default_rng(rng.randrange(1 << 30)), rng.randrange(most)))


def _encode(reader: SlateReader, encoder: SlateEncoder, fitted: FittedSchema, rng: random.Random) -> bool:
    body, stored = request(fitted.schema, rng)
    raw, features = json.dumps(body).encode(), json.dumps(stored, ensure_ascii=False).encode()
    sequence = history(rng)
    if rng.random() < 0.5:
        place = rng.randrange(len(features))
        features = rng.choice([features[:place], features.replace(features[place : place + 1], b'"'), *ODD_STORED])
    if sequence is not None and rng.random() < 0.5:
        sequence = sequence[: rng.randrange(len(sequence) + 1)]
    slate = reader.read(damaged(raw.decode(), rng).encode() if rng.random() < 0.3 else raw, SlateLimits(100, 256))
    return slate is not None and encoder.encode(slate, sequence, features, rng.choice([3, 1000]), 110.0) is not None


def main() -> int:
    """Read bodies and every beginning of one, and encode, with a library; a finding ends the process."""
    reader = SlateReader(Path(sys.argv[1]))
    taken = sum(reader.read(body, LIMITS) is not None for body in bodies(0, 2000))
    body = json.dumps(WHOLE, ensure_ascii=False).encode()
    beginnings = sum(reader.read(body[:stop], LIMITS) is not None for stop in range(len(body)))
    fitted, rng = fitted_shop(), random.Random(0)
    encoder = SlateEncoder(fitted, Path(sys.argv[1]))
    encoded = sum(_encode(reader, encoder, fitted, rng) for _ in range(500))
    return 0 if taken > 400 and beginnings == 0 and 50 < encoded < 450 else 1


if __name__ == "__main__":
    sys.exit(main())

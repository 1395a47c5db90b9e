"""The compiled reader of /score's bodies against the documented models: it may give up, it may never differ."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.ids import id64
from service.api import score_body
from service.compiled.library import CompiledUnavailable
from service.compiled.slate import Slate, SlateLimits, SlateReader
from service.errors import ServiceError
from service.settings import LimitSettings, Settings
from tests.service.compiled.slates import LIMITS, WHOLE, bodies, meaning_of, plain, said

SETTINGS = Settings(limits=LimitSettings(candidates=LIMITS.candidates, id_bytes=LIMITS.id_bytes))


@pytest.fixture(scope="module")
def reader(compiled_library: Path) -> SlateReader:
    return SlateReader(compiled_library)


def expected(raw: bytes) -> tuple[Any, ...]:
    """What the documented models take a body for, in the words of ``found``."""
    asked = score_body.documented(raw, SETTINGS)
    query = asked.query
    sides = {
        "user": {name: meaning_of(value) for name, value in query.user_features.items()},
        "context": {name: meaning_of(value) for name, value in query.context.items()},
        "candidate": {name: list(map(meaning_of, values)) for name, values in query.candidate_features.items()},
        "candidates": list(map(id64, query.candidates)),
    }
    given = json.loads(raw).get("ts")
    return query.user_id, asked.model, asked.raw, given if given is None else query.ts, repr(sides)


def found(slate: Slate) -> tuple[Any, ...]:
    return slate.user_id, slate.model, slate.raw, slate.ts, repr(said(slate))


def test_what_is_read_is_what_the_documented_models_read(reader: SlateReader) -> None:
    taken = refused = 0
    for raw in bodies(0, 4000):
        slate = reader.read(raw, LIMITS)
        if slate is not None:
            taken += 1
            assert found(slate) == expected(raw), raw
            assert slate.candidates == len(json.loads(raw)["candidates"])
            continue
        try:
            score_body.documented(raw, SETTINGS)
        except ServiceError:
            refused += 1
    assert taken > 1000
    assert refused > 1000


def test_plain_bodies_are_taken(reader: SlateReader) -> None:
    rng = random.Random(1)
    for _ in range(300):
        body = plain(rng)
        raw = json.dumps(body, ensure_ascii=False, indent=rng.choice([None, 1])).encode()
        usual = all(type(value) is not int or abs(value) < 2**53 for value in _scalars(body))
        assert (reader.read(raw, LIMITS) is not None) == usual, raw
    assert reader.read(json.dumps(WHOLE, ensure_ascii=False).encode(), LIMITS) is not None
    nulls = b'{"candidates":["1"],"user_id":null,"behaviours":null,"ts":null,"model":null,"raw":false}'
    slate = reader.read(nulls, LIMITS)
    assert slate is not None
    assert (slate.user_id, slate.model, slate.raw, slate.ts, slate.candidates) == (None, None, False, None, 1)


def _scalars(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [scalar for member in value.values() for scalar in _scalars(member)]
    if isinstance(value, list):
        return [scalar for member in value for scalar in _scalars(member)]
    return [value]


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"{}", b"[]", b"null", b'{"candidates":[]}', b'{"candidates":[""]}', b'{"candidates":["1"]}x'),
        *(b'{"candidates":["1"],}', b'{"candidates":["1",]}', b'{"candidates":[1]}', b'{"candidates":["\\u0031"]}'),
        *(b'{"candidates":["1"],"user_id":""}', b'{"candidates":["1"],"user_id":7}', b'{"user_id":"7"}'),
        *(b'{"candidates":["1"],"model":""}', b'{"candidates":["1"],"raw":null}', b'{"candidates":["1"],"raw":1}'),
        *(
            b'{"candidates":["1"],"ts":-1}',
            b'{"candidates":["1"],"ts":-0.0}',
            b'{"candidates":["1"],"ts":4294967295.5}',
        ),
        *(
            b'{"candidates":["1"],"ts":"1"}',
            b'{"candidates":["1"],"behaviours":[]}',
            b'{"candidates":["1"],"colour":1}',
        ),
        *(b'{"candidates":["1"],"context":null}', b'{"candidates":["1"],"context":[]}'),
        *(b'{"candidates":["1"],"context":{"a":true}}', b'{"candidates":["1"],"context":{"a":["x"]}}'),
        *(b'{"candidates":["1"],"context":{"a":1e39}}', b'{"candidates":["1"],"context":{"a":9007199254740993}}'),
        *(b'{"candidates":["1"],"context":{"a":NaN}}', b'{"candidates":["1"],"context":{"a":01}}'),
        *(b'{"candidates":["1"],"context":{"a":1,"a":1}}', b'{"candidates":["1"],"context":{},"context":{}}'),
        *(b'{"candidates":["1"],"candidates":["1"]}', b'{"candidates":["1"],"behaviours":null,"behaviours":null}'),
        *(
            b'{"candidates":["1"],"candidate_features":{"a":[1,2]}}',
            b'{"candidates":["1"],"candidate_features":{"a":[]}}',
        ),
        *(b'{"candidates":["1","2"],"candidate_features":{"a":[1,"x"]}}', b'{"candidates":["\xed\xa0\x80"]}'),
        *(
            b'{"candidates":["1"],"candidate_features":{"a":[["x"]]}}',
            b'{"candidates":["1"],"candidate_features":{"a":1}}',
        ),
        *(b'{"candidates":["\xff"]}', b'{"candidates":["\xc3"]}', b'{"candidates":["\t"]}', b"\xef\xbb\xbf{}"),
    ],
)
def test_what_is_wrong_or_unusual_is_left_to_the_documented_models(reader: SlateReader, raw: bytes) -> None:
    assert reader.read(raw, LIMITS) is None


def test_no_beginning_of_a_body_is_a_body(reader: SlateReader) -> None:
    raw = json.dumps(WHOLE, ensure_ascii=False).encode()
    assert [stop for stop in range(len(raw)) if reader.read(raw[:stop], LIMITS) is not None] == []


def test_the_settings_bound_what_is_read(reader: SlateReader) -> None:
    def fits(body: dict[str, Any], limits: SlateLimits = LIMITS) -> bool:
        return reader.read(json.dumps(body, ensure_ascii=False).encode(), limits) is not None

    assert fits({"candidates": ["1"] * 6})
    assert not fits({"candidates": ["1"] * 7})
    for text, within in (("x" * 40, True), ("x" * 41, False), ("ü" * 20, True), ("ü" * 20 + "x", False)):
        assert fits({"candidates": [text]}) == within
        assert fits({"candidates": ["1"], "user_id": text}) == within
    assert fits({"candidates": ["1"], "context": {str(name): name for name in range(256)}})
    assert not fits({"candidates": ["1"], "context": {str(name): name for name in range(257)}})
    long = {"candidates": ["1"], "context": {str(name): "x" * 240 for name in range(200)}}
    assert fits(long)
    assert fits(long | {"model": "x" * 200_000})
    assert not fits(long | {"model": "x" * 256 * 1024})
    assert not fits({"candidates": ["1"]}, SlateLimits.of(LimitSettings(json_depth=2)))
    assert fits({"candidates": ["1"]}, SlateLimits.of(SETTINGS.limits))


def test_texts_of_every_length_have_their_hash(reader: SlateReader) -> None:
    rng = random.Random(2)
    limits = SlateLimits(1000, 1000)
    texts = [
        "".join(rng.choice("abcdefghijklmnop 0123456789ü東😀"[: 28 if length % 2 else 31]) for _ in range(length))
        for length in [*range(1, 241), *range(1, 200)]
    ]
    texts = [text for text in texts if len(text.encode()) <= 240]
    slate = reader.read(json.dumps({"candidates": texts}, ensure_ascii=False).encode(), limits)
    assert slate is not None
    assert said(slate)["candidates"] == list(map(id64, texts))
    assert reader.read(json.dumps({"candidates": ["x" * 241]}).encode(), limits) is None
    empty = reader.read(b'{"candidates":["1"],"context":{"a":""}}', limits)
    assert empty is not None
    assert said(empty)["context"] == {"a": id64("")}


def test_numbers_are_the_nearest_doubles(reader: SlateReader) -> None:
    rng = random.Random(3)
    texts = ["0", "-0", "-0.0", "0.1", "123456789012345", "9007199254740991", "0.30000000000000004", "1E5", "1e-320"]
    for _ in range(3000):
        digits = str(rng.randrange(10 ** rng.randrange(1, 20)))
        place = rng.randrange(len(digits) + 1)
        text = rng.choice(["", "-"]) + (digits[:place].lstrip("0") or "0") + "." + (digits[place:] or "0")
        texts.append(text + rng.choice(["", "", f"e{rng.randrange(-30, 15)}", f"E+{rng.randrange(10)}"]))
    for first in range(0, len(texts), 200):
        some = texts[first : first + 200]
        members = ",".join(f'"{place}":{text}' for place, text in enumerate(some))
        slate = reader.read(f'{{"candidates":["1"],"context":{{{members}}}}}'.encode(), LIMITS)
        assert slate is not None
        assert list(map(repr, said(slate)["context"].values())) == [repr(float(json.loads(text))) for text in some]


def test_without_the_library_there_is_no_reader(tmp_path: Path) -> None:
    with pytest.raises(CompiledUnavailable, match="was not built"):
        SlateReader(tmp_path / "nothing.so")


def test_under_the_sanitizers(run_sanitized: Callable[[str], None]) -> None:
    """Addresses and undefined behaviour: reading and encoding in a process of their own, any finding ends it."""
    run_sanitized("tests.service.compiled.slates")

"""The quick way of reading /score accepts only what the documented way accepts, and both lead to the same reply."""

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.serving.app import quiet_settings, running
from service.api import score_body
from service.api.score_body import ScoreBody
from service.errors import ServiceError

# A deadline that no answer misses where the machine stands still for a second: it is not what is compared here.
LIMITS = {"candidates": 5, "behaviours": 3, "id_bytes": 40, "deadline_ms": 30_000}
SETTINGS = quiet_settings(Path("none"), "memory://", limits=LIMITS)
WHOLE: dict[str, Any] = {
    "user_id": "196",
    "candidates": ["1", "ü:2", "unseen"],
    "context": {"hour": 20},
    "user_features": {"age": 31.5, "occupation": "writer"},
    "candidate_features": {"price": [9.5, None, -3], "category": ["drama", None, "x:y"]},
    "behaviours": [
        {"item_id": "5", "ts": 900},
        {"item_id": "6", "ts": 950.5, "type": "rate", "value": 4},
        {"item_id": "7", "ts": 10, "type": None, "value": None},
    ],
    "ts": 1000,
    "raw": True,
    "model": "movies@1.0.0",
}
# What may stand in a body by mistake, in any place.
ODDITIES = [
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e39", "-0.0", "5e-324", "01", "1.", "+1", "0x1"),
    *("9" * 30, "9" * 400, "9" * 5000, "4294967295.5", "18446744073709551616", "true", "null", "7", "-1"),
    *('"x"', '""', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u00fc"', '"\\""', '"a\\": 1"', '"\\u0000"', '"\x01"', '"\\x"'),
    *("[]", "{}", "[[1]]", '[["a", null], "b", 3]', '["1", 2]', '["x"]', '["a", "b", "c", "d", "e", "f"]'),
    *(
        '{"a": {"b": 1}}',
        '{"age": 1, "age": 2}',
        '{"hour": "late"}',
        '{"nope": 1}',
        '{"price": [1]}',
        "[" * 20 + "]" * 20,
    ),
    *(
        '"' + "x" * 41 + '"',
        '"' + "ü" * 20 + '"',
        '"' + "ü" * 21 + '"',
        '["1", ""]',
        "[1,]",
        '{"hour": 1,}',
        "// x",
        "'x'",
    ),
]
PIECES = ["", "x", '"', "\\", ",", ":", "{", "}", "[", "]", "1", "\n", "\x00", "\x0b", "\x7f", "\ufeff", "é"]


def damaged(rng: random.Random) -> bytes:
    """A body with up to four things changed, most of them wrong, some of them harmless."""
    names = [name for name in WHOLE if name == "candidates" or rng.random() < 0.7]
    rng.shuffle(names)
    separators = rng.choice([(",", ":"), (", ", ": "), (" , ", "\t:\r\n")])
    text = json.dumps({name: WHOLE[name] for name in names}, ensure_ascii=rng.random() < 0.5, separators=separators)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        place, kind = rng.randrange(len(text)), rng.randrange(8)
        if kind == 0:
            text = text[:place] + rng.choice(PIECES) + text[place + 1 :]
        elif kind == 1:  # a piece stands twice
            end = min(len(text), place + rng.randrange(1, 40))
            text = text[:end] + text[place:end] + text[end:]
        elif kind == 2:  # a name is another one, or stands twice
            text = text.replace(rng.choice(list(WHOLE)), rng.choice([*WHOLE, "colour", "type"]), 1)
        elif kind == 3:  # an entry is another one
            text = text.replace(rng.choice(['"1"', "null", '"5"', "950.5", "-3"]), rng.choice(ODDITIES), 1)
        else:  # a value is another one
            colon = text.find(":", place)
            if colon >= 0:
                end = min((n for n in (text.find(",", colon), text.find("}", colon)) if n >= 0), default=len(text))
                text = text[: colon + 1] + rng.choice(ODDITIES) + text[end:]
    raw = text.encode("utf-8", "replace")
    if rng.random() < 0.05:
        place = rng.randrange(len(raw))
        raw = raw[:place] + rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]) + raw[place:]
    return rng.choice([b"\xef\xbb\xbf", b" ", b"\n"]) + raw if rng.random() < 0.05 else raw


def documented(raw: bytes) -> ScoreBody | None:
    try:
        return score_body.documented(raw, SETTINGS)
    except ServiceError:
        return None


def meaning(asked: ScoreBody) -> str:
    """Everything a body says, with the types of its values; its time only where the body says it."""
    query = asked.query
    past = query.behaviours
    events = None if past is None else [(one.item_id, one.ts, one.type, one.value) for one in past]
    features = (query.context, query.user_features, query.candidate_features)
    return repr((query.user_id, query.candidates, features, events, asked.model, asked.raw))


def agree(raw: bytes) -> bool:
    """Whether the quick way took the body; fails where it took what it should not have or in another sense."""
    quick = score_body.quick(raw, SETTINGS.limits)
    if quick is None:
        return False
    slow = documented(raw)
    assert slow is not None, raw
    assert meaning(quick) == meaning(slow), raw
    assert quick.query.ts == slow.query.ts or b'"ts"' not in raw or b"null" in raw, raw
    return True


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_ordinary_bodies_take_the_quick_way(indent: int | None, ascii_only: bool) -> None:
    for separators in ((",", ":"), (", ", ": "), (" , ", " \n: ")):
        text = json.dumps(WHOLE, indent=indent, ensure_ascii=ascii_only, separators=separators)
        assert agree(text.encode()), text
    assert agree(b'{"candidates":["1"]}')
    assert agree(b'{"candidates":["1"],"user_id":null,"behaviours":null,"ts":null,"model":null,"raw":false}')


@pytest.mark.parametrize(
    "raw",
    [
        b'{"candidates":["1"],"user_id":"7","user_id":"8"}',
        b'{"candidates":["1"],"context":{"hour":1,"hour":2}}',
        b'{"candidates":["1"],"context":{"hour":1},"context":{"hour":1}}',
        b'{"candidates":["a:b"],"user_id":"7","user_id" :"7"}',
        b'{"candidates":["1"],"behaviours":[{"item_id":"5","ts":1,"type":"a","type":"b"}]}',
        b'{"candidates":["1"],"behaviours":[{"item_id":"5","ts":1,"value":null,"value":null}]}',
        b'{"candidates":["1"],"behaviours":[{"item_id":"5","ts":1}],"behaviours":null}',
    ],
)
def test_a_key_that_stands_twice_is_never_taken(raw: bytes) -> None:
    assert score_body.quick(raw, SETTINGS.limits) is None
    assert documented(raw) is None


@pytest.mark.parametrize(
    "body",
    [
        {"candidates": ["1"] * 6},
        {"candidates": ["1"], "behaviours": [{"item_id": "5", "ts": 1}] * 4},
        {"candidates": ["x" * 41]},
        {"candidates": ["1"], "user_id": "ü" * 21},
        {"candidates": ["1"], "behaviours": [{"item_id": "5", "ts": 1, "type": "x" * 41}]},
    ],
)
def test_what_the_settings_forbid_is_never_taken(body: dict[str, Any]) -> None:
    assert score_body.quick(json.dumps(body).encode(), SETTINGS.limits) is None
    assert documented(json.dumps(body).encode()) is None


@settings(max_examples=4400, deadline=None)
@given(seed=st.integers(0, 2**62))
def test_damaged_bodies_are_never_read_in_another_way(seed: int) -> None:
    agree(damaged(random.Random(seed)))


def test_most_bodies_with_nothing_wrong_take_the_quick_way() -> None:
    taken = [agree(damaged(random.Random(seed))) for seed in range(300)]
    assert 30 < sum(taken) < 270  # both ways are tried


class TwoWays:
    """One service that answers the same body twice: as it does, and by the documented models alone."""

    def __init__(self, models: Path) -> None:
        self._runner = asyncio.Runner()
        self._running = running(quiet_settings(models, "memory://", limits=LIMITS))
        self._app = self._runner.run(self._running.__aenter__()).app  # type: ignore[attr-defined]

    def reply(self, raw: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        return self._runner.run(self._reply(raw))

    async def _reply(self, raw: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        headers = [(b"content-type", b"application/json"), (b"x-request-id", b"the-same")]
        scope = {"type": "http", "method": "POST", "path": "/score", "raw_path": b"/score", "query_string": b""}
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": raw, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app({**scope, "headers": headers, "asgi": {"version": "3.0"}}, receive, send)
        start, body = sent
        own = [(name, value) for name, value in start["headers"] if name != b"traceparent"]
        return start["status"], own, body["body"]

    def close(self) -> None:
        self._runner.run(self._running.__aexit__(None, None, None))
        self._runner.close()


@pytest.fixture(scope="module")
def two_ways(published: Path) -> Iterator[TwoWays]:
    ways = TwoWays(published)
    yield ways
    ways.close()


def never(_raw: bytes, _limits: Any) -> None:
    return None


def compared(ways: TwoWays, raw: bytes) -> int:
    quick: Callable[..., ScoreBody | None] = score_body.quick
    lean = ways.reply(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_body, "quick", never)
        plain = ways.reply(raw)
    assert score_body.quick is quick
    assert lean == plain, raw
    return lean[0]


@settings(max_examples=600, deadline=None)
@given(seed=st.integers(0, 2**62))
def test_replies_are_the_same_bytes_both_ways(two_ways: TwoWays, seed: int) -> None:
    compared(two_ways, damaged(random.Random(seed)))


@pytest.mark.parametrize("name", ["context", "user_features", "candidate_features"])
@pytest.mark.parametrize("value", [*ODDITIES, "1e308", "[9, 1e308, null]", '["1", 1, null]', "[[], null, 3]"])
def test_features_the_bundle_refuses_are_refused_alike(two_ways: TwoWays, name: str, value: str) -> None:
    first = "price" if name == "candidate_features" else "hour" if name == "context" else "age"
    for feature in (first, "occupation", "category", "nope"):
        raw = f'{{"user_id": "1", "candidates": ["1", "2", "3"], "{name}": {{"{feature}": {value}}}}}'
        assert compared(two_ways, raw.encode("utf-8", "replace")) in (200, 400, 422)

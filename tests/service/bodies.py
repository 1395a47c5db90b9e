"""Bodies of /uplift, right and wrong in every way that chance finds; also run as a program, in a sanitized process."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from service.compiled.columns import ObjectColumns, strings
from service.compiled.rows import RowWriter
from service.compiled.users import UserReader

WHOLE: dict[str, Any] = {
    "users": [
        {"user_id": "7", "features": {"age": 31, "city": "oslo"}},
        {"user_id": "8"},
        {"user_id": "ü", "features": {}},
        {"features": {"city": "o:s", "age": -0.5}, "user_id": "null"},
        {"user_id": "10", "features": {"age": None, "city": None}},
        {"user_id": "11", "features": {"city": "oslo"}},
    ],
    "treatments": ["coupon"],
    "doses": {"coupon": 2},
    "dose_grid": 21,
    "interval": {"level": 0.9, "method": "conformal"},
    "budget": {"total": 100, "costs": {"coupon": {"base": 1, "per_dose": 1.5}}, "value_per_outcome": 10},
    "allow_extrapolation": True,
    "campaign": "spring",
    "model": "incentive",
}
# What may stand in a body by mistake, in any place.
ODDITIES = [
    *("NaN", "Infinity", "1e400", "-1e400", "1e-400", "true", "null", "7", "01", "-0", "9" * 30, "9" * 5000, "1.", "-"),
    *('"x"', '""', '"\\ud800"', '"\\u00fc"', '"\\""', '"a\\": 1"', '"\t"', "1E5", "0.1e-7", "+1", ".5", "1e", "2e+3"),
    *("[]", "{}", "[[1]]", '{"a": {"b": 1}}', '{"age": 1, "age": 2}', "[" * 20 + "]" * 20, '["oslo", "lima"]'),
]
_LETTERS = ["", "x", '"', "\\", ",", ":", "{", "}", "[", "]", "1", "\n", "\x00", "e", "."]


def whole(rng: random.Random) -> dict[str, Any]:
    """A body that is right: some users, told in their own ways, and some of the options."""
    users = rng.choices(WHOLE["users"], k=rng.randrange(1, 9))
    users = [{name: user[name] for name in rng.sample(list(user), len(user))} for user in users]
    for user in users:
        if rng.random() < 0.3:
            age = rng.choice([rng.uniform(-1e3, 1e3), rng.randrange(-(10**20), 10**20), 10 ** rng.randrange(-30, 30)])
            user["features"] = {"age": age, "city": rng.choice(["oslo", "lima", "東京", "a" * 40, ""])}
    options = [name for name in WHOLE if name != "users" and rng.random() < 0.4]
    body = {"users": users} | {name: WHOLE[name] for name in options}
    return {name: body[name] for name in rng.sample(list(body), len(body))}


def damaged(text: str, rng: random.Random) -> str:
    """The same with one thing changed."""
    place = rng.randrange(len(text) + 1)
    kind = rng.randrange(5)
    if kind == 0:  # one character goes or is another one
        return text[:place] + rng.choice(_LETTERS) + text[place + 1 :]
    if kind == 1:  # a piece stands twice
        end = min(len(text), place + rng.randrange(1, 30))
        return text[:end] + text[place:end] + text[end:]
    if kind == 2 and rng.random() < 0.2:  # the end is missing
        return text[:place]
    colon = text.find(":", place)  # a value is another one
    if colon < 0:
        return text
    end = min((n for n in (text.find(",", colon), text.find("}", colon)) if n >= 0), default=len(text))
    return text[: colon + 1] + rng.choice(ODDITIES) + text[end:]


def bodies(seed: int, count: int) -> Iterator[bytes]:
    """As many bodies, about a third of them right."""
    rng = random.Random(seed)
    for _ in range(count):
        text = json.dumps(
            whole(rng),
            ensure_ascii=rng.random() < 0.3,
            indent=rng.choice([None, None, 1]),
            separators=rng.choice([(",", ":"), (", ", ": "), (" , ", " \n: ")]),
        )
        for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
            text = damaged(text, rng)
        yield text.encode("utf-8", "replace")


def _write(library: Path) -> None:
    rng = np.random.default_rng(0)
    for count in (1, 7, 300):
        columns = ObjectColumns(count)
        columns.text(b"{")
        columns.members((b'"x"', b'"y"'), rng.normal(size=(count, 2)) * 10.0 ** rng.integers(-300, 300, (count, 2)))
        columns.number(np.full(count, -1.7976931348623157e308), rng.random(count) < 0.5)
        columns.series(rng.normal(size=(count, 5)))
        columns.choice(rng.integers(0, 2, count), [b"", b"long"])
        columns.piece(strings([f"user {number}" for number in range(count)]))
        RowWriter(library).between(b"[", columns, b"]")


def main() -> int:
    """Read bodies and every beginning of one, and write rows, with a library; a finding ends the process."""
    _write(Path(sys.argv[1]))
    reader = UserReader(["age", "city"], [False, True], Path(sys.argv[1]))
    taken = sum(reader.read(body, 1000) is not None for body in bodies(0, 3000))
    body = json.dumps(WHOLE, ensure_ascii=False).encode()
    beginnings = sum(reader.read(body[:stop], 1000) is not None for stop in range(len(body)))
    users = len(WHOLE["users"])
    bounded = reader.read(body, users) is not None and reader.read(body, users - 1) is None
    return 0 if taken > 500 and beginnings == 0 and bounded else 1


if __name__ == "__main__":
    sys.exit(main())

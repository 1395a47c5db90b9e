"""The reply to /uplift, written from columns: thousands of users share one shape, so no object is built for any.

Numbers go to JSON a whole matrix at a time; NaN becomes null there. The texts between them are the same for all users.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from bundle.effects import OVERLAP
from service.core.recommending import CONTROL, NOTHING
from service.core.treating import Curve, Treated
from service.core.uplifter import UpliftAnswer

Float = NDArray[np.float64]
Tokens = list[bytes]

_EMPTY = b"[]"


class ObjectColumns:
    """U JSON objects of one shape, side by side: texts that all of them share and columns of their own values.

    Args:
        count: U.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._columns: list[Tokens] = []
        self._template = b""

    def text(self, text: bytes) -> None:
        """The same for every object."""
        self._template += text.replace(b"%", b"%%")

    def value(self, tokens: Tokens) -> None:
        """One JSON value an object, (U,)."""
        self._template += b"%b"
        self._columns.append(tokens)

    def members(self, names: Sequence[bytes], columns: Sequence[Tokens]) -> None:
        """The members of an object, by name."""
        for place, (name, tokens) in enumerate(zip(names, columns, strict=True)):
            self.text((b"," if place else b"") + name + b":")
            self.value(tokens)

    def joined(self) -> bytes:
        """The objects one after another."""
        width = len(self._columns)
        tokens: Tokens = [b""] * (width * self._count)
        for place, column in enumerate(self._columns):
            tokens[place::width] = column
        return (self._template * self._count) % tuple(tokens)


def to_bytes(request_id: str, answer: UpliftAnswer, user_ids: Sequence[str]) -> bytes:
    """The whole reply as JSON."""
    head = orjson.dumps({"request_id": request_id, "model": {"name": answer.model, "version": answer.version}})
    tail: dict[str, Any] = {}
    budget = answer.treated.recommended.budget
    if budget is not None:
        tail["budget"] = {
            "spent": budget.spent,
            "expected_gain": budget.gain,
            "shadow_price": budget.shadow_price,
            "treated": int((answer.treated.recommended.arm > CONTROL).sum()),
        }
    tail |= {"degraded": answer.degraded, "warnings": answer.warnings}
    users = _users(answer.treated, answer.control, user_ids)
    return b"".join((head[:-1], b',"users":[', users[1:], b"],", orjson.dumps(tail)[1:]))


def _users(treated: Treated, control: str, user_ids: Sequence[str]) -> bytes:
    """The users' objects, each with a comma before it."""
    arms = [orjson.dumps(name) for name in treated.asked.names]
    with_control = [orjson.dumps(control), *arms]
    rows = ObjectColumns(len(user_ids))
    rows.text(b',{"user_id":')
    rows.value(_texts(user_ids))
    rows.text(b',"outcomes":{')
    rows.members(with_control, numbers(treated.outcomes))
    rows.text(b'},"effects":{')
    rows.members(arms, numbers(treated.effects))
    rows.text(b"}")
    if treated.intervals is not None:
        rows.text(b',"intervals":{')
        rows.members(arms, _ranges(*treated.intervals))
        rows.text(b"}")
    rows.text(b',"propensity":')
    if treated.propensity is None:
        rows.text(b"null")
    else:
        rows.text(b"{")
        rows.members(with_control, numbers(treated.propensity))
        rows.text(b"}")
    rows.text(b',"overlap":')
    rows.value(_overlap(treated.overlap, treated.asked.names))
    if treated.asked.shown != "none":
        rows.text(b',"dose_response":{')
        _curves(rows, arms, treated.curves)
        rows.text(b"}")
    rows.text(b',"recommended":')
    for tokens in _recommended(treated, with_control):
        rows.value(tokens)
    rows.text(b',"warnings":')
    rows.value(_warnings(treated.notes, len(user_ids)))
    rows.text(b"}")
    return rows.joined()


def _texts(texts: Sequence[str]) -> Tokens:
    """Each text as JSON."""
    together = orjson.dumps(list(texts))
    if b"\\" in together:  # one holds a quote, and may hold whatever stands between two texts
        return [orjson.dumps(text) for text in texts]
    return [b'"' + text + b'"' for text in together[2:-2].split(b'","')]


def numbers(matrix: Float) -> list[Tokens]:
    """Columns of a matrix (U, N) as JSON numbers; NaN is null."""
    width = matrix.shape[1]
    tokens = orjson.dumps(np.ascontiguousarray(matrix).ravel(), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    return [tokens[place::width] for place in range(width)]


def lists(matrix: NDArray[Any]) -> Tokens:
    """Rows of a matrix (U, N) as JSON arrays."""
    rows = orjson.dumps(np.ascontiguousarray(matrix), option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
    return [b"[" + row + b"]" for row in rows]


def _ranges(lower: Float, upper: Float) -> list[Tokens]:
    columns = []
    for low, high in zip(numbers(lower), numbers(upper), strict=True):
        both = zip(low, high, strict=True)
        columns.append([b"null" if a == b"null" else b"[" + a + b"," + b + b"]" for a, b in both])
    return columns


def _overlap(flags: NDArray[np.int8], names: Sequence[str]) -> Tokens:
    """One object a user; few different ones occur, so each is written once."""
    known: dict[bytes, bytes] = {}
    tokens = []
    for key in _keys(flags):
        if key not in known:
            words = [OVERLAP[flag] for flag in np.frombuffer(key, dtype=np.int8)]
            known[key] = orjson.dumps(dict(zip(names, words, strict=True)))
        tokens.append(known[key])
    return tokens


def _warnings(notes: Mapping[str, NDArray[np.bool_]], count: int) -> Tokens:
    """One array of remarks a user."""
    if not notes:
        return [_EMPTY] * count
    texts = list(notes)
    known: dict[bytes, bytes] = {}
    tokens = []
    for key in _keys(np.stack(list(notes.values()), axis=1)):
        if key not in known:
            known[key] = orjson.dumps([text for text, said in zip(texts, key, strict=True) if said])
        tokens.append(known[key])
    return tokens


def _keys(matrix: NDArray[Any]) -> list[bytes]:
    """Each row of single bytes (U, N) as one key."""
    data, width = np.ascontiguousarray(matrix).tobytes(), matrix.shape[1]
    return [data[start : start + width] for start in range(0, len(data), width)]


def _curves(rows: ObjectColumns, arms: Sequence[bytes], curves: Mapping[int, Curve]) -> None:
    for number, (place, curve) in enumerate(curves.items()):
        doses = orjson.dumps(curve.doses, option=orjson.OPT_SERIALIZE_NUMPY)
        rows.text((b"," if number else b"") + arms[place] + b':{"dose":' + doses + b',"outcome":')
        rows.value(lists(curve.outcomes))
        rows.text(b',"supported":')
        rows.value(lists(curve.supported))
        rows.text(b"}")


def _recommended(treated: Treated, names: Sequence[bytes]) -> tuple[Tokens, ...]:
    """Five columns that make one value: null, or treatment, dose and gain."""
    heads = {NOTHING: b"null"} | {arm: b'{"treatment":' + name + b',"dose":' for arm, name in enumerate(names)}
    found = treated.recommended
    arms = found.arm.tolist()
    doses, gains = numbers(np.stack([found.dose, found.gain], axis=1))
    head, between, end = [heads[arm] for arm in arms], [b',"expected_gain":'] * len(arms), [b"}"] * len(arms)
    for row in np.flatnonzero(found.arm == NOTHING).tolist():
        doses[row] = between[row] = gains[row] = end[row] = b""
    return head, doses, between, gains, end

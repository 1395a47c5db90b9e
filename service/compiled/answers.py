"""The users of a plain reply to /uplift written by compiled code: no intervals and no doses.

``service.api.uplift_reply`` defines the reply, and puts every other one together from columns.
"""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from bundle.effects import OVERLAP
from service.compiled.columns import Choice, Piece
from service.compiled.library import ADDRESS, compiled_function
from service.compiled.treating import BEHIND, PlainAnswers

_BEHIND: Final = bytes(BEHIND)


class _Texts(ctypes.Structure):
    """``Texts`` of answers.cpp."""

    _fields_ = (("first", ctypes.c_void_p), ("start", ctypes.c_void_p))


class _Answers(ctypes.Structure):
    """``Answers`` of answers.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("users", "asked", "numbers")),
        *((name, _Texts) for name in ("before", "overlap", "recommended", "behind")),
        ("remarks", _Texts),
        *((name, ctypes.c_void_p) for name in ("remark", "text", "body", "id_start", "id_stop", "flags", "arm")),
    )


class AnswerRows(NamedTuple):
    """What the users of a reply are written from.

    Attributes:
        answers: About U users.
        names: The control's and (A,) the treatments'.
        user_ids: As JSON strings, each behind the one before.
        remarks: An array a user.
    """

    answers: PlainAnswers
    names: tuple[str, ...]
    user_ids: Piece
    remarks: Choice


class _Shape:
    """What all users of a reply about the same treatments share.

    Args:
        control: Name of the control.
        names: (A,) of the treatments.
        estimated: Whether there are propensities.
    """

    def __init__(self, control: str, names: Sequence[str], estimated: bool) -> None:
        arms = [orjson.dumps(name) for name in names]
        with_control = [orjson.dumps(control), *arms]
        before = [b'{"user_id":', *_members(b',"outcomes":{', with_control), *_members(b'},"effects":{', arms)]
        if estimated:
            before += _members(b'},"propensity":{', with_control)
        self.numbers = len(before) - 1
        before.append(b'},"overlap":{' if estimated else b'},"propensity":null,"overlap":{')
        overlap = [text + orjson.dumps(flag) for text in _members(b"", arms) for flag in OVERLAP]
        recommended = [b'},"recommended":null']
        recommended += [b'},"recommended":{"treatment":%b,"dose":null,"expected_gain":' % arm for arm in with_control]
        behind = [b',"warnings":', b'},"warnings":']
        self.held, self.texts = zip(*map(_texts, (before, overlap, recommended, behind)), strict=True)
        self.longest = sum(map(len, before)) + max(map(len, recommended)) + max(map(len, behind))
        self.longest += sum(max(map(len, overlap[place : place + 4])) for place in range(0, len(overlap), 4))


def _texts(texts: Sequence[bytes]) -> tuple[Any, _Texts]:
    """Texts as compiled code reads them, and what has to live as long."""
    joined = b"".join(texts) + _BEHIND
    start = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return (joined, start), _Texts(_address(joined), start.ctypes.data)


def _address(text: bytes) -> int:
    """Where the bytes of a text lie, as long as it lives."""
    return ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value or 0


def _members(opening: bytes, names: Sequence[bytes]) -> list[bytes]:
    """The text before each member of an object."""
    return [(b"," if place else opening) + name + b":" for place, name in enumerate(names)]


class AnswerWriter:
    """Writes plain answers.

    Args:
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._write = compiled_function("ctrlift_write_answers", (ADDRESS, ADDRESS), path)

    def between(self, head: bytes, rows: AnswerRows, tail: bytes) -> memoryview:
        """The users with commas between them, a text before and one behind them all."""
        answers, user_ids, remarks = rows.answers, rows.user_ids, rows.remarks
        shape = _shape(rows.names, answers.propensity is not None)
        held, said = _remarks(tuple(remarks.texts))
        numbers = orjson.dumps(answers.numbers, option=orjson.OPT_SERIALIZE_NUMPY)
        users, asked = answers.overlap.shape
        places = [np.ascontiguousarray(places, dtype=np.int64) for places in (user_ids.start, user_ids.stop)]
        roomy = int(places[0][-1]) + BEHIND <= len(user_ids.text)  # the last user's id stands last
        body = user_ids.text if roomy else user_ids.text + _BEHIND
        longest = shape.longest + max(map(len, remarks.texts)) + len(",}")
        room = users * longest + len(user_ids.text) + len(numbers) + BEHIND
        out = np.empty(len(head) + room + len(tail), dtype=np.uint8)
        whole = out.data
        whole[: len(head)] = head
        arrays: tuple[NDArray[Any], ...] = (*places, answers.overlap, answers.arm)
        asking = _Answers(
            *(users, asked, shape.numbers, *shape.texts, said, remarks.index.ctypes.data),
            *(_address(numbers) + 1, _address(body), *(array.ctypes.data for array in arrays)),
        )
        end = len(head) + int(self._write(ctypes.byref(asking), out.ctypes.data + len(head)))
        del held
        whole[end : end + len(tail)] = tail
        return whole[: end + len(tail)]


@lru_cache(maxsize=64)
def _remarks(texts: tuple[bytes, ...]) -> tuple[Any, _Texts]:
    """Arrays of remarks, each with the end of its user."""
    return _texts([text + b"}" for text in texts])


@lru_cache(maxsize=64)
def _shape(names: tuple[str, ...], estimated: bool) -> _Shape:
    """One request asks for the treatments that the one before it did."""
    return _Shape(names[0], names[1:], estimated)

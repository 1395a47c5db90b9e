"""The reply to /uplift, written from columns: thousands of users share one shape, so no object is built for any."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from bundle.effects import OVERLAP
from service.compiled.answers import AnswerRows
from service.compiled.columns import Choice, ObjectColumns, Piece
from service.compiled.writing import answer_writer, between
from service.core.recommending import CONTROL, NOTHING, Recommended
from service.core.treated import Curve, Treated
from service.core.uplifter import UpliftAnswer

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Flags = NDArray[np.bool_]
# Of so many remarks every combination is written once: few of them ever occur, and fewer still together.
_FEW_NOTES: Final = 4


def to_bytes(request_id: str, answer: UpliftAnswer, user_ids: Piece) -> memoryview:
    """The whole reply as JSON; ``user_ids`` are JSON strings."""
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
    before, behind = head[:-1] + b',"users":[', b"]," + orjson.dumps(tail)[1:]
    treated, writer = answer.treated, answer_writer()
    if treated.plain is not None and treated.asked.shown == "none" and writer is not None:
        remarks = _remarks(treated.notes, len(treated.outcomes))
        names = (answer.control, *treated.asked.names)
        return writer.between(before, AnswerRows(treated.plain, names, user_ids, remarks), behind)
    return between(before, _users(treated, answer.control, user_ids), behind)


def _users(treated: Treated, control: str, user_ids: Piece) -> ObjectColumns:
    """The users' objects."""
    arms = tuple([orjson.dumps(name) for name in treated.asked.names])
    with_control = (orjson.dumps(control), *arms)
    rows = ObjectColumns(len(treated.outcomes))
    rows.text(b'{"user_id":')
    rows.piece(user_ids)
    rows.text(b',"outcomes":{')
    rows.members(with_control, treated.outcomes)
    rows.text(b'},"effects":{')
    rows.members(arms, treated.effects)
    rows.text(b"}")
    if treated.intervals is not None:
        _intervals(rows, arms, *treated.intervals)
    if treated.propensity is None:
        rows.text(b',"propensity":null')
    else:
        rows.text(b',"propensity":{')
        rows.members(with_control, treated.propensity)
        rows.text(b"}")
    rows.text(b',"overlap":')
    _overlap(rows, treated.overlap, treated.asked.names)
    if treated.asked.shown != "none":
        _curves(rows, arms, treated.curves)
    rows.text(b',"recommended":')
    _recommended(rows, treated.recommended, with_control)
    rows.text(b',"warnings":')
    remarks = _remarks(treated.notes, rows.count)
    rows.choice(remarks.index, remarks.texts)
    rows.text(b"}")
    return rows


def _intervals(rows: ObjectColumns, arms: Sequence[bytes], lower: Float, upper: Float) -> None:
    """Two numbers an arm, or null where there is no interval."""
    rows.text(b',"intervals":{')
    known = ~np.isnan(lower + upper)
    for place, arm in enumerate(arms):
        flags = known[:, place]
        rows.text((b"," if place else b"") + arm + b":")
        rows.either(flags, b"[", b"null")
        rows.number(lower[:, place], flags)
        rows.either(flags, b",", b"")
        rows.number(upper[:, place], flags)
        rows.either(flags, b"]", b"")
    rows.text(b"}")


def _overlap(rows: ObjectColumns, flags: NDArray[np.int8], names: Sequence[str]) -> None:
    """One object a user; few different ones occur, so each is written once."""
    index, different = _distinct(flags)
    words = [[OVERLAP[flag] for flag in row] for row in different.tolist()]
    rows.choice(index, [orjson.dumps(dict(zip(names, row, strict=True))) for row in words])


def _remarks(notes: Mapping[str, Flags], users: int) -> Choice:
    """One array of remarks a user."""
    if len(notes) > _FEW_NOTES:
        index, different = _distinct(np.stack(list(notes.values()), axis=1).view(np.int8))
        said = [tuple([text for text, holds in zip(notes, row, strict=True) if holds]) for row in different.tolist()]
        return Choice(index, [orjson.dumps(texts) for texts in said])
    index = np.zeros(users, dtype=np.int64)
    for place, flags in enumerate(notes.values()):
        index |= flags.astype(np.int64) << place
    return Choice(index, _combinations(tuple(notes)))


@lru_cache(maxsize=256)
def _combinations(notes: tuple[str, ...]) -> tuple[bytes, ...]:
    """Every array that some of the remarks can make; the place of each says which, a bit a remark."""
    return tuple(
        orjson.dumps([text for place, text in enumerate(notes) if number >> place & 1])
        for number in range(1 << len(notes))
    )


def _distinct(matrix: NDArray[np.int8]) -> tuple[Int, NDArray[np.int8]]:
    """For each row of (U, N) which of the different rows (D, N) it is."""
    if (matrix == matrix[0]).all():
        return np.zeros(len(matrix), dtype=np.int64), matrix[:1]
    width = matrix.shape[1]
    keys = np.ascontiguousarray(matrix).view(f"S{width}").ravel()
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    return index, matrix[first]


def _curves(rows: ObjectColumns, arms: Sequence[bytes], curves: Mapping[int, Curve]) -> None:
    rows.text(b',"dose_response":{')
    for number, (place, curve) in enumerate(curves.items()):
        doses = orjson.dumps(curve.doses, option=orjson.OPT_SERIALIZE_NUMPY)
        rows.text((b"," if number else b"") + arms[place] + b':{"dose":' + doses + b',"outcome":')
        rows.series(curve.outcomes)
        rows.text(b',"supported":')
        index, different = _distinct(curve.supported.view(np.int8))
        rows.choice(index, [orjson.dumps(row.astype(np.bool_).tolist()) for row in different])
        rows.text(b"}")
    rows.text(b"}")


def _recommended(rows: ObjectColumns, found: Recommended, names: Sequence[bytes]) -> None:
    """Null, or treatment, dose and gain."""
    known = found.arm != NOTHING
    rows.choice(found.arm - NOTHING, [b"null", *(b'{"treatment":' + name + b',"dose":' for name in names)])
    if np.isnan(found.dose).all():
        rows.either(known, b'null,"expected_gain":', b"")
    else:
        rows.number(found.dose, known)
        rows.either(known, b',"expected_gain":', b"")
    rows.number(found.gain, known)
    rows.either(known, b"}", b"")

"""Reading the body of /score: in one pass where nothing is wrong or unusual, else by the documented models.

The quick way decodes and checks in one step of C. It gives up, without a word, on anything unusual: what it accepts the
documented way accepts with the same meaning, and whatever is wrong is described by the documented way.
"""

import re
import time
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from bundle.request import Behaviour, ScoreQuery
from service.api import body
from service.api.ids import ids_fit
from service.api.schemas import FLOAT32_MAX, LAST_SECOND, ScoreRequest
from service.settings import LimitSettings, Settings

_Id = Annotated[str, msgspec.Meta(min_length=1)]
_Second = Annotated[float, msgspec.Meta(ge=0, le=LAST_SECOND)]
_Number = Annotated[float, msgspec.Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)]
_Scalar = str | int | float | None
_Value = _Scalar | list[_Scalar]
_KEY = re.compile(rb'"[ \t\r\n]*:')
_DEEPEST: Final = 4  # brackets in brackets that the quick form has


class QuickBehaviour(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One behaviour; a ``bundle.request_values.BehaviourLike``, so that a thousand of them need not be copied."""

    item_id: _Id
    ts: _Second
    given_type: str | UnsetType | None = msgspec.field(default=UNSET, name="type")
    given_value: _Number | UnsetType | None = msgspec.field(default=UNSET, name="value")

    @property
    def type(self) -> str | None:
        """Kind, such as click."""
        return None if self.given_type is UNSET else self.given_type

    @property
    def value(self) -> float | None:
        """A rating, a dwell time."""
        return None if self.given_value is UNSET else self.given_value


class QuickBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The fields of ``ScoreRequest``."""

    candidates: Annotated[list[_Id], msgspec.Meta(min_length=1)]
    user_id: _Id | UnsetType | None = UNSET
    context: dict[str, _Value] | UnsetType = UNSET
    user_features: dict[str, _Value] | UnsetType = UNSET
    candidate_features: dict[str, list[_Value]] | UnsetType = UNSET
    behaviours: list[QuickBehaviour] | UnsetType | None = UNSET
    ts: _Second | UnsetType | None = UNSET
    raw: bool | UnsetType = UNSET
    model: str | UnsetType | None = UNSET


_DECODER = msgspec.json.Decoder(QuickBody)


class ScoreBody(NamedTuple):
    """A request: what to score, with which model, and whether logits are wanted."""

    query: ScoreQuery
    model: str | None
    raw: bool


def documented(raw: bytes, settings: Settings) -> ScoreBody:
    """The bytes of a body as a request, by the documented models.

    Raises:
        ServiceError: 400 or 422, as the case may be.
    """
    return checked(body.parse(raw, settings.limits.json_depth), settings)


def checked(parsed: Any, settings: Settings) -> ScoreBody:
    """The same of a body that is parsed already.

    Raises:
        InvalidFeatures: It does not fit the documented models.
    """
    limits = settings.limits
    counts = {"candidates": limits.candidates, "behaviours": limits.behaviours}
    asked = body.fitting(parsed, ScoreRequest, counts)
    ids_fit(asked, limits.id_bytes)
    behaviours = None
    if asked.behaviours is not None:
        behaviours = [Behaviour(past.item_id, past.ts, past.type, past.value) for past in asked.behaviours]
    query = ScoreQuery(
        user_id=asked.user_id,
        candidates=asked.candidates,
        ts=time.time() if asked.ts is None else asked.ts,
        context=asked.context,
        user_features=asked.user_features,
        candidate_features=asked.candidate_features,
        behaviours=behaviours,
    )
    return ScoreBody(query, asked.model, asked.raw)


def quick(raw: bytes, limits: LimitSettings) -> ScoreBody | None:
    """The request, or None where it has to be read with more care."""
    if limits.json_depth < _DEEPEST or b'\\"' in raw:
        return None  # behind a quote inside a text no key can be told
    try:
        asked = _DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    keys = _keys_kept(asked)
    if raw.count(b":") != keys and len(_KEY.findall(raw)) != keys:
        return None  # a key stands twice, and the decoder kept one of them
    return of_quick(asked, limits)


def of_quick(asked: QuickBody, limits: LimitSettings) -> ScoreBody | None:
    """The request of a body that has the right shape, None where it is larger than it may be or not surely small."""
    if not _within(asked, limits):
        return None
    query = ScoreQuery(
        user_id=asked.user_id or None,
        candidates=asked.candidates,
        ts=asked.ts if isinstance(asked.ts, float) else time.time(),
        context=asked.context or {},
        user_features=asked.user_features or {},
        candidate_features=asked.candidate_features or {},
        behaviours=None if asked.behaviours is UNSET else asked.behaviours,
    )
    return ScoreBody(query, None if asked.model is UNSET else asked.model, asked.raw is True)


def _within(asked: QuickBody, limits: LimitSettings) -> bool:
    """Whether there are no more entries, and no longer ids, than the settings allow."""
    longest = limits.id_bytes // 4  # a character takes at most four bytes
    if len(asked.candidates) > limits.candidates or max(map(len, asked.candidates)) > longest:
        return False
    if asked.user_id and len(asked.user_id) > longest:
        return False
    past = asked.behaviours or ()
    return len(past) <= limits.behaviours and all(
        len(one.item_id) <= longest and len(one.type or "") <= longest for one in past
    )


def _keys_kept(asked: QuickBody) -> int:
    """Keys of all objects of a body, as decoded."""
    kept = 1
    for given in (asked.user_id, asked.ts, asked.raw, asked.model):
        kept += given is not UNSET
    for features in (asked.context, asked.user_features, asked.candidate_features):
        if features is not UNSET:
            kept += 1 + len(features)
    if asked.behaviours is not UNSET:
        kept += 1
        for past in asked.behaviours or ():
            kept += 2 + (past.given_type is not UNSET) + (past.given_value is not UNSET)
    return kept

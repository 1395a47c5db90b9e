"""Reading the body of /uplift: a thousand users in one pass where nothing is wrong, else by the documented models.

The quick way decodes and checks users in one step of C. It gives up, without a word, on anything unusual: what it
accepts the documented way accepts with the same meaning, and whatever is wrong is described by the documented way.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import UNSET
from pydantic import ValidationError

from bundle.population import Person, PersonLike
from service.api import body
from service.api.ids import columns_fit
from service.api.uplift_schemas import UpliftOptions, UpliftRequest
from service.settings import Settings

_Scalar = str | int | float | None
# Stands in every user whose request has no features; known by being this one object.
_ABSENT: dict[str, Any] = {}
_KEY = re.compile(rb'"[ \t\r\n]*:')


class QuickUser(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One user; a ``bundle.population.PersonLike``, so that a thousand of them need not be copied."""

    user_id: Annotated[str, msgspec.Meta(min_length=1)]
    features: dict[str, _Scalar | list[_Scalar]] = msgspec.field(default_factory=lambda: _ABSENT)
    behaviours: ClassVar[None] = None


class _QuickBody(msgspec.Struct, forbid_unknown_fields=True):
    """Users checked, the rest as it came."""

    users: Annotated[list[QuickUser], msgspec.Meta(min_length=1)]
    treatments: Any = UNSET
    doses: Any = UNSET
    dose_grid: Any = UNSET
    interval: Any = UNSET
    budget: Any = UNSET
    allow_extrapolation: Any = UNSET
    campaign: Any = UNSET
    model: Any = UNSET


_DECODER = msgspec.json.Decoder(_QuickBody)
_OPTIONS = tuple(name for name in _QuickBody.__struct_fields__ if name != "users")


@dataclass(frozen=True, slots=True)
class UpliftBody:
    """A request: its users, with ``user_id``, ``features`` and ``behaviours``, and what is asked about them."""

    users: Sequence[PersonLike]
    options: UpliftOptions


def decode(raw: bytes, settings: Settings) -> UpliftBody:
    """The bytes of a body as a request.

    Raises:
        ServiceError: 400 or 422, as the case may be.
    """
    limits = settings.limits
    found = quick(raw, limits.users)
    if found is None:
        asked = body.validated(raw, UpliftRequest, settings, {"users": limits.users})
        found = UpliftBody([Person(user.user_id, user.features) for user in asked.users], asked)
    columns_fit([("/users/{}/user_id", [user.user_id for user in found.users])], limits.id_bytes)
    return found


def quick(raw: bytes, most: int) -> UpliftBody | None:
    """The request, or None where it has to be read with more care.

    Args:
        raw: The body.
        most: Users that one request may have.
    """
    if b"\\" in raw and (b'\\"' in raw or body.SURROGATE.search(raw)):
        return None
    try:
        decoded = _DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    users = decoded.users
    given = {name: value for name in _OPTIONS if (value := getattr(decoded, name)) is not UNSET}
    kept = 1 + _keys_in(given) + _keys_of(users)
    if len(users) > most or (raw.count(b":") != kept and _keys_written(raw) != kept):
        return None  # a key stands twice, and the decoder kept one of them
    try:
        return UpliftBody(users, UpliftOptions.model_validate(given))
    except ValidationError:
        return None


def _keys_written(raw: bytes) -> int:
    """Keys of all objects in a body without escaped quotes: quotes with a colon behind them."""
    return len(_KEY.findall(raw))


def _keys_of(users: list[QuickUser]) -> int:
    features = [user.features for user in users]
    absent = 0 if all(features) else sum(each is _ABSENT for each in features)
    return 2 * len(users) - absent + sum(map(len, features))


def _keys_in(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys_in, value.values()))
    return sum(map(_keys_in, value)) if isinstance(value, list) else 0

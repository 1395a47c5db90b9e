"""Reading the body of /uplift: a thousand users in one pass where nothing is wrong, else by the documented models.

The quick way gives up, without a word, on anything unusual: what it accepts the documented way accepts with the same
meaning, and whatever is wrong is described by the documented way.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from bundle.population import Person, UpliftQuery
from bundle.user_columns import UserColumns
from service.api import body
from service.api.compiled_users import CompiledUsers
from service.api.ids import columns_fit
from service.api.typed_users import TypedBody, UserDecoder
from service.api.uplift_schemas import UpliftOptions, UpliftRequest
from service.compiled.columns import Piece, strings
from service.compiled.library import CompiledUnavailable
from service.compiled.users import UserBlock
from service.core.uplift_version import Told
from service.errors import ServiceError
from service.settings import Settings

# Of the deepest body there is: an object, its users, a user, its features, a list of ids.
_DEPTH: Final = 5
# Where these stand in a body, they stand before or behind the users.
_ROUTING_KEYS: Final = (b'"model"', b'"campaign"')
_END: Final = 1024


@dataclass(frozen=True, slots=True)
class UpliftBody:
    """A request: its users, their ids as JSON, and what is asked about them."""

    users: UpliftQuery | UserColumns | UserBlock
    user_ids: Piece
    options: UpliftOptions


class Routing(Struct):
    """What decides which bundle answers."""

    model: str | None = None
    campaign: str | None = None


_ROUTING: Final = msgspec.json.Decoder(Routing)


def documented(raw: bytes, settings: Settings) -> UpliftBody:
    """The bytes of a body as a request.

    Raises:
        ServiceError: 400 or 422, as the case may be.
    """
    asked = body.validated(raw, UpliftRequest, settings, {"users": settings.limits.users})
    user_ids = [user.user_id for user in asked.users]
    columns_fit([("/users/{}/user_id", user_ids)], settings.limits.id_bytes)
    people = [Person(user.user_id, user.features) for user in asked.users]
    return UpliftBody(UpliftQuery(people, time.time()), strings(user_ids), asked)


def routing(raw: bytes) -> Routing:
    """The model and the campaign that a body seems to name: enough to choose how to read it, no more."""
    ends = raw[:_END] + raw[-_END:]
    if not any(key in ends for key in _ROUTING_KEYS):
        return Routing()
    try:
        return _ROUTING.decode(raw)
    except (ValueError, RecursionError):  # whatever is wrong is found again
        return Routing()


def quick(raw: bytes, told: tuple[Told, ...], settings: Settings) -> UpliftBody | None:
    """The request, or None where it has to be read with more care.

    Args:
        raw: The body.
        told: What users may be told by to the bundle that is to answer.
        settings: Limits.
    """
    limits = settings.limits
    if limits.json_depth < _DEPTH:
        return None
    for reader in readers_for(told):
        try:
            found = reader.decode(raw, limits.users)
            if found is None:
                continue
            options = UpliftOptions.model_validate(found.options)
        except (ValueError, RecursionError, ValidationError, ServiceError):
            continue
        # Escapes are longer than what they stand for: an id that seems to be too long is measured with more care.
        fits = _longest(found) <= limits.id_bytes
        return UpliftBody(found.users, found.user_ids, options) if fits else None
    return None


def _longest(found: TypedBody) -> int:
    """Bytes of the longest id as it is written."""
    if isinstance(found.users, UserBlock):
        return found.users.longest
    return int((found.user_ids.stop - found.user_ids.start).max()) - len('""')


@lru_cache(maxsize=64)
def readers_for(told: tuple[Told, ...]) -> tuple[CompiledUsers | UserDecoder, ...]:
    """Quick ways to read users, the quickest first; the same for all bundles that declare the same."""
    readers: list[CompiledUsers | UserDecoder] = []
    for kind in (CompiledUsers, UserDecoder):
        try:
            readers.append(kind(told))
        except (ValueError, CompiledUnavailable):  # names or kinds of features, or the machine, do not allow it
            continue
    return tuple(readers)

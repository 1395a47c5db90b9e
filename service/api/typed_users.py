"""Users of a body decoded by the types of the features that a bundle declares, and taken apart into columns.

One step of C makes and checks the users; no dictionary is built for any of them.
"""

import re
import time
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from msgspec.structs import astuple
from numpy.typing import NDArray

from bundle.user_columns import UserColumns
from service.api import body
from service.api.uplift_schemas import UpliftOptions
from service.compiled.columns import Piece, strings
from service.compiled.users import UserBlock
from service.core.uplift_version import Told

Flags = NDArray[np.bool_]

_OPTIONS: Final = tuple(UpliftOptions.model_fields)
_COLON: Final = ord(":")
_KEY: Final = re.compile(rb'"[ \t\r\n]*:')
_TYPES: Final[dict[str, Any]] = {
    "number": float | None | UnsetType,
    "id": str | None | UnsetType,
    "ids": str | list[str] | None | UnsetType,
}


class TypedBody(NamedTuple):
    """Users, their ids as JSON, and the other members of a body as they came."""

    users: UserColumns | UserBlock
    user_ids: Piece
    options: dict[str, Any]


class UserDecoder:
    """Decodes bodies of /uplift for bundles that declare the same features.

    Args:
        told: What users may be told by.

    Raises:
        ValueError: if a name cannot stand for a field of C.
    """

    def __init__(self, told: Sequence[Told]) -> None:
        self._told = told
        names = {f"f{place}": feature.name for place, feature in enumerate(told)}
        fields = [(f"f{place}", _TYPES[feature.kind], UNSET) for place, feature in enumerate(told)]
        features = msgspec.defstruct("Features", fields, rename=names, forbid_unknown_fields=True, gc=False)
        # Stands in every user whose request has no features; known by being this one object.
        self._nothing = nothing = features()
        user = msgspec.defstruct(
            "User",
            [
                ("user_id", Annotated[str, msgspec.Meta(min_length=1)]),
                ("features", features, msgspec.field(default_factory=lambda: nothing)),
            ],
            forbid_unknown_fields=True,
            gc=False,
        )
        users = Annotated[list[user], msgspec.Meta(min_length=1)]  # type: ignore[valid-type]  # made a line above
        options = [(name, Any, UNSET) for name in _OPTIONS]
        self._decoder = msgspec.json.Decoder(
            msgspec.defstruct("Body", [("users", users), *options], forbid_unknown_fields=True)
        )

    def decode(self, raw: bytes, most: int) -> TypedBody | None:
        """Users and options, unchecked these; None where there are too many users, or a key may stand twice.

        Args:
            raw: The body.
            most: Users that one request may have.

        Raises:
            ValueError: The body is not of this shape, or no JSON.
            RecursionError: It is nested too deeply.
        """
        if b"\\" in raw and (b'\\"' in raw or body.SURROGATE.search(raw)):
            return None  # quotes inside of texts would be counted as keys
        users, *values = astuple(self._decoder.decode(raw))
        if len(users) > most:
            return None
        options = {name: value for name, value in zip(_OPTIONS, values, strict=True) if value is not UNSET}
        features = [user.features for user in users]
        columns, silent = self._columns(features)
        absent = sum(each is self._nothing for each in features) if silent or not self._told else 0
        given = len(users) * len(self._told) - sum(np.count_nonzero(flags) for flags in silent.values())
        keys = 1 + _keys_in(options) + 2 * len(users) - absent + given
        if _colons(raw) != keys and _keys_written(raw) != keys:
            return None  # a key stands twice, and the decoder kept one of them
        ids = [user.user_id for user in users]
        return TypedBody(UserColumns(ids, time.time(), columns, silent), strings(ids), options)

    def _columns(self, features: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Flags]]:
        """Values by feature, and who is silent about it."""
        width = len(self._told)
        flat = list(chain.from_iterable(map(astuple, features)))
        columns: dict[str, Any] = {}
        silent: dict[str, Flags] = {}
        for place, feature in enumerate(self._told):
            values = flat[place::width]
            if feature.kind == "number":
                numbers = _all_numbers(values)
                if numbers is not None:
                    columns[feature.name] = numbers
                    continue
            if UNSET in values:
                silent[feature.name] = np.array([value is UNSET for value in values], dtype=np.bool_)
                values = [None if value is UNSET else value for value in values]
            columns[feature.name] = np.array(values, dtype=np.float64) if feature.kind == "number" else values
        return columns, silent


def _all_numbers(values: list[Any]) -> NDArray[np.float64] | None:
    """Numbers as an array; None where one is missing."""
    try:
        return np.fromiter(values, dtype=np.float64, count=len(values))
    except TypeError:
        return None


def _colons(raw: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(raw, dtype=np.uint8) == _COLON))


def _keys_written(raw: bytes) -> int:
    """Keys of all objects in a body without escaped quotes: quotes with a colon behind them."""
    return len(_KEY.findall(raw))


def _keys_in(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_keys_in, value.values()))
    return sum(map(_keys_in, value)) if isinstance(value, list) else 0

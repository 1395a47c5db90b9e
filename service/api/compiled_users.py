"""Users of a body as columns by compiled code, where it was built and no feature of the bundle has several ids."""

from collections.abc import Sequence
from typing import Final

from service.api import body
from service.api.typed_users import TypedBody
from service.compiled.columns import Piece
from service.compiled.users import UserReader
from service.core.uplift_version import Told

_DEPTH: Final = 16  # far beyond what options can have; they are validated all the same
_NO_OPTIONS: Final = frozenset({b'{"users":null}', b'{"users": null}'})


class CompiledUsers:
    """Reads bodies of /uplift for bundles that declare the same features.

    Args:
        told: What users may be told by.

    Raises:
        CompiledUnavailable: There is no compiled reader here.
        ValueError: if a feature may have several ids.
    """

    def __init__(self, told: Sequence[Told]) -> None:
        several = [feature.name for feature in told if feature.kind == "ids"]
        if several:
            raise ValueError(f"{several[0]} may have several ids")
        self._reader = UserReader([feature.name for feature in told], [feature.kind == "id" for feature in told])

    def decode(self, raw: bytes, most: int) -> TypedBody | None:
        """Users and options, unchecked these; None where the body has to be read in another way.

        Args:
            raw: The body.
            most: Users that one request may have.

        Raises:
            ServiceError: The options are no JSON, or one stands twice.
        """
        found = self._reader.read(raw, most)
        if found is None:
            return None
        options = {} if found.rest in _NO_OPTIONS else body.parse(found.rest, _DEPTH)
        options.pop("users", None)
        ids = found.user_ids
        return TypedBody(found, Piece(raw, ids.start, ids.stop), options)

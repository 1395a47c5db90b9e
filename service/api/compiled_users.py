"""Users of a body as columns by compiled code, where it was built and no feature of the bundle has several ids."""

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle.ids import MISSING_ID, id64_column
from bundle.user_columns import UserColumns
from service.api import body
from service.api.typed_users import TypedBody
from service.compiled.columns import Piece
from service.compiled.users import Coded, UserReader
from service.core.uplift_version import Told

_DEPTH: Final = 16  # far beyond what options can have; they are validated all the same


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
        options = body.parse(found.rest, _DEPTH)
        del options["users"]
        ids = found.user_ids
        features = {name: _hashed(each) if isinstance(each, Coded) else each for name, each in found.columns.items()}
        users = UserColumns(ids, time.time(), features, found.silent)
        return TypedBody(users, Piece(raw, ids.start - 1, ids.stop + 1), options)  # with the quotes


def _hashed(column: Coded) -> NDArray[np.uint64]:
    """A column's texts as id64, each different one hashed once."""
    hashes = np.append(id64_column(list(column.texts)), np.uint64(MISSING_ID))
    return hashes[column.codes]  # -1, for none, is the last

"""Users that compiled code read, as the tensors of a graph by compiled code: no pass of numpy over any column.

The encoder of ``bundle`` defines the answer; this is the same arithmetic. Declarations that ask for more (several ids,
behaviours, the user's own id, bucketed numbers) have the encoder alone.
"""

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundle.fitting import FittedSchema
from bundle.ids import MISSING_ID
from bundle.schema import BucketEncoder, IdFeature, NumberFeature
from bundle.schema_checks import MISSING_SUFFIX
from bundle.tables import UNSEEN
from service.compiled.fitted_parts import IdTablePart, Parts, ScalerPart, fields
from service.compiled.library import ADDRESS, compiled_function
from service.compiled.users import UserBlock

Flags = NDArray[np.bool_]


class _NumberColumn(ctypes.Structure):
    """``NumberColumn`` of population.cpp."""

    _fields_ = (*fields("q feature column flag"), ("scaler", ScalerPart))


class _IdColumn(ctypes.Structure):
    """``IdColumn`` of population.cpp."""

    _fields_ = (*fields("q feature column"), ("table", IdTablePart))


class _Tensors(ctypes.Structure):
    """``Tensors`` of population.cpp."""

    _fields_ = fields("p numbers ids; q number_columns id_columns number_width id_width")


class _Population(ctypes.Structure):
    """``Population`` of population.cpp."""

    _fields_ = fields("q users room; p numbers ids user_numbers user_ids missing unseen")


class Unsupported(ValueError):
    """A declaration asks for more than this encodes; the message says for what."""


class EncodedUsers(NamedTuple):
    """U users as a graph takes them.

    Attributes:
        inputs: The tensors of ``bundle.uplift_inputs.USER_INPUTS``.
        missing: By feature, (U,) whose value is missing; features that everybody has are left out.
        unseen_values: By id feature, (U,) whose value training did not see; only features with such a user.
        unseen: By id feature, how many such users there are.
    """

    inputs: dict[str, NDArray[Any]]
    missing: dict[str, Flags]
    unseen_values: dict[str, Flags]
    unseen: dict[str, int]


class PopulationEncoder:
    """Encodes users with a fitted declaration. Holds no state of its own; safe to share between threads.

    Args:
        fitted: The declaration.
        path: Of the library; by default where ``build`` puts it.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
        Unsupported: The declaration asks for more.
    """

    def __init__(self, fitted: FittedSchema, path: Path | None = None) -> None:
        self._encode = compiled_function("ctrlift_encode_users", (ADDRESS, ADDRESS), path, result=None)
        self._features = told = _told(fitted)
        self._parts = parts = Parts()
        layout = fitted.layout
        flags = {field.name: field.column for field in layout.user_numbers if field.name.endswith(MISSING_SUFFIX)}
        values = [field for field in layout.user_numbers if field.name not in flags]
        self._numbers = tuple((field.name, told.index(field.name)) for field in values)
        self._ids = tuple((field.name, told.index(field.name), field.column) for field in layout.user_ids)
        self._widths = len(layout.user_numbers), len(self._ids)
        numbers = [
            _NumberColumn(
                *(told.index(field.name), field.column, flags.get(field.name + MISSING_SUFFIX, -1)),
                parts.scaler(fitted.scalers[field.name]),
            )
            for field in values
        ]
        tables = [parts.table(fitted.id_tables[field.table]) for field in layout.user_ids]
        ids = [_IdColumn(row, column, table) for (_, row, column), table in zip(self._ids, tables, strict=True)]
        places = parts.structures(_NumberColumn, numbers), parts.structures(_IdColumn, ids)
        self._by = parts.structures(_Tensors, [_Tensors(*places, len(numbers), len(ids), *self._widths)])

    def encode(self, users: UserBlock) -> EncodedUsers:
        """The tensors of some users.

        Raises:
            ValueError: The users were read by other features.
        """
        if users.names != self._features:
            raise ValueError(f"users told by {list(users.names)}, expected {list(self._features)}")
        count, (number_width, id_width) = len(users), self._widths
        numbers = np.empty((count, number_width), dtype=np.float32)
        ids = np.empty((count, id_width), dtype=np.int64)
        counts = np.empty(len(self._numbers) + 2 * id_width, dtype=np.int64)
        room, *addresses = users.addresses
        start = counts.ctypes.data
        unseen_start = start + counts.itemsize * (len(self._numbers) + id_width)
        asked = _Population(count, room, *addresses, numbers.ctypes.data, ids.ctypes.data, start, unseen_start)
        self._encode(self._by, ctypes.byref(asked))
        return self._encoded(users, numbers, ids, counts.tolist())

    def _encoded(
        self, users: UserBlock, numbers: NDArray[np.float32], ids: NDArray[np.int64], counts: list[int]
    ) -> EncodedUsers:
        behind = len(self._numbers) + len(self._ids)
        unseen = {name: count for (name, _, _), count in zip(self._ids, counts[behind:], strict=True)}
        missing: dict[str, Flags] = {}
        if any(counts[:behind]):
            absent = {name: np.isnan(users.numbers[row]) for name, row in self._numbers}
            absent |= {name: users.ids[row] == MISSING_ID for name, row, _ in self._ids}
            missing = {name: flags for name in self._features if (flags := absent[name]).any()}
        strange = {
            name: (ids[:, column] == UNSEEN) & (users.ids[row] != MISSING_ID)
            for name, row, column in self._ids
            if unseen[name]
        }
        nothing = _no_behaviours(len(users))
        return EncodedUsers({"user_ids": ids, "user_numbers": numbers, **nothing}, missing, strange, unseen)


def _told(fitted: FittedSchema) -> tuple[str, ...]:
    """The features that users are told by, in declared order."""
    names: list[str] = []
    for feature in fitted.schema.feature:
        if not isinstance(feature, (IdFeature, NumberFeature)):
            raise Unsupported(f"{feature.name} is read off behaviours")
        if feature.name == fitted.schema.ids.user:
            raise Unsupported(f"{feature.name} is the user's own id")
        if feature.side == "candidate" or fitted.schema.is_item_column(feature):
            raise Unsupported(f"{feature.name} is the candidate's")
        if isinstance(feature, IdFeature) and feature.max_values > 1:
            raise Unsupported(f"{feature.name} may have several ids")
        names.append(feature.name)
    for field in fitted.layout.user_ids:
        if isinstance(fitted.id_tables[field.table].encoder, BucketEncoder):
            raise Unsupported(f"{field.name} is an interval")
    return tuple(names)


@lru_cache(maxsize=8)
def _no_behaviours(users: int) -> dict[str, NDArray[Any]]:
    """Histories without steps; requests come with the same number of users again and again."""
    return {
        "behaviour_ids": np.zeros((users, 1, 0), dtype=np.int64),
        "behaviour_numbers": np.zeros((users, 1, 0), dtype=np.float32),
        "behaviour_mask": np.zeros((users, 1, 1), dtype=np.bool_),
    }

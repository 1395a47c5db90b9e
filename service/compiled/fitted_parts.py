"""Fitted tables and scalers as compiled code reads them: structures of C, and what they point to."""

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bundle.ids import seed_offset
from bundle.scalers import RAW_LIMIT, SCALED_LIMIT, Scaler
from bundle.schema import BucketEncoder, HashEncoder
from bundle.tables import IdTable

_TYPES: Final = {"q": ctypes.c_int64, "Q": ctypes.c_uint64, "d": ctypes.c_double, "p": ctypes.c_void_p}
_SCALERS: Final = {"standardise": 0, "none": 0, "log": 1, "quantile": 2}


def fields(described: str) -> list[tuple[str, Any]]:
    """Fields of a structure from its C declaration in short: a letter for the type, a space, and the names."""
    parts = [part.split() for part in described.split(";")]
    return [(name, _TYPES[kind]) for kind, *names in parts for name in names]


class IdTablePart(ctypes.Structure):
    """``IdTable`` of fitted.h."""

    _fields_ = fields("q kind; p ids bounds; q count; Q offset")


class ScalerPart(ctypes.Structure):
    """``Scaler`` of fitted.h."""

    _fields_ = fields("q kind; d shift scale limit missing; p knots; q count")


class Parts:
    """Makes structures and arrays that compiled code points to; they live as long as this."""

    def __init__(self) -> None:
        self._held: list[Any] = []

    def structures(self, kind: Any, made: Sequence[Any]) -> int:
        """Where structures lie side by side."""
        array = (kind * len(made))(*made)
        self._held.append(array)
        return ctypes.addressof(array)

    def array(self, values: NDArray[Any], dtype: Any) -> int:
        """Where values lie; arrays of a bundle are not copied, for all workers share them."""
        array = np.require(values, dtype, ["C", "A"])
        self._held.append(array)
        return int(array.__array_interface__["data"][0])

    def table(self, table: IdTable) -> IdTablePart:
        """One table of ids."""
        encoder = table.encoder
        if isinstance(encoder, HashEncoder):
            return IdTablePart(1, None, None, encoder.buckets, seed_offset(encoder.seed))
        if isinstance(encoder, BucketEncoder):
            bounds = np.array(encoder.boundaries, dtype=np.float64)
            return IdTablePart(2, None, self.array(bounds, np.float64), len(bounds), 0)
        return IdTablePart(0, self.array(table.vocabulary, np.uint64), None, len(table.vocabulary), 0)

    def scaler(self, scaler: Scaler) -> ScalerPart:
        """One scaler of numbers."""
        raw = scaler.kind == "none"
        shift, scale, limit = (0.0, 1.0, RAW_LIMIT) if raw else (scaler.mean, scaler.std, SCALED_LIMIT)
        missing = min(max(scaler.mean, -RAW_LIMIT), RAW_LIMIT) if raw else 0.0
        knots = self.array(scaler.knots, np.float64)
        return ScalerPart(_SCALERS[scaler.kind], shift, scale, limit, missing, knots, len(scaler.knots))

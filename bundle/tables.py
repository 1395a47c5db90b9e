"""Fitted id tables: vocabulary, hash or buckets."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle.ids import MISSING_ID, mix
from bundle.schema import BucketEncoder, HashEncoder, TableEncoder

PADDING: Final = 0
UNSEEN: Final = 1
FIRST_REAL: Final = 2


@dataclass(frozen=True, slots=True)
class IdTable:
    """One embedding table's ids. `vocabulary` is sorted uint64 and empty unless the encoder is a vocabulary."""

    name: str
    encoder: TableEncoder
    vocabulary: NDArray[np.uint64]

    @property
    def rows(self) -> int:
        """Rows of the embedding table, padding and unseen included."""
        if isinstance(self.encoder, HashEncoder):
            return self.encoder.buckets + FIRST_REAL
        if isinstance(self.encoder, BucketEncoder):
            return len(self.encoder.boundaries) + 1 + FIRST_REAL
        return len(self.vocabulary) + FIRST_REAL

    def lookup(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row of each id64, any shape: unseen and missing ids are `UNSEEN`, nothing raises."""
        if isinstance(self.encoder, HashEncoder):
            buckets = mix(ids, self.encoder.seed) % np.uint64(self.encoder.buckets)
            return np.where(ids == MISSING_ID, UNSEEN, buckets.astype(np.int64) + FIRST_REAL)
        if len(self.vocabulary) == 0:
            return np.full(ids.shape, UNSEEN, dtype=np.int64)
        position = self.vocabulary.searchsorted(ids)
        # A missing id is never in the vocabulary (fitting leaves it out), so it needs no case of its own.
        found = self.vocabulary.take(position, mode="clip") == ids
        return np.where(found, position + FIRST_REAL, UNSEEN)

    def lookup_padded(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Rows of padded multi-valued ids (..., W): no value at all is one unseen, other empty slots are padding."""
        out = self.lookup(ids)
        if ids.shape[-1] == 1:
            return out
        out[..., 1:][ids[..., 1:] == MISSING_ID] = PADDING
        return out

    def bucket(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Row of each number by interval, any shape; NaN is `UNSEEN`."""
        encoder = self.encoder
        if not isinstance(encoder, BucketEncoder):
            raise TypeError(f"table {self.name!r} has no boundaries")
        interval = np.searchsorted(np.array(encoder.boundaries), values, side="right")
        return np.where(np.isnan(values), UNSEEN, interval + FIRST_REAL)

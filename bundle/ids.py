"""The one stable hash: text ids to 64-bit numbers.

Every process, version and language must agree on these numbers, so nothing here is seeded by the environment.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

MISSING_ID: Final = 0  # no value. A text whose hash is 0 (one in 2^64) would read as missing, which is harmless.

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MULTIPLY_1: Final = 0xBF58476D1CE4E5B9
_MULTIPLY_2: Final = 0x94D049BB133111EB


def id64(text: str) -> int:
    """XXH3-64 of the UTF-8 text, seed 0.

    Raises:
        ValueError: if the text is not a str, or holds a lone surrogate and so has no UTF-8 form.
    """
    if not isinstance(text, str):
        raise ValueError(f"an id must be text, got {type(text).__name__}")
    return xxhash.xxh3_64_intdigest(text.encode("utf-8"), seed=0)


def type32(text: str) -> int:
    """The first 4 bytes of `id64(text)` written little endian, as a number: how a behaviour's type is stored."""
    return id64(text) & 0xFFFFFFFF


def id64_column(values: Iterable[str | None] | NDArray[Any]) -> NDArray[np.uint64]:
    """Hash a column (N,) of texts to (N,) uint64, each distinct text once; None becomes `MISSING_ID`.

    Raises:
        ValueError: for a value that is neither str nor None. Integers must be turned into decimal text by the reader;
            floats and booleans have no single spelling.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "UOT":
            raise ValueError(f"ids must be text, got an array of {values.dtype}")
        values = values.tolist()
    listed = values if isinstance(values, list) else list(values)
    codes = {value: MISSING_ID if value is None else id64(value) for value in set(listed)}
    return np.array([codes[value] for value in listed], dtype=np.uint64)


def mix(ids: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Scramble id64 values (any shape) with a feature's seed, same shape out.

    SplitMix64's finaliser (Steele et al. 2014) over `id + seed * golden ratio`: two features with different seeds
    then collide on different pairs of values.
    """
    offset = np.uint64((seed * _GOLDEN + _GOLDEN) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):  # wrap-around is the arithmetic meant here
        z = np.asarray(ids, dtype=np.uint64) + offset
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MULTIPLY_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MULTIPLY_2)
        return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)

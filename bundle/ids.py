"""The one stable hash: text ids to 64-bit numbers.

Every process, version and language must agree on these numbers, so nothing here is seeded by the environment.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

MISSING_ID: Final = 0  # no value. A text whose hash is 0 (one in 2^64) would read as missing, which is harmless.

_TEXT: Final = {str}
_CANONICAL: Final = np.dtype(">u8")  # how xxhash writes a digest
_BLOCK: Final = 1 << 16
_FEW: Final = 256  # below this it is not worth while to look for repeats
# Hashes of texts that stood several times in a column (cities, not users): the next column holds most of them again.
_KNOWN: Final[dict[str | None, int]] = {}
_MOST_KNOWN: Final = 1 << 14
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
    """Hash a column (N,) of texts to (N,) uint64; None becomes `MISSING_ID`.

    Raises:
        ValueError: for a value that is neither str nor None. Integers must be turned into decimal text by the reader;
            floats and booleans have no single spelling.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "UOT":
            raise ValueError(f"ids must be text, got an array of {values.dtype}")
        values = values.tolist()
    listed = values if isinstance(values, list) else list(values)
    if len(listed) > _FEW and (recalled := _looked_up(listed, _KNOWN)) is not None:
        return recalled
    kinds = set(map(type, listed))
    if kinds != _TEXT:
        return _mixed_column(listed, kinds)
    if len(listed) > _FEW and len(distinct := list(set(listed))) < len(listed) // 2:
        codes = dict(zip(distinct, id64_column(distinct).tolist(), strict=True))
        _remember(codes)
        return np.array(list(map(codes.__getitem__, listed)), dtype=np.uint64)
    # In blocks, so that a long column holds few digests at a time.
    digests = b"".join(_digests(listed[first : first + _BLOCK]) for first in range(0, len(listed), _BLOCK))
    return np.frombuffer(digests, dtype=_CANONICAL).astype(np.uint64)


def _looked_up(listed: list[Any], codes: Mapping[str | None, int]) -> NDArray[np.uint64] | None:
    """The hashes of a column whose every text is known, else None."""
    try:
        return np.fromiter(map(codes.__getitem__, listed), dtype=np.uint64, count=len(listed))
    except (KeyError, TypeError):  # TypeError: a list, which is no key
        return None


def _remember(codes: Mapping[str, int]) -> None:
    if len(_KNOWN) + len(codes) > _MOST_KNOWN:
        _KNOWN.clear()
    if len(codes) <= _MOST_KNOWN:
        _KNOWN.update(codes)
        _KNOWN[None] = MISSING_ID


def _digests(texts: list[str]) -> bytes:
    return b"".join(map(xxhash.xxh3_64_digest, map(str.encode, texts)))


def _mixed_column(listed: list[Any], kinds: set[type]) -> NDArray[np.uint64]:
    """A column that is empty or holds something else than plain texts."""
    for kind in kinds:
        if not issubclass(kind, (str, type(None))):
            raise ValueError(f"an id must be text, got {kind.__name__}")
    present = [value is not None for value in listed]
    out = np.full(len(listed), MISSING_ID, dtype=np.uint64)
    out[present] = [id64(value) for value in listed if value is not None]
    return out


def seed_offset(seed: int) -> int:
    """What `mix` adds to an id for a seed."""
    return (seed * _GOLDEN + _GOLDEN) & 0xFFFFFFFFFFFFFFFF


def mix(ids: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Scramble id64 values (any shape) with a feature's seed, same shape out.

    SplitMix64's finaliser (Steele et al. 2014) over `id + seed * golden ratio`: two features with different seeds
    then collide on different pairs of values.
    """
    offset = np.uint64(seed_offset(seed))
    with np.errstate(over="ignore"):  # wrap-around is the arithmetic meant here
        z = np.asarray(ids, dtype=np.uint64) + offset
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MULTIPLY_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MULTIPLY_2)
        return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)

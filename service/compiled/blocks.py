"""Memory that compiled code writes to: as quick to get and to pass on as there is."""

import ctypes
from typing import Any, Final

# A type each power of two: passing one of these costs a fifth of passing a NumPy array's address.
_SIZES: Final = tuple(ctypes.c_char * (1 << power) for power in range(40))


def block(size: int) -> Any:
    """At least so many bytes, all of them zero and aligned to 16."""
    return _SIZES[max(10, (size - 1).bit_length())]()

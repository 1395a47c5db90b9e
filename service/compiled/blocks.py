"""Memory that compiled code writes to: as quick to get and to pass on as there is."""

import ctypes
from typing import Any, Final

# Types of many sizes: an array of one of them costs a fraction of a NumPy array whose address has to be asked for.
_STEP: Final = 512
_SMALL: Final = tuple(ctypes.c_char * (_STEP * (1 + number)) for number in range(128))
_LARGE: Final = tuple(ctypes.c_char * (1 << power) for power in range(40))


def block(size: int) -> Any:
    """At least so many bytes, all of them zero and aligned to 16."""
    number = size // _STEP
    return (_SMALL[number] if number < len(_SMALL) else _LARGE[size.bit_length()])()

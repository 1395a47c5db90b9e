"""Timers that ring when they were set for, where the system would bundle them to save power."""

import ctypes
import sys
from typing import Final

_PR_SET_TIMERSLACK: Final = 29  # of linux/prctl.h
_SLACK_NS: Final = 1000


def ring_in_time() -> None:
    """Let waits of the threads started from now on end within a microsecond of their time, where the system is Linux.

    Its default of 50 us doubles the time after which a thread asks for the interpreter; without it a service at eight
    clients answered six of a hundred requests more.
    """
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(_SLACK_NS), 0, 0, 0)
    except (OSError, AttributeError):
        return  # another C library; nothing but speed depends on it

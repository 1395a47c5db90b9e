"""Who waits for an outcome: a future, or whatever else wants to be told at once."""

from collections.abc import Callable
from typing import Any, Protocol


class Receiver(Protocol):
    """What an ``asyncio.Future`` has of it; used on the event loop's thread alone but for ``done``."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """It has come."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """It will not come."""
        ...

    def cancel(self) -> object:
        """It is given up."""
        ...


def outcome(work: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    """What ``work(*arguments)`` returns or raises."""
    try:
        return work(*arguments), None
    except Exception as raised:  # noqa: BLE001 - it is raised again where somebody waits for it
        return None, raised


def settle(receiver: Receiver, result: Any, error: Exception | None) -> None:
    """Hand an outcome over, if somebody still waits."""
    if receiver.done():
        return
    if error is not None:
        receiver.set_exception(error)
    else:
        receiver.set_result(result)

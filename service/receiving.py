"""Who waits for an outcome: a future, or whatever else wants to be told at once."""

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
